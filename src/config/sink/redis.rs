//! `[sink.redis]`: the server, who forebay is there, the stream of an event.

use std::sync::Arc;

use redis::{ConnectionInfo, IntoConnectionInfo as _};

use super::super::secret;
use super::{Kind, Section, ca_pem};
use crate::drain::sinks::{Template, redis as sink};

pub(super) fn read(section: &Section<'_>) -> Option<Arc<dyn Kind>> {
    let server = server(section);
    let password = secret::read_credential(section, "sink.redis.password", "password");
    let stream = stream(section);
    let ca_pem = ca_pem(section);
    let entries_max = if section.has("entries_max") { section.count("entries_max") } else { None };
    Some(Arc::new(sink::Settings {
        server: server?,
        user: section.text("user").map(str::to_owned),
        password: password?,
        ca_pem: ca_pem?,
        stream: stream?,
        entries_max,
    }))
}

fn server(section: &Section<'_>) -> Option<ConnectionInfo> {
    const CURE: &str = "write url = \"redis://127.0.0.1:6379/0\", or rediss:// for TLS";
    let url = section.required("url", CURE)?;
    // The client's own words may quote the URL.
    let Ok(server) = url.into_connection_info() else {
        section.refuse("url", "is no URL of a Redis server", CURE);
        return None;
    };
    let settings = server.redis_settings();
    if settings.password().is_some() || settings.username().is_some() {
        let cure = "write `user` and `password` beside it: a URL is shown, they are not";
        section.refuse("url", "holds a user or a password", cure);
        return None;
    }
    Some(server)
}

fn stream(section: &Section<'_>) -> Option<Template> {
    match Template::parse(section.text_or_default("stream")?) {
        Ok(template) => Some(template),
        Err(why) => {
            let cure = "write a name such as \"forebay:{lane}\"";
            section.refuse("stream", &format!("is no name: {why}"), cure);
            None
        }
    }
}
