//! `[sink.rabbitmq]`: the servers, who forebay is there, the exchange and the routing key.

use std::sync::Arc;

use http::Uri;

use super::super::secret;
use super::{Kind, Section, tls};
use crate::drain::sinks::Template;
use crate::drain::sinks::rabbitmq::{self, Server};

/// The longest name that AMQP knows.
const NAME_BYTES_MAX: usize = 255;

pub(super) fn read(section: &Section<'_>) -> Option<Arc<dyn Kind>> {
    let servers = servers(section);
    let plain = servers.as_ref().is_some_and(|servers| servers.iter().all(|server| !server.tls));
    if plain && section.has("ca_file") {
        let cure = "write amqps:// in `servers`, or leave it out";
        section.refuse("ca_file", "is of certificates, and without TLS there are none", cure);
    }
    let tls = tls::client(section);
    let vhost = name(section, "vhost");
    let exchange = if section.has("exchange") { name(section, "exchange") } else { Some("") };
    let routing_key = routing_key(section);
    let user = section.required("user", "say who forebay is to the servers");
    let password = secret::read_credential(section, "sink.rabbitmq.password", "password");
    if let Some(None) = password {
        let cure = "say where the user's password is: password = { env = \"...\" }";
        section.missing("password", cure);
    }
    Some(Arc::new(rabbitmq::Settings {
        heartbeat: section.duration("heartbeat")?,
        servers: servers?,
        vhost: vhost?.to_owned(),
        user: user?.to_owned(),
        password: password??,
        tls: Arc::new(tls?),
        exchange: exchange?.to_owned(),
        routing_key: routing_key?,
    }))
}

fn servers(section: &Section<'_>) -> Option<Vec<Server>> {
    const CURE: &str = "write servers = [\"amqps://rabbit-1.example.com:5671\"], or amqp://";
    if !section.has("servers") {
        section.missing("servers", CURE);
        return None;
    }
    let mut servers = Vec::new();
    for text in section.texts("servers")? {
        if text.contains('@') {
            let cure = "write `user` and `password` beside it: addresses are shown, they are not";
            section.refuse("servers", "holds a user or a password", cure);
            return None;
        }
        let Some(server) = server(text) else {
            section.refuse("servers", "holds what is no server", CURE);
            return None;
        };
        servers.push(server);
    }
    if servers.is_empty() {
        section.refuse("servers", "is empty", CURE);
        return None;
    }
    Some(servers)
}

/// A URL without a path: the virtual host has a key of its own, and in a path every client reads it
/// another way.
fn server(text: &str) -> Option<Server> {
    let uri = text.parse::<Uri>().ok()?;
    let tls = match uri.scheme_str()? {
        "amqp" => false,
        "amqps" => true,
        _ => return None,
    };
    if uri.path() != "/" || uri.query().is_some() {
        return None;
    }
    let authority = uri.authority()?;
    let host = Some(authority.host()).filter(|host| !host.is_empty())?;
    let port = match authority.port() {
        Some(port) => port.as_u16(),
        None if authority.as_str() == host => {
            if tls {
                5671
            } else {
                5672
            }
        }
        // What stands behind the colon is none.
        None => return None,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some(Server { host, port, tls })
}

fn name<'t>(section: &Section<'t>, key: &str) -> Option<&'t str> {
    let name = section.text_or_default(key)?;
    if name.len() > NAME_BYTES_MAX {
        section.refuse(key, "is too long", "the longest name that AMQP knows has 255 bytes");
        return None;
    }
    Some(name)
}

fn routing_key(section: &Section<'_>) -> Option<Template> {
    let template = Template::parse(section.text_or_default("routing_key")?);
    match template {
        Ok(template) if template.pattern("").len() <= NAME_BYTES_MAX => Some(template),
        Ok(_) => {
            let cure = "the longest routing key that AMQP knows has 255 bytes";
            section.refuse("routing_key", "is too long", cure);
            None
        }
        Err(why) => {
            let cure = "write a name such as \"forebay.{lane}.{source}.{type}\"";
            section.refuse("routing_key", &format!("is no name: {why}"), cure);
            None
        }
    }
}
