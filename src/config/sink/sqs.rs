//! `[sink.sqs]`: the queue, where it is asked, who forebay is there.

use std::sync::Arc;

use http::Uri;

use super::super::secret;
use super::endpoint::endpoint;
use super::http::{check_host, trusted};
use super::{Kind, Section};
use crate::drain::sinks::sqs::{self, Credentials};

const QUEUE_CURE: &str =
    "write queue_url = \"https://sqs.eu-central-1.amazonaws.com/123456789012/hooks\"";

const ENDPOINT_CURE: &str = "write endpoint = \"https://sqs.example.com\"";

pub(super) fn read(section: &Section<'_>) -> Option<Arc<dyn Kind>> {
    let allow_http = section.truth("allow_http")?;
    let allow_private = section.truth("allow_private")?;
    let queue = queue(section, allow_http);
    let endpoint = if section.has("endpoint") {
        endpoint(section, "endpoint", ENDPOINT_CURE, allow_http)
    } else {
        queue.as_ref().map(|(_, url)| url.clone())
    };
    if let Some(endpoint) = &endpoint {
        let key = if section.has("endpoint") { "endpoint" } else { "queue_url" };
        check_host(section, key, endpoint, allow_private);
    }
    let region = endpoint.as_ref().map(|endpoint| region(section, endpoint));
    let credentials = credentials(section);
    let authorities = trusted(section);
    let request_bytes_max = section.size("request_size");
    Some(Arc::new(sqs::Settings {
        queue_url: queue?.0,
        endpoint: endpoint?,
        region: region??,
        credentials: credentials?,
        authorities: authorities?,
        allow_private,
        request_bytes_max: usize::try_from(request_bytes_max?).unwrap_or(usize::MAX),
    }))
}

/// The queue's name as SQS has it, and where it is asked unless something else is said.
fn queue(section: &Section<'_>, allow_http: bool) -> Option<(String, Uri)> {
    let text = section.required("queue_url", QUEUE_CURE)?;
    let origin = endpoint(section, "queue_url", QUEUE_CURE, allow_http)?;
    let (_, name) = text.rsplit_once('/')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let of_queue = name.strip_suffix(".fifo").unwrap_or(name);
    if of_queue.is_empty() || !of_queue.chars().all(plain) {
        section.refuse("queue_url", "names no queue", QUEUE_CURE);
        return None;
    }
    Some((text.to_owned(), origin))
}

/// What is said, or else the word behind `sqs` in a host of Amazon's.
fn region(section: &Section<'_>, endpoint: &Uri) -> Option<String> {
    if let Some(region) = section.text("region").filter(|text| !text.is_empty()) {
        return Some(region.to_owned());
    }
    let host = endpoint.host().unwrap_or_default();
    let of_amazon = host.contains(".amazonaws.com") || host.ends_with(".api.aws");
    let mut labels = host.split('.').skip_while(|label| !matches!(*label, "sqs" | "sqs-fips"));
    let region = labels.nth(1).filter(|_| of_amazon);
    if region.is_none() {
        section.missing("region", "say which signatures are to name: region = \"eu-central-1\"");
    }
    region.map(str::to_owned)
}

#[expect(clippy::option_option, reason = "none: a reported mistake; none within: no such key")]
fn credentials(section: &Section<'_>) -> Option<Option<Credentials>> {
    let secret_key = secret::read_credential(section, "sink.sqs.secret_key", "secret_key")?;
    let session_token =
        secret::read_credential(section, "sink.sqs.session_token", "session_token")?;
    let access_key = section.text("access_key").filter(|text| !text.is_empty());
    match (access_key, secret_key) {
        (Some(access_key), Some(secret_key)) => {
            let access_key = access_key.to_owned();
            Some(Some(Credentials { access_key, secret_key, session_token }))
        }
        (None, None) if session_token.is_none() => Some(None),
        (Some(_), None) => {
            let cure = "say where its secret is: secret_key = { env = \"...\" }";
            section.missing("secret_key", cure);
            None
        }
        (None, _) => {
            section.missing("access_key", "say whose secret it is");
            None
        }
    }
}
