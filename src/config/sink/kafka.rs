//! `[sink.kafka]`: the brokers, who forebay is there, the topic of an event.

use std::sync::Arc;

use krafka::Compression;

use super::super::secret;
use super::{Kind, Section, ca_pem};
use crate::drain::sinks::Template;
use crate::drain::sinks::kafka::{self, Mechanism, Sasl};

pub(super) fn read(section: &Section<'_>) -> Option<Arc<dyn Kind>> {
    let brokers = brokers(section);
    let topic = topic(section);
    let sasl = sasl(section);
    let tls = section.truth("tls");
    let ca_pem = ca_pem(section);
    if tls == Some(false) && section.has("ca_file") {
        let cure = "write tls = true, or leave it out";
        section.refuse("ca_file", "is of certificates, and without TLS there are none", cure);
    }
    let compression = section.choice("compression").map(|word| match word {
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        _ => Compression::None,
    });
    Some(Arc::new(kafka::Settings {
        brokers: brokers?,
        sasl: sasl?,
        tls: tls?,
        ca_pem: ca_pem?,
        topic: topic?,
        compression: compression?,
        create_topics: section.truth("create_topics")?,
    }))
}

fn brokers(section: &Section<'_>) -> Option<Vec<String>> {
    const CURE: &str = "write brokers = [\"kafka-1.example.com:9092\"]";
    if !section.has("brokers") {
        section.missing("brokers", CURE);
        return None;
    }
    let brokers = section.texts("brokers")?;
    let address = |text: &str| {
        let (host, port) = text.rsplit_once(':')?;
        let plain = !host.is_empty() && !host.contains(['/', ',', '@', ' ']);
        (plain && port.parse::<u16>().is_ok()).then_some(())
    };
    if brokers.is_empty() || !brokers.iter().all(|text| address(text).is_some()) {
        section.refuse("brokers", "holds what is no address of a broker, or nothing", CURE);
        return None;
    }
    Some(brokers.into_iter().map(str::to_owned).collect())
}

fn topic(section: &Section<'_>) -> Option<Template> {
    const CURE: &str = "write a name such as \"forebay.{lane}.{source}\"";
    let template = match Template::parse(section.text_or_default("topic")?) {
        Ok(template) => template,
        Err(why) => {
            section.refuse("topic", &format!("is no name: {why}"), CURE);
            return None;
        }
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if !template.pattern("x").chars().all(plain) {
        let what = "is no name of a topic: letters, digits, `.`, `-` and `_` are";
        section.refuse("topic", what, CURE);
        return None;
    }
    Some(template)
}

/// User and password, where one of the exchanges wants them.
#[expect(clippy::option_option, reason = "none: a reported mistake; none within: no such key")]
fn sasl(section: &Section<'_>) -> Option<Option<Sasl>> {
    let password = secret::read_credential(section, "sink.kafka.password", "password")?;
    let user = section.text("user");
    let mechanism = match section.choice("sasl")? {
        "plain" => Mechanism::Plain,
        "scram-sha-256" => Mechanism::ScramSha256,
        "scram-sha-512" => Mechanism::ScramSha512,
        _ => {
            if let Some(key) = ["user", "password"].into_iter().find(|key| section.has(key)) {
                let cure = "write sasl = \"scram-sha-512\", or leave it out";
                section.refuse(key, "is not asked for without `sasl`", cure);
            }
            return Some(None);
        }
    };
    let Some(user) = user.filter(|user| !user.is_empty()) else {
        section.missing("user", "say who forebay is to the brokers");
        return None;
    };
    let Some(password) = password else {
        let cure = "say where the user's password is: password = { env = \"...\" }";
        section.missing("password", cure);
        return None;
    };
    Some(Some(Sasl { mechanism, user: user.to_owned(), password }))
}
