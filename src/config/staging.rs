//! What a replay to another receiver has to know: how senders sign, and what belongs to this
//! deployment and so must not be replayed to.
//!
//! No secret is asked for: what is replayed is signed with those of the other receiver. Where
//! events of a sink go is found without knowing its kind, so that none can be forgotten: in every
//! text of its table that names a host.

use std::net::SocketAddr;

use toml::de::DeValue;

use super::document::Value;
use super::section::{Reading, Section};
use super::{Kept, read_kept, receive, recipe};
use crate::identify::IdentitySpec;
use crate::verify::SchemeSpec;

/// What a replay to another receiver has to know.
#[derive(Debug)]
pub struct Staging {
    /// What is kept and where.
    pub kept: Kept,
    /// The sources, in the order of the file.
    pub senders: Vec<Sender>,
    /// The hosts of the sinks.
    pub hosts: Vec<SinkHost>,
    /// Where this forebay itself listens.
    pub listeners: Vec<SocketAddr>,
}

/// How the events of a source are signed.
#[derive(Debug)]
pub struct Sender {
    /// The source's name.
    pub name: String,
    /// How its requests are signed.
    pub scheme: SchemeSpec,
    /// Where the parts of its events' identity are.
    pub identity: IdentitySpec,
    /// Media types taken.
    pub content_types: Vec<String>,
}

/// A host that a sink names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkHost {
    /// The sink.
    pub sink: String,
    /// A name or an address, in small letters, without brackets and without a last dot.
    pub host: String,
    /// The port, where one is named.
    pub port: Option<u16>,
}

pub(super) fn read<'t>(reading: &'t Reading<'t>, root: &Section<'t>) -> Option<Staging> {
    let kept = read_kept(reading, root);
    let nothing = super::section::empty();
    let of = |key| root.value(key).unwrap_or(&nothing);
    let receive = Section::open(reading, "receive", of("receive"))
        .and_then(|section| receive::read(&section));
    let admin = Section::open(reading, "admin", of("admin"))
        .and_then(|section| receive::read_admin(&section, receive.as_ref()));
    let sources = root.tables("source", "write [[source]] with two brackets, once for each source");
    let sender = |value| {
        let section = Section::open(reading, "source", value)?;
        let recipe = recipe::read(&section)?;
        let (_, identity) = recipe::identity(&section, recipe.identity);
        let content_types = recipe::content_types(&section, recipe.content_types);
        Some(Sender {
            name: section.name()?.to_owned(),
            scheme: recipe.scheme,
            identity,
            content_types,
        })
    };
    let senders: Option<Vec<Sender>> = sources.iter().map(sender).collect();
    let sinks = root.tables("sink", "write [[sink]] with two brackets, once for each sink");
    let mut hosts = Vec::new();
    for value in sinks {
        let section = Section::open(reading, "sink", value)?;
        let sink = section.name()?;
        each_text(value, reading, &mut |text| {
            let found = hosts_of(text).into_iter();
            hosts.extend(found.map(|(host, port)| SinkHost { sink: sink.to_owned(), host, port }));
        });
    }
    let listeners = vec![receive?.listen, admin?.listen];
    Some(Staging { kept: kept?, senders: senders?, hosts, listeners })
}

/// Calls `take` with every text in a value, and with those that its variables hold.
fn each_text(value: &Value<'_>, reading: &Reading<'_>, take: &mut dyn FnMut(&str)) {
    match value.get_ref() {
        DeValue::String(text) => take(text),
        DeValue::Array(list) => list.iter().for_each(|value| each_text(value, reading, take)),
        DeValue::Table(table) => {
            for (key, value) in table {
                each_text(value, reading, take);
                let variable = value.get_ref().as_str().filter(|_| key.get_ref() == "env");
                if let Some(text) = variable.and_then(|name| reading.environment.get(name)) {
                    take(text);
                }
            }
        }
        _ => {}
    }
}

/// The hosts that a text names: of a URL, or of a list of `HOST:PORT`.
fn hosts_of(text: &str) -> Vec<(String, Option<u16>)> {
    let (url, rest) = match text.split_once("://") {
        Some((_, rest)) => (true, rest),
        None => (false, text),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = |place: &str| {
        let place = place.rsplit('@').next().unwrap_or_default().trim();
        let (host, port) = match place.rsplit_once(':') {
            // Behind the last colon of an address of IPv6 alone there is no port.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, port.parse().ok())
            }
            _ => (place, None),
        };
        let named = !host.is_empty() && !host.contains(char::is_whitespace);
        (named && (url || port.is_some())).then(|| (plain_host(host), port))
    };
    authority.split(',').filter_map(host).collect()
}

/// A host as it is compared.
pub fn plain_host(host: &str) -> String {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_found_however_a_sink_names_it() {
        let found = |text: &str| {
            let hosts = hosts_of(text).into_iter();
            hosts.map(|(host, port)| format!("{host} {}", port.unwrap_or(0))).collect::<Vec<_>>()
        };
        assert_eq!(found("https://Hooks.Example./a?b=c:1"), ["hooks.example 0"]);
        assert_eq!(found("nats://u:p@a.example:4222"), ["a.example 4222"]);
        assert_eq!(found("postgres://me@a:1,b:2/db"), ["a 1", "b 2"]);
        assert_eq!(found("a.example:9092,b.example:9093"), ["a.example 9092", "b.example 9093"]);
        assert_eq!(found("http://[FD00::1]:80/x"), ["fd00::1 80"]);
        assert_eq!(found("redis://[::1]"), ["::1 0"]);
        for none in ["", "json:room.id", "forebay.{lane}", "a: b", "0 4 * * *", "secret"] {
            assert!(found(none).is_empty(), "{none}");
        }
    }
}
