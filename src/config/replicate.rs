//! `lane.replicate_to`: whether the sink that a lane's acknowledgements wait for can carry them.
//!
//! Whatever that sink would leave out, give up or hold back is an event that is never, or too
//! late, acknowledged. So what does that by configuration is refused here.

use super::lane::ReadLane;
use super::near::nearest;
use super::section::Section;
use super::sink::SinkConfig;
use super::source::words;
use crate::drain::order::Order;

/// Keys by which a sink does not take an event, or fails to make something of it.
const SHAPES: [&str; 7] =
    ["sources", "types", "tenants", "environments", "filter", "transform", "redact"];

/// Whether a lane replicates to the sink of this name.
pub(super) fn is_replica(sink: &str, lanes: &[ReadLane<'_>]) -> bool {
    lanes.iter().any(|lane| lane.config.replicate_to.as_deref() == Some(sink))
}

/// Reports lanes that replicate to no sink.
pub(super) fn check_names(sinks: &[Section<'_>], lanes: &[ReadLane<'_>]) {
    let names = || sinks.iter().filter_map(|sink| sink.peek("name"));
    for ReadLane { section, config } in lanes {
        let Some(wanted) = &config.replicate_to else { continue };
        if names().any(|name| name == wanted) {
            continue;
        }
        let cure = match nearest(wanted, names()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None if sinks.is_empty() => {
                "add a [[sink]] with [sink.nats] or [sink.kafka]".to_owned()
            }
            None => format!("name one of {}", words(names())),
        };
        section.refuse("replicate_to", &format!("names no sink by \"{wanted}\""), cure);
    }
}

/// Reports what keeps a sink from carrying the acknowledgements of lanes that replicate to it.
pub(super) fn check(section: &Section<'_>, sink: &SinkConfig, lanes: &[ReadLane<'_>]) {
    let is_its = |lane: &ReadLane<'_>| lane.config.replicate_to.as_ref() == Some(&sink.name);
    let its: Vec<(usize, &ReadLane<'_>)> =
        lanes.iter().enumerate().filter(|(_, lane)| is_its(lane)).collect();
    let Some((_, first)) = its.first() else { return };
    let name = &first.config.name;
    if !sink.settings.replicates() {
        let kind = sink.settings.word();
        let what = format!("names a sink of kind `{kind}`, whose answer is no replica's");
        first.section.refuse("replicate_to", &what, "name a sink with [sink.nats] or [sink.kafka]");
    }
    for (index, lane) in &its {
        if !sink.lanes.contains(index) {
            let what = format!("leave out \"{}\", which replicates to it", lane.config.name);
            section.refuse("lanes", &what, "add that lane, or leave the key out");
        }
    }
    for key in SHAPES.into_iter().filter(|key| section.has(key)) {
        let what = format!("may keep events from the replica of lane `{name}`");
        let cure = "leave it out; what is to be shaped can go to a sink of its own";
        section.refuse(key, &what, cure);
    }
    if sink.events_per_second.is_some() {
        let what = format!("would hold back the acknowledgements of lane `{name}`");
        section.refuse("rate", &what, "leave it out");
    }
    if !matches!(sink.order, Order::None) {
        let what = format!(
            "would make each acknowledgement of lane `{name}` wait for those of its key before it"
        );
        let cure = "leave it out; what is to be ordered can go to a sink of its own";
        section.refuse("order", &what, cure);
    }
    if !sink.batch.linger.is_zero() {
        let what = format!("has a linger that acknowledgements of lane `{name}` would wait for");
        section.refuse("batch", &what, "leave `linger` out: it is zero then");
    }
}
