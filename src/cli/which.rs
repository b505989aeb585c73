//! Which events a verb means: of a time, a source, a type, a tenant, or one by its id.

use forebay_log::{Clock, From, Kind, Record, Tag};
use serde_json::{Value, json};

use super::row::time_text;
use super::when::When;

/// The filters of a verb; all that are given must hold.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Which {
    /// Events that arrived at this time or later: 2026-11-21T18:00:00Z, or 2h before now
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    pub from: Option<When>,
    /// Events that arrived before this time
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    pub to: Option<When>,
    /// Events of this source
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Events of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: Option<String>,
    /// Events of this tenant
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// The event with this id of its sender, this key, or at this position
    #[arg(long, value_name = "EVENT")]
    pub event: Option<String>,
}

/// The filters with their times fixed.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    which: Which,
    from_ns: u64,
    to_ns: u64,
}

impl Which {
    /// Fixes what is said relative to now.
    pub(super) fn chosen(&self, clock: &Clock) -> Chosen {
        let from_ns = self.from.map_or(0, |when| when.resolve(clock));
        let to_ns = self.to.map_or(u64::MAX, |when| when.resolve(clock));
        Chosen { which: self.clone(), from_ns, to_ns }
    }
}

impl Chosen {
    /// Where a reader begins.
    pub(super) fn start(&self) -> From {
        if self.from_ns == 0 { From::Earliest } else { From::Time(self.from_ns) }
    }

    /// Whether a record is meant.
    pub(super) fn takes(&self, record: &Record) -> bool {
        let record = record.get();
        let meta = record.meta();
        let is = |tag, wanted: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| meta.get(tag) == Some(wanted.as_bytes()))
        };
        let named = |name: &String| {
            meta.get(Tag::EventId) == Some(name.as_bytes())
                || record.key().to_string() == *name
                || record.position().to_string() == *name
        };
        record.kind() == Kind::Event
            && (self.from_ns..self.to_ns).contains(&record.received_ns())
            && is(Tag::Source, &self.which.source)
            && is(Tag::EventType, &self.which.event_type)
            && is(Tag::Tenant, &self.which.tenant)
            && self.which.event.as_ref().is_none_or(named)
    }
}

/// What a record is called, in JSON.
pub(super) fn row(record: &Record) -> Value {
    let record = record.get();
    let text = |tag| record.meta().get(tag).map(String::from_utf8_lossy);
    json!({
        "position": record.position().to_string(),
        "key": record.key().to_string(),
        "received_at": time_text(record.received_ns()),
        "source": text(Tag::Source),
        "event_type": text(Tag::EventType),
        "event_id": text(Tag::EventId),
        "tenant": text(Tag::Tenant),
        "bytes": record.body().len(),
    })
}
