//! `[sink.nats]`: the servers of `JetStream`, who forebay is there, the subject of an event.

use std::sync::Arc;

use std::collections::BTreeSet;

use async_nats::ServerAddr;

use super::super::secret;
use super::{Kind, Section};
use crate::drain::sinks::Template;
use crate::drain::sinks::nats::{self, Credentials, NewStream};

pub(super) fn read(section: &Section<'_>) -> Option<Arc<dyn Kind>> {
    let servers = servers(section);
    let credentials = credentials(section);
    let subject = template(section, "subject");
    let stream = stream(section);
    let ca_file = section.text("ca_file");
    let tls = section.truth("tls");
    let ca_file = ca_file.map(|text| section.reading.path(text, &section.place("ca_file")));
    Some(Arc::new(nats::Settings {
        servers: servers?,
        credentials: credentials?,
        ca_file,
        tls: tls?,
        subject: subject?,
        stream: stream?,
    }))
}

fn servers(section: &Section<'_>) -> Option<Vec<ServerAddr>> {
    const CURE: &str = "write servers = [\"nats://127.0.0.1:4222\"], or tls:// for TLS";
    if !section.has("servers") {
        section.missing("servers", CURE);
        return None;
    }
    let mut servers = Vec::new();
    for text in section.texts("servers")? {
        match text.parse::<ServerAddr>() {
            Ok(server) if server.has_user_pass() => {
                let cure =
                    "write `user` and `password` beside it: addresses are shown, they are not";
                section.refuse("servers", "holds a password", cure);
                return None;
            }
            Ok(server) if !server.is_websocket() && !server.host().is_empty() => {
                servers.push(server);
            }
            _ => {
                section.refuse("servers", "holds what is no server", CURE);
                return None;
            }
        }
    }
    if servers.is_empty() {
        section.refuse("servers", "is empty", CURE);
        return None;
    }
    Some(servers)
}

/// At most one of the three ways to say who forebay is.
#[expect(clippy::option_option, reason = "none: a reported mistake; none within: no such key")]
fn credentials(section: &Section<'_>) -> Option<Option<Credentials>> {
    let ways: BTreeSet<&str> =
        ["credentials", "token", "user"].into_iter().filter(|key| section.has(key)).collect();
    if let (true, Some(second)) = (ways.len() > 1, ways.last()) {
        let cure = "keep one of `credentials`, `token` and `user`";
        section.refuse(second, "is a second way to say who forebay is", cure);
        return None;
    }
    let creds = secret::read_credential(section, "sink.nats.credentials", "credentials")?;
    let token = secret::read_credential(section, "sink.nats.token", "token")?;
    let password = secret::read_credential(section, "sink.nats.password", "password")?;
    let user = section.text("user");
    Some(match (user, password) {
        (Some(user), Some(password)) => Some(Credentials::User(user.to_owned(), password)),
        (Some(_), None) => {
            section.missing(
                "password",
                "say where the user's password is: password = { env = \"...\" }",
            );
            return None;
        }
        (None, Some(_)) => {
            section.missing("user", "say whose password it is");
            return None;
        }
        (None, None) => creds.map(Credentials::Creds).or(token.map(Credentials::Token)),
    })
}

#[expect(clippy::option_option, reason = "none: a reported mistake; none within: no such key")]
fn stream(section: &Section<'_>) -> Option<Option<NewStream>> {
    let name = section.text_or_default("stream");
    let duplicate_window = section.duration("duplicate_window");
    let replicas = section.count("replicas");
    if !section.truth("create_stream")? {
        for key in
            ["stream", "duplicate_window", "replicas"].into_iter().filter(|key| section.has(key))
        {
            let cure = "write create_stream = true, or leave it out";
            section.refuse(key, "is of a stream that forebay is not asked to make", cure);
        }
        return Some(None);
    }
    let name = name?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || !name.chars().all(plain) {
        let cure = "use letters, digits, `-` and `_`";
        section.refuse("stream", "is no name of a stream", cure);
    }
    let replicas = usize::try_from(replicas?).unwrap_or(1);
    Some(Some(NewStream { name: name.to_owned(), duplicate_window: duplicate_window?, replicas }))
}

fn template(section: &Section<'_>, key: &str) -> Option<Template> {
    match Template::parse(section.text_or_default(key)?) {
        Ok(template) => Some(template),
        Err(why) => {
            let cure = "write a name such as \"forebay.{lane}.{source}.{type}\"";
            section.refuse(key, &format!("is no name: {why}"), cure);
            None
        }
    }
}
