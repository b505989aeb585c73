//! `forebay check`: is the configuration good, and what does it come to?
//!
//! Reads, checks and prints; opens no listener and no log. Secrets are shown by name and origin,
//! never by value. Exit codes: 0 good, 78 not.

mod sink;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::terminal;
use crate::config::{
    self, Config, ConfigError, LaneConfig, Origin, SecretConfig, Source, duration_text, size_text,
};
use crate::handshake::Confirm;
use crate::identify::RuleText;
use crate::verify::Validity;

/// What `check` takes.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// The configuration; else `FOREBAY_CONFIG`, else `/etc/forebay/forebay.toml`
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON, of a good configuration and of a bad one
    #[arg(long)]
    pub json: bool,
}

/// Runs the verb.
pub(super) fn run(args: &CheckArgs) -> ExitCode {
    let path = config::path(args.config.as_deref());
    let outcome = config::load(&path, config::environment());
    let code = if outcome.is_ok() { 0 } else { ConfigError::EXIT_CODE };
    let text = match (&outcome, args.json) {
        (Ok(config), true) => format!("{:#}\n", good_json(&path, config)),
        (Ok(config), false) => good_text(&path, config),
        (Err(error), true) => format!("{:#}\n", bad_json(&path, error)),
        (Err(error), false) => {
            terminal::report(error);
            return ExitCode::from(code);
        }
    };
    terminal::print(text.as_bytes(), code)
}

fn bad_json(path: &Path, error: &ConfigError) -> Value {
    let problems: Vec<Value> = error
        .problems()
        .map(|problem| {
            json!({
                "problem": problem.title,
                "cure": problem.cure,
                "origin": problem.origin,
                "line": problem.line,
                "column": problem.column,
            })
        })
        .collect();
    json!({ "valid": false, "config": path, "problems": problems })
}

fn good_json(path: &Path, config: &Config) -> Value {
    let receive = &config.receive;
    json!({
        "valid": true,
        "config": path,
        "data_dir": config.data_dir,
        "receive": {
            "listen": receive.listen,
            "receivers": receive.receivers,
            "driver": receive.driver.as_str(),
            "body_max": size_text(receive.body_bytes_max),
            "body_budget": size_text(receive.body_budget_bytes),
            "head_timeout": duration_text(receive.head_timeout),
            "body_timeout": duration_text(receive.body_timeout),
            "body_rate_min": size_text(receive.body_rate_min),
            "idle_timeout": duration_text(receive.idle_timeout),
            "write_timeout": duration_text(receive.write_timeout),
            "drain_timeout": duration_text(receive.drain_timeout),
            "trusted_proxies": networks(&receive.proxies.trusted),
            "proxy_header": receive.proxies.kind.as_str(),
            "connections_per_address": receive.connections_per_address,
            "failures_per_address": receive.failures_per_address,
        },
        "admin": { "listen": config.admin.listen },
        "quarantine": {
            "size": size_text(config.quarantine.bytes),
            "age": duration_text(config.quarantine.age),
            "rate": config.quarantine.rate.map(size_text),
        },
        "outgoing": {
            "proxy": config.outgoing.proxy.as_ref().map(ToString::to_string),
            "ca_certificates": config.outgoing.ca.len(),
        },
        "lanes": config.lanes.iter().map(lane_json).collect::<Vec<_>>(),
        "sources": config.sources.iter().map(|source| source_json(config, source)).collect::<Vec<_>>(),
        "sinks": config.sinks.iter().map(|sink| sink::json(config, sink)).collect::<Vec<_>>(),
    })
}

fn lane_json(lane: &LaneConfig) -> Value {
    json!({
        "name": lane.name,
        "ack": lane.ack_text(),
        "replicate_to": lane.replicate_to,
        "segment_size": size_text(lane.segment_bytes),
        "retention": {
            "age": duration_text(lane.retention_age),
            "size": lane.retention_bytes.map(size_text),
        },
        "dedupe_window": duration_text(lane.dedupe_window),
        "dedupe_capacity": lane.dedupe_keys_max,
        "disk_reserve": lane.disk_reserve_bytes.map(size_text),
        "priority": lane.priority,
    })
}

fn source_json(config: &Config, source: &Source) -> Value {
    json!({
        "name": source.name,
        "path": source.path,
        "preset": source.preset.map(|preset| preset.name.as_str()),
        "title": source.preset.map(|preset| preset.title.as_str()),
        "lane": lane_name(config, source),
        "environment": source.environment,
        "tenant": source.tenant,
        "rules": Value::Object(
            source.rules().map(|(key, rule)| (key.to_owned(), rule_json(rule))).collect(),
        ),
        "content_types": source.content_types,
        "body_max": size_text(source.body_bytes_max),
        "allow_from": networks(&source.gate.allow_from),
        "client_certificate": source.gate.certificate.as_ref().map(|certificate| {
            json!({ "header": certificate.header.as_str(), "values": certificate.values })
        }),
        "expect": source.expected.places(),
        "handshakes": source.handshakes.names().collect::<Vec<_>>(),
        "confirm": source.handshakes.confirm().map(Confirm::as_str),
        "tolerance": source.tolerance.map(duration_text),
        "secrets": source.secrets.iter().map(secret_json).collect::<Vec<_>>(),
    })
}

fn networks(networks: &[IpNet]) -> Vec<String> {
    networks.iter().map(ToString::to_string).collect()
}

fn rule_json(rule: &RuleText) -> Value {
    match rule {
        RuleText::One(rule) => json!(rule),
        RuleText::Joined(rules) => json!(rules),
    }
}

fn secret_json(secret: &SecretConfig) -> Value {
    let (origin, place) = match &secret.origin {
        Origin::Value => ("value", Value::Null),
        Origin::Env(variable) => ("env", json!(variable)),
        Origin::File(path) => ("file", json!(path)),
    };
    let [not_before, not_after] = validity_json(secret.validity);
    json!({
        "name": secret.name,
        "origin": origin,
        "from": place,
        "key_id": secret.key_id,
        "not_before": not_before,
        "not_after": not_after,
    })
}

fn lane_name<'c>(config: &'c Config, source: &Source) -> Option<&'c str> {
    config.lanes.get(source.lane).map(|lane| lane.name.as_str())
}

/// Facts in two columns, with a heading for each lane and source.
fn good_text(path: &Path, config: &Config) -> String {
    let mut text = Facts(format!("{} is good\n\n", path.display()));
    let receive = &config.receive;
    let (body_max, budget) =
        (size_text(receive.body_bytes_max), size_text(receive.body_budget_bytes));
    text.fact("data_dir", &config.data_dir.display().to_string());
    text.fact("receive", &format!("http://{}", receive.listen));
    text.fact("receivers", &format!("{}, driver {}", receive.receivers, receive.driver.as_str()));
    text.fact("bodies", &format!("at most {body_max}, {budget} in flight per receiver"));
    text.fact(
        "deadlines",
        &format!(
            "head {}, body {} at {}/s, idle {}, write {}, drain {}",
            duration_text(receive.head_timeout),
            duration_text(receive.body_timeout),
            size_text(receive.body_rate_min),
            duration_text(receive.idle_timeout),
            duration_text(receive.write_timeout),
            duration_text(receive.drain_timeout),
        ),
    );
    if !receive.proxies.trusted.is_empty() {
        let (trusted, how) = (networks(&receive.proxies.trusted), receive.proxies.kind.as_str());
        text.fact("proxies", &format!("{}, by {how}", trusted.join(", ")));
    }
    text.fact("admin", &format!("http://{}", config.admin.listen));
    let quarantine = match config.quarantine.bytes {
        0 => "none".to_owned(),
        bytes => format!("{}, {}", size_text(bytes), duration_text(config.quarantine.age)),
    };
    text.fact("quarantine", &quarantine);
    if let Some(proxy) = &config.outgoing.proxy {
        text.fact("outgoing", &format!("by {proxy}"));
    }
    for lane in &config.lanes {
        lane_text(&mut text, config, lane);
    }
    for source in &config.sources {
        source_text(&mut text, config, source);
    }
    for sink in &config.sinks {
        sink::text(&mut text, config, sink);
    }
    text.0
}

/// The text as it grows.
struct Facts(String);

impl Facts {
    fn heading(&mut self, kind: &str, name: &str) {
        // Writing to a String cannot fail.
        _ = writeln!(self.0, "\n{kind} {name}");
    }

    fn fact(&mut self, key: &str, value: &str) {
        _ = writeln!(self.0, "  {key:<12}  {value}");
    }
}

fn lane_text(text: &mut Facts, config: &Config, lane: &LaneConfig) {
    text.heading("lane", &lane.name);
    text.fact("ack", lane.ack_text());
    if let Some(sink) = &lane.replicate_to {
        text.fact("replicate_to", sink);
    }
    text.fact("folder", &config.lane_dir(lane).display().to_string());
    text.fact("segment_size", &size_text(lane.segment_bytes));
    let size = lane
        .retention_bytes
        .map_or_else(String::new, |bytes| format!(", at most {}", size_text(bytes)));
    text.fact("retention", &format!("{}{size}", duration_text(lane.retention_age)));
    text.fact(
        "dedupe",
        &format!("{}, {} events", duration_text(lane.dedupe_window), lane.dedupe_keys_max),
    );
    let reserve = lane
        .disk_reserve_bytes
        .map_or_else(|| "two segments, at least 5 % of the disk".to_owned(), size_text);
    text.fact("disk_reserve", &reserve);
}

fn source_text(text: &mut Facts, config: &Config, source: &Source) {
    text.heading("source", &source.name);
    text.fact("path", &source.path);
    let signed = source.preset.map_or_else(
        || "a scheme of its own".to_owned(),
        |preset| format!("{} (preset {})", preset.title, preset.name),
    );
    text.fact("signed as", &signed);
    if let Some(unconfirmed) = source.preset.and_then(|preset| preset.unconfirmed.as_deref()) {
        text.fact("unconfirmed", unconfirmed);
    }
    let secrets: Vec<String> = source.secrets.iter().map(secret_text).collect();
    text.fact("secrets", &secrets.join(", "));
    if let Some(tolerance) = source.tolerance {
        text.fact("tolerance", &duration_text(tolerance));
    }
    text.fact("lane", lane_name(config, source).unwrap_or_default());
    text.fact("environment", &source.environment);
    if let Some(tenant) = &source.tenant {
        text.fact("tenant", tenant);
    }
    for (key, rule) in source.rules() {
        match rule {
            RuleText::One(rule) => text.fact(key, rule),
            RuleText::Joined(rules) => text.fact(key, &rules.join(" and ")),
        }
    }
    let handshakes: Vec<&str> = source.handshakes.names().collect();
    if !source.gate.allow_from.is_empty() {
        text.fact("allow_from", &networks(&source.gate.allow_from).join(", "));
    }
    if let Some(certificate) = &source.gate.certificate {
        let values = certificate.values.join(" or ");
        text.fact("certificate", &format!("{values}, told in {}", certificate.header));
    }
    let expected = source.expected.places();
    if !expected.is_empty() {
        text.fact("expect", &expected.join(", "));
    }
    if !handshakes.is_empty() {
        text.fact("handshakes", &handshakes.join(", "));
    }
    if let Some(confirm) = source.handshakes.confirm() {
        text.fact("confirm", confirm.as_str());
    }
    let types = source.content_types.join(", ");
    text.fact("takes", &format!("{types}; at most {}", size_text(source.body_bytes_max)));
}

fn secret_text(secret: &SecretConfig) -> String {
    let name = &secret.name;
    let time = validity_text(secret.validity);
    let key_id =
        secret.key_id.as_ref().map_or_else(String::new, |key_id| format!(", key id {key_id}"));
    match &secret.origin {
        Origin::Value => format!("{name} (in the file{key_id}{time})"),
        Origin::Env(variable) => format!("{name} (env {variable}{key_id}{time})"),
        Origin::File(path) => format!("{name} (file {}{key_id}{time})", path.display()),
    }
}

fn validity_text(validity: Validity) -> String {
    let mut text = String::new();
    for (word, at) in ["from", "until"].into_iter().zip(validity_json(validity)) {
        if let Some(at) = at {
            // Writing to a String cannot fail.
            _ = write!(text, ", {word} {at}");
        }
    }
    text
}

/// Its first and its last moment, where it has them.
fn validity_json(Validity { from_ns, until_ns }: Validity) -> [Option<String>; 2] {
    let moment = |ns| Timestamp::from_nanosecond(i128::from(ns)).ok().map(|at| at.to_string());
    [
        Some(from_ns).filter(|ns| *ns > 0).and_then(moment),
        Some(until_ns).filter(|ns| *ns < u64::MAX).and_then(moment),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
data_dir = "/data"
[[lane]]
name = "main"
retention = { size = "1GiB" }
[[source]]
name = "rooms"
path = "/livekit"
preset = "livekit"
tenant = "acme"
secrets = [
  { name = "a", value = "canary-canary-canary", key_id = "APIa" },
  { name = "b", env = "ROOMS_B", key_id = "APIb", not_after = "2027-01-01T00:00:00Z" },
]
[[source]]
name = "pay"
path = "/stripe"
preset = "stripe"
secrets = [{ name = "a", value = "canary-canary-canary" }]
[[sink]]
name = "out"
order = "key"
order_key = "json:room.id"
rate = 50
types = ["room.*", "call"]
redact = ["json:user.email"]
filter = """
.body.amount
  > 100"""
dead_letters = { redrive = "0 4 * * *" }
[sink.http]
url = "https://hooks.example/canary-canary-canary"
secrets = [{ name = "a", value = "canarycanarycanarycanarycanarycanary" }]
headers = [{ name = "authorization", value = "canary" }]
"#;

    pub(super) fn load(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("forebay.toml");
        std::fs::write(&path, text).expect("a file");
        config::load(&path, [("ROOMS_B".to_owned(), "canary-canary-canary".to_owned())])
    }

    #[test]
    fn people_see_what_it_comes_to_and_no_secret() {
        let text = good_text(Path::new("forebay.toml"), &load(TEXT).expect("good"));
        assert!(!text.contains("canary"), "{text}");
        for line in [
            "forebay.toml is good",
            "  receive       http://127.0.0.1:8080",
            "lane main",
            "  folder        /data/lanes/main",
            "  retention     168h, at most 1GiB",
            "source rooms",
            "  signed as     LiveKit (preset livekit)",
            "  secrets       a (in the file, key id APIa), b (env ROOMS_B, key id APIb, \
             until 2027-01-01T00:00:00Z)",
            "  tenant        acme",
            "  event_id      json:id",
            "  tolerance     5m",
            "sink out",
            "  to            https://hooks.example",
            "  lanes         main",
            "  order         key json:room.id",
            "  rate          50 events a second",
            "  format        raw",
            "  types         room.*, call",
            "  redact        json:user.email",
            "  filter        .body.amount > 100 (compiles)",
            "  redrive       0 4 * * * (UTC), 100 events a second",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line:?} in\n{text}");
        }
    }

    #[test]
    fn programs_see_the_same() {
        let json = good_json(Path::new("forebay.toml"), &load(TEXT).expect("good"));
        assert!(!json.to_string().contains("canary"), "{json}");
        assert_eq!(json["valid"], true);
        assert_eq!(json["lanes"][0]["retention"]["size"], "1GiB");
        assert_eq!(json["sources"][0]["preset"], "livekit");
        assert_eq!(json["sources"][0]["rules"]["event_type"], "json:event");
        assert_eq!(json["sources"][0]["secrets"][1]["from"], "ROOMS_B");
        assert_eq!(json["sources"][0]["secrets"][1]["not_after"], "2027-01-01T00:00:00Z");
        assert_eq!(json["sources"][1]["tolerance"], "5m");
        assert_eq!(json["sinks"][0]["kind"], "http");
        assert_eq!(json["sinks"][0]["to"][0], "https://hooks.example");
        assert_eq!(json["sinks"][0]["shape"]["filter"], ".body.amount\n  > 100");
        assert_eq!(json["sinks"][0]["shape"]["redact"][0], "json:user.email");
        assert_eq!(json["sinks"][0]["shape"]["transform"], Value::Null);
        assert_eq!(json["sinks"][0]["retry"]["horizon"], "72h");
        let error = load(&TEXT.replace("/livekit", "livekit")).expect_err("bad");
        let json = bad_json(Path::new("forebay.toml"), &error);
        assert_eq!(json["valid"], false);
        assert_eq!(json["problems"][0]["line"], 8);
        assert!(!json.to_string().contains("canary"), "{json}");
    }

    #[test]
    fn an_expression_that_does_not_compile_is_shown_with_its_place() {
        let error = load(&TEXT.replace("> 100", "> > 100")).expect_err("bad");
        let json = bad_json(Path::new("forebay.toml"), &error);
        let problem = &json["problems"][0];
        assert!(problem["problem"].as_str().expect("text").contains("`sink.filter`"), "{problem}");
        let line = TEXT.lines().position(|line| line.starts_with("filter")).expect("it is there");
        assert_eq!(problem["line"], line + 1, "{problem}");
        assert!(!error.render(false).contains("canary"));
    }
}
