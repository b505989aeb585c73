//! `[sink.pubsub]`: the topic, where it is asked, who forebay is there.

use std::sync::Arc;

use http::Uri;

use super::super::secret;
use super::endpoint::endpoint;
use super::http::{check_host, trusted};
use super::{Kind, Section};
use crate::drain::sinks::pubsub::{self, Account, Login};

const TOPIC_CURE: &str = "write topic = \"projects/PROJECT/topics/TOPIC\"";
const ENDPOINT_CURE: &str = "write endpoint = \"https://europe-west1-pubsub.googleapis.com\"";
const KEY_CURE: &str = "give the JSON that Google makes of a service account's key";
/// Where machines of Google have their metadata, unless the variable says another place.
const METADATA: (&str, &str) = ("GCE_METADATA_HOST", "metadata.google.internal");

pub(super) fn read(section: &Section<'_>) -> Option<Arc<dyn Kind>> {
    let allow_http = section.truth("allow_http")?;
    let allow_private = section.truth("allow_private")?;
    let topic = topic(section);
    let endpoint: Option<Uri> = endpoint(section, "endpoint", ENDPOINT_CURE, allow_http);
    if let Some(endpoint) = &endpoint {
        check_host(section, "endpoint", endpoint, allow_private);
    }
    let login = login(section, allow_http);
    let authorities = trusted(section);
    Some(Arc::new(pubsub::Settings {
        topic: topic?,
        endpoint: endpoint?,
        login: login?,
        authorities: authorities?,
        allow_private,
    }))
}

fn topic(section: &Section<'_>) -> Option<String> {
    let text = section.required("topic", TOPIC_CURE)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~+%:".contains(c);
    let word = |word: &str| !word.is_empty() && word.chars().all(plain);
    let parts: Vec<&str> = text.split('/').collect();
    if let ["projects", project, "topics", topic] = parts.as_slice()
        && word(project)
        && word(topic)
    {
        return Some(text.to_owned());
    }
    section.refuse("topic", "is no whole name of a topic", TOPIC_CURE);
    None
}

fn login(section: &Section<'_>, allow_http: bool) -> Option<Login> {
    let word = section.choice("login")?;
    let Some(text) = secret::read_credential(section, "sink.pubsub.credentials", "credentials")?
    else {
        let (variable, host) = METADATA;
        let host = section.reading.environment.get(variable).map_or(host, String::as_str);
        return Some(if word == "none" { Login::Nobody } else { Login::Machine(host.to_owned()) });
    };
    if section.has("login") {
        section.refuse("login", "is said by `credentials` already", "keep one of the two");
        return None;
    }
    match Account::parse(text.expose_secret()) {
        Ok(account) if account.is_plain() && !allow_http => {
            section.refuse("credentials", "has a `token_uri` without TLS", KEY_CURE);
            None
        }
        Ok(account) => Some(Login::Key(Box::new(account))),
        Err(what) => {
            section.refuse("credentials", &what, KEY_CURE);
            None
        }
    }
}
