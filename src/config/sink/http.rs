//! `[sink.http]`: the URL, what signs, what is sent along, whom to trust, what may be reached.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Uri};
use rustls::RootCertStore;

use super::{Kind, Section};
use crate::config::secret::{check_length, origin, parted};
use crate::drain::sinks::http::{self as sink, Batch, authorities, guard};
use crate::limits;
use crate::verify::{NamedSecret, SecretText, preset};

/// Headers that a request has of its own.
const TAKEN: [&str; 9] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "idempotency-key",
    "transfer-encoding",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

pub(super) fn read(section: &Section<'_>) -> Option<Arc<dyn Kind>> {
    let url = url(section);
    let batch = section.choice("batch").map(|word| match word {
        "json" => Batch::Json,
        "cloudevents" => Batch::CloudEvents,
        _ => Batch::One,
    });
    let attributes = section.choice("attributes").map(|word| word == "cloudevents");
    if attributes == Some(true) && batch.is_some_and(|batch| batch != Batch::One) {
        let cure = "write batch = \"one\", or batch = \"cloudevents\" alone";
        section.refuse("attributes", "say of one event what a batch has of each", cure);
    }
    let secrets = secrets(section);
    let headers = headers(section);
    let authorities = trusted(section);
    let (connect_timeout, idle_timeout) =
        (section.duration("connect_timeout"), section.duration("idle_timeout"));
    let settings = sink::Settings {
        url: url?,
        batch: batch?,
        attributes: attributes?,
        secrets: secrets?,
        headers: headers?,
        authorities: authorities?,
        allow_private: section.truth("allow_private")?,
        connect_timeout: connect_timeout?,
        idle_timeout: idle_timeout?,
    };
    check_host(section, "url", &settings.url, settings.allow_private);
    if let Err(message) = settings.signers() {
        let (what, cure) = parted(&message);
        section.refuse("secrets", &format!("cannot sign: {what}"), cure);
    }
    Some(Arc::new(settings))
}

fn url(section: &Section<'_>) -> Option<Uri> {
    const CURE: &str = "write url = \"https://hooks.example.com/path\"";
    let url: Option<Uri> = section.required("url", CURE)?.parse().ok();
    let full = url.filter(|url| {
        matches!(url.scheme_str(), Some("https" | "http"))
            && url.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    });
    if full.is_none() {
        let cure = format!("{CURE}; a name and password go into a header");
        section.refuse("url", "is no URL of http or https", cure);
    }
    full
}

/// An address that could never be reached is a mistake of the file, not of the destination.
pub(super) fn check_host(section: &Section<'_>, key: &str, url: &Uri, allow_private: bool) {
    let address = url.host().and_then(guard::literal);
    if !allow_private && address.is_some_and(|address| !guard::is_public(address)) {
        let cure = "write allow_private = true if the destination is on this network";
        section.refuse(key, "names an address that is not public", cure);
    }
}

fn secrets(section: &Section<'_>) -> Option<Vec<NamedSecret>> {
    const CURE: &str = "write secrets = [{ name = \"main\", env = \"MY_SECRET\" }]";
    let values = section.tables("secrets", CURE);
    let read = |value| {
        let table = Section::open(section.reading, "sink.http.secrets", value)?;
        let name = table.name();
        let (key, _, text) = origin(&table)?;
        let value = SecretText::new(text.trim());
        let shared = !text.starts_with("-----BEGIN");
        if let Some(profile) = preset("standard-webhooks").filter(|_| shared) {
            let scheme = Some(&profile.scheme);
            check_length(&table, key, &value, (scheme, limits::SECRET_BYTES_MIN));
        }
        Some(NamedSecret { name: name?.to_owned(), value, key_id: None })
    };
    let secrets: Vec<Option<NamedSecret>> = values.iter().map(read).collect();
    secrets.into_iter().collect()
}

fn headers(section: &Section<'_>) -> Option<Vec<(HeaderName, HeaderValue)>> {
    const CURE: &str = "write headers = [{ name = \"authorization\", env = \"MY_TOKEN\" }]";
    let values = section.tables("headers", CURE);
    let read = |value| {
        let table = Section::open(section.reading, "sink.http.headers", value)?;
        let name: Option<HeaderName> = table.required("name", CURE)?.parse().ok();
        if name.as_ref().is_none_or(|name| TAKEN.contains(&name.as_str())) {
            let cure = "name another; those of HTTP itself, of the event and of the signature are \
                        set by forebay";
            table.refuse("name", "is no header that can be added", cure);
            return None;
        }
        let (key, _, text) = origin(&table)?;
        let Ok(mut value) = HeaderValue::from_str(text.trim()) else {
            table.refuse(key, "holds what no header can hold", "leave control characters out");
            return None;
        };
        value.set_sensitive(true);
        Some((name?, value))
    };
    let headers: Vec<Option<(HeaderName, HeaderValue)>> = values.iter().map(read).collect();
    headers.into_iter().collect()
}

#[expect(clippy::option_option, reason = "none: a reported mistake; none within: no such key")]
pub(super) fn trusted(section: &Section<'_>) -> Option<Option<RootCertStore>> {
    if !section.has("ca_file") {
        return Some(None);
    }
    let path = section.reading.path(section.text("ca_file")?, &section.place("ca_file"));
    match authorities(&path) {
        Ok(roots) => Some(Some(roots)),
        Err(what) => {
            let what = format!("names `{}`, which is of no use: {what}", path.display());
            section.refuse("ca_file", &what, "make it a file of certificates as PEM");
            None
        }
    }
}
