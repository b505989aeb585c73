//! What a sink comes to, for people and for programs.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Facts;
use crate::config::{Config, SinkConfig, duration_text, size_text};
use crate::drain::shape::Settings;
use crate::drain::sinks::Destination;

fn lanes<'c>(config: &'c Config, sink: &SinkConfig) -> Vec<&'c str> {
    let named = |lane: &usize| config.lanes.get(*lane).map(|lane| lane.name.as_str());
    sink.lanes.iter().filter_map(named).collect()
}

pub(super) fn json(config: &Config, sink: &SinkConfig) -> Value {
    let Destination { to, names } = sink.settings.destination();
    json!({
        "name": sink.name,
        "kind": sink.settings.word(),
        "to": to,
        "names": names.into_iter().collect::<BTreeMap<_, _>>(),
        "lanes": lanes(config, sink),
        "order": sink.order.word(),
        "order_key": sink.order.rule(),
        "batch": {
            "count": sink.batch.events_max,
            "bytes": size_text(sink.batch.bytes_max as u64),
            "linger": duration_text(sink.batch.linger),
        },
        "retry": {
            "first": duration_text(sink.retry.first),
            "max": duration_text(sink.retry.max),
            "horizon": duration_text(sink.retry.horizon),
        },
        "rate": sink.events_per_second,
        "concurrency_max": sink.concurrency_max,
        "memory": size_text(sink.memory_bytes_max),
        "timeout": duration_text(sink.timeout),
        "shape": shape_json(sink.shape.settings()),
        "dead_letters": sink.redrive.as_ref().map(|redrive| {
            json!({ "redrive": redrive.times.text(), "rate": redrive.events_per_second })
        }),
    })
}

fn shape_json(shape: &Settings) -> Value {
    let Settings { format, select, filter, transform, redact } = shape;
    json!({
        "format": format.word(),
        "sources": select.sources,
        "types": select.types,
        "tenants": select.tenants,
        "environments": select.environments,
        "filter": filter,
        "transform": transform,
        "redact": redact,
    })
}

/// The keys that are set, each with what it says; an expression that does not compile never comes
/// here.
fn shape_text(text: &mut Facts, shape: &Settings) {
    let Settings { format, select, filter, transform, redact } = shape;
    text.fact("format", format.word());
    for (key, list) in [
        ("sources", &select.sources),
        ("types", &select.types),
        ("tenants", &select.tenants),
        ("environments", &select.environments),
        ("redact", redact),
    ] {
        if !list.is_empty() {
            text.fact(key, &list.join(", "));
        }
    }
    for (key, expression) in [("filter", filter), ("transform", transform)] {
        if let Some(expression) = expression {
            // On one line, however it was written.
            let words: Vec<&str> = expression.split_whitespace().collect();
            text.fact(key, &format!("{} (compiles)", words.join(" ")));
        }
    }
}

pub(super) fn text(text: &mut Facts, config: &Config, sink: &SinkConfig) {
    text.heading("sink", &sink.name);
    text.fact("kind", sink.settings.word());
    let Destination { to, names } = sink.settings.destination();
    if !to.is_empty() {
        text.fact("to", &to.join(", "));
    }
    for (key, name) in names {
        text.fact(key, &name);
    }
    text.fact("lanes", &lanes(config, sink).join(", "));
    let rule = sink.order.rule().map_or_else(String::new, |rule| format!(" {rule}"));
    text.fact("order", &format!("{}{rule}", sink.order.word()));
    let batch = &sink.batch;
    let (bytes, linger) = (size_text(batch.bytes_max as u64), duration_text(batch.linger));
    text.fact("batch", &format!("{} events, {bytes}, {linger}", batch.events_max));
    let retry = &sink.retry;
    let [first, max, horizon] = [retry.first, retry.max, retry.horizon].map(duration_text);
    text.fact("retry", &format!("after {first} to {max}, for {horizon}"));
    if let Some(rate) = sink.events_per_second {
        text.fact("rate", &format!("{rate} events a second"));
    }
    let (memory, timeout) = (size_text(sink.memory_bytes_max), duration_text(sink.timeout));
    let bounds = format!("{} batches at once, {memory}, {timeout}", sink.concurrency_max);
    text.fact("bounds", &bounds);
    shape_text(text, sink.shape.settings());
    if let Some(redrive) = &sink.redrive {
        let (times, rate) = (redrive.times.text(), redrive.events_per_second);
        text.fact("redrive", &format!("{times} (UTC), {rate} events a second"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;
    use super::super::{good_json, good_text};
    use super::*;

    /// A sink's table, what `to` says of it, and its names.
    type Case = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

    const CASES: &[Case] = &[
        ("[sink.stdout]", &[], &[]),
        ("[sink.file]\nfolder = \"/var/lib/events\"", &["/var/lib/events"], &[]),
        (
            "[sink.http]\nurl = \"https://hooks.example:8443/canary?canary=canary\"\n\
             headers = [{ name = \"authorization\", value = \"canary\" }]",
            &["https://hooks.example:8443"],
            &[],
        ),
        #[cfg(feature = "sink-kafka")]
        (
            "[sink.kafka]\nbrokers = [\"k-1.example:9093\", \"k-2.example:9093\"]\n\
             topic = \"hooks.{lane}\"\nsasl = \"plain\"\nuser = \"canary\"\n\
             password = { value = \"canary\" }",
            &["k-1.example:9093", "k-2.example:9093"],
            &[("topic", "hooks.{lane}")],
        ),
        #[cfg(feature = "sink-nats")]
        (
            "[sink.nats]\nservers = [\"tls://n-1.example\", \"nats://[::1]:4223\"]\n\
             token = { value = \"canary\" }\nsubject = \"hooks.{type}\"\n\
             create_stream = true\nstream = \"HOOKS\"",
            &["tls://n-1.example:4222", "nats://[::1]:4223"],
            &[("subject", "hooks.{type}"), ("stream", "HOOKS")],
        ),
        #[cfg(feature = "sink-object")]
        (
            "[sink.object]\nurl = \"s3://bucket/a/b\"\nendpoint = \"https://store.example:9000\"\n\
             region = \"eu-central-1\"\naccess_key = \"canary\"\n\
             secret_key = { value = \"canary\" }\nprefix = \"{lane}/{yyyy}/\"",
            &["s3://bucket/a/b"],
            &[
                ("endpoint", "https://store.example:9000"),
                ("region", "eu-central-1"),
                ("prefix", "{lane}/{yyyy}/"),
            ],
        ),
        #[cfg(feature = "sink-object")]
        (
            "[sink.object]\nurl = \"file:///var/lib/events\"\nprefix = \"\"",
            &["file:///var/lib/events"],
            &[("prefix", "")],
        ),
        #[cfg(feature = "sink-postgres")]
        (
            "[sink.postgres]\nurl = \"postgres://canary@a.example,b.example:5433/hooks?\
             application_name=canary\"\npassword = { value = \"canary\" }\n\
             table = \"public.events\"",
            &["a.example:5432", "b.example:5433"],
            &[("database", "hooks"), ("table", "public.events")],
        ),
        #[cfg(feature = "sink-pubsub")]
        (
            "[sink.pubsub]\ntopic = \"projects/p/topics/t\"\nlogin = \"none\"\n\
             endpoint = \"https://pubsub.example/\"",
            &["https://pubsub.example"],
            &[("topic", "projects/p/topics/t")],
        ),
        #[cfg(feature = "sink-rabbitmq")]
        (
            "[sink.rabbitmq]\nservers = [\"amqps://r.example\", \"amqp://[::1]:5673\"]\n\
             vhost = \"media\"\nuser = \"canary\"\npassword = { value = \"canary\" }\n\
             exchange = \"hooks\"\nrouting_key = \"{lane}.{type}\"",
            &["amqps://r.example:5671", "amqp://[::1]:5673"],
            &[("vhost", "media"), ("exchange", "hooks"), ("routing_key", "{lane}.{type}")],
        ),
        #[cfg(feature = "sink-redis")]
        (
            "[sink.redis]\nurl = \"rediss://redis.example/3\"\nuser = \"canary\"\n\
             password = { value = \"canary\" }\nstream = \"hooks:{lane}\"",
            &["rediss://redis.example:6379"],
            &[("database", "3"), ("stream", "hooks:{lane}")],
        ),
        #[cfg(feature = "sink-sqs")]
        (
            "[sink.sqs]\nqueue_url = \"https://sqs.eu-central-1.amazonaws.com/123/hooks.fifo\"\n\
             access_key = \"canary\"\nsecret_key = { value = \"canary\" }",
            &["https://sqs.eu-central-1.amazonaws.com"],
            &[("queue_url", "https://sqs.eu-central-1.amazonaws.com/123/hooks.fifo")],
        ),
    ];

    #[test]
    fn where_a_sink_sends_is_shown_and_nothing_that_opens_a_door() {
        for (table, to, names) in CASES {
            let config = format!(
                "data_dir = \"/data\"\n[[lane]]\nname = \"main\"\n[[source]]\nname = \"pay\"\n\
                 path = \"/stripe\"\npreset = \"stripe\"\n\
                 secrets = [{{ name = \"a\", value = \"canary-canary-canary\" }}]\n\
                 [[sink]]\nname = \"out\"\n{table}\n"
            );
            let config = load(&config).unwrap_or_else(|error| panic!("{}", error.render(false)));
            let path = std::path::Path::new("forebay.toml");
            let (shown, json) = (good_text(path, &config), good_json(path, &config));
            assert!(!shown.contains("canary"), "{shown}");
            assert!(!json.to_string().contains("canary"), "{json}");
            let named = |(key, name): &(&str, &str)| ((*key).to_owned(), (*name).to_owned());
            let wanted: BTreeMap<String, String> = names.iter().map(named).collect();
            assert_eq!(json["sinks"][0]["to"], json!(to), "{table}");
            assert_eq!(json["sinks"][0]["names"], json!(wanted), "{table}");
            let facts = names.iter().map(|(key, name)| format!("  {key:<12}  {name}"));
            let place = (!to.is_empty()).then(|| format!("  {:<12}  {}", "to", to.join(", ")));
            for fact in place.into_iter().chain(facts) {
                assert!(shown.lines().any(|line| line == fact), "{fact:?} in\n{shown}");
            }
        }
    }
}
