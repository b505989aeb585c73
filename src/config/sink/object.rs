//! `[sink.object]`: the bucket or folder, who forebay is there, what an object is and its folders.

use std::sync::Arc;

use std::fs;

use object_store::path::Path;

use super::super::secret;
use super::{Kind, Section};
use crate::drain::sinks::object::{self, Bucket, Format, Prefix};
use crate::verify::SecretText;

const URL_CURE: &str =
    "write url = \"s3://BUCKET/FOLDER\", or gs://, or az://, or file:///var/lib/events";

pub(super) fn read(section: &Section<'_>) -> Option<Arc<dyn Kind>> {
    let place = place(section);
    let identity = place.as_ref().map(|(bucket, _)| identity(section, bucket));
    let allow_http = section.truth("allow_http");
    let endpoint = allow_http.map(|allowed| endpoint(section, allowed));
    let ca_pem = ca_pem(section);
    let format = section.choice("format");
    let level = section.count("compression");
    let prefix = prefix(section);
    let ((bucket, base), (secret_key, session_token)) = (place?, identity??);
    Some(Arc::new(object::Settings {
        bucket,
        base,
        endpoint: endpoint??,
        region: section.text("region").map(str::to_owned),
        access_key: section.text("access_key").map(str::to_owned),
        secret_key,
        session_token,
        ca_pem: ca_pem?,
        allow_http: allow_http?,
        format: if format? == "parquet" { Format::Parquet } else { Format::Ndjson },
        level: i32::try_from(level?).unwrap_or_default(),
        prefix: prefix?,
    }))
}

/// What holds the objects, and the folder in it.
fn place(section: &Section<'_>) -> Option<(Bucket, Path)> {
    let url = section.required("url", URL_CURE)?;
    let refused = |what: &str| {
        section.refuse("url", what, URL_CURE);
        None
    };
    let Some((scheme, rest)) = url.split_once("://") else {
        return refused("is no URL of a store");
    };
    let (bucket, folder) = rest.split_once('/').unwrap_or((rest, ""));
    let Ok(folder) = Path::parse(folder.trim_end_matches('/')) else {
        return refused("names no folder");
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let named = !bucket.is_empty() && bucket.chars().all(plain);
    let bucket = match scheme {
        "file" if bucket.is_empty() && !folder.as_ref().is_empty() => Bucket::Folder,
        "file" => return refused("names no folder by its whole path"),
        "s3" if named => Bucket::S3(bucket.to_owned()),
        "gs" if named => Bucket::Gcs(bucket.to_owned()),
        "az" if named => Bucket::Azure(bucket.to_owned()),
        "s3" | "gs" | "az" => return refused("names no bucket"),
        _ => return refused("is of no store that forebay knows"),
    };
    Some((bucket, folder))
}

/// The secret and the token, if `access_key` and they fit together and the store.
fn identity(
    section: &Section<'_>,
    bucket: &Bucket,
) -> Option<(Option<SecretText>, Option<SecretText>)> {
    let of: &[&str] = match bucket {
        Bucket::S3(_) => &["access_key", "secret_key", "session_token"],
        Bucket::Azure(_) => &["access_key", "secret_key"],
        Bucket::Gcs(_) => &["secret_key"],
        Bucket::Folder => &[],
    };
    for key in ["access_key", "secret_key", "session_token"] {
        if section.has(key) && !of.contains(&key) {
            section.refuse(key, "is nothing that this store asks for", "leave it out");
            return None;
        }
    }
    let secret = secret::read_credential(section, "sink.object.secret_key", "secret_key")?;
    let token = secret::read_credential(section, "sink.object.session_token", "session_token")?;
    if section.has("access_key") && secret.is_none() {
        let cure = "say where its secret is: secret_key = { env = \"...\" }";
        section.missing("secret_key", cure);
        return None;
    }
    if of.contains(&"access_key") && secret.is_some() && !section.has("access_key") {
        section.missing("access_key", "say whose secret it is");
        return None;
    }
    Some((secret, token))
}

#[expect(clippy::option_option, reason = "none: a reported mistake; none within: no such key")]
fn endpoint(section: &Section<'_>, allow_http: bool) -> Option<Option<String>> {
    if !section.has("endpoint") {
        return Some(None);
    }
    let text = section.text("endpoint")?;
    let address = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let named = address.is_some_and(|rest| !rest.is_empty() && !rest.contains(['@', '?', '#']));
    if !named {
        let cure = "write endpoint = \"https://store.example.com:9000\"";
        section.refuse("endpoint", "is no address of a store", cure);
        return None;
    }
    if text.starts_with("http://") && !allow_http {
        let cure = "write https://, or allow_http = true if nobody can listen on the way";
        section.refuse("endpoint", "is without TLS", cure);
        return None;
    }
    Some(Some(text.to_owned()))
}

#[expect(clippy::option_option, reason = "none: a reported mistake; none within: no such key")]
fn ca_pem(section: &Section<'_>) -> Option<Option<Vec<u8>>> {
    let Some(text) = section.text("ca_file") else { return Some(None) };
    let path = section.reading.path(text, &section.place("ca_file"));
    match fs::read(&path) {
        Ok(pem) => Some(Some(pem)),
        Err(error) => {
            let what = format!("names `{}`, which cannot be read: {error}", path.display());
            section.refuse("ca_file", &what, "make it a PEM file that forebay's user may read");
            None
        }
    }
}

fn prefix(section: &Section<'_>) -> Option<Prefix> {
    match Prefix::parse(section.text_or_default("prefix")?) {
        Ok(prefix) => Some(prefix),
        Err(why) => {
            let cure = "write folders such as \"{lane}/dt={yyyy}-{mm}-{dd}/hour={hh}/\"";
            section.refuse("prefix", &format!("is no prefix: {why}"), cure);
            None
        }
    }
}
