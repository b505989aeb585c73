//! What a sink comes to, for people and for programs.

use serde_json::{Value, json};

use super::Facts;
use crate::config::{Config, SinkConfig, duration_text, size_text};
use crate::drain::shape::Settings;

fn lanes<'c>(config: &'c Config, sink: &SinkConfig) -> Vec<&'c str> {
    let named = |lane: &usize| config.lanes.get(*lane).map(|lane| lane.name.as_str());
    sink.lanes.iter().filter_map(named).collect()
}

pub(super) fn json(config: &Config, sink: &SinkConfig) -> Value {
    json!({
        "name": sink.name,
        "kind": sink.settings.kind(),
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
    text.fact("kind", sink.settings.kind());
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
