//! Events as a sink is given them: records of a real lane.

use std::sync::Arc;

use bytes::Bytes;
use forebay::drain::sink::{Carried, Event, Pass};
use forebay_log::{
    AckLevel, Clock, Key, Kind, Lane, LaneOptions, MetaWriter, NewRecord, Reader, Tag,
};
use tempfile::TempDir;

/// A lane with a reader behind its newest event.
#[derive(Debug)]
pub(super) struct Events {
    name: Arc<str>,
    reader: Reader,
    appended: u64,
    lane: Lane,
    /// Gone last.
    _folder: TempDir,
}

impl Events {
    pub(super) fn of_lane(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = LaneOptions {
            segment_bytes: 16 << 20,
            ack: AckLevel::Written,
            // How full the machine's disk is says nothing of a sink.
            disk_reserve_bytes: Some(0),
            ..LaneOptions::default()
        };
        let (lane, _) = Lane::open(folder.path().join(name), options).unwrap();
        let reader = lane.reader().unwrap();
        Self { name: name.into(), reader, appended: 0, lane, _folder: folder }
    }

    /// So many new events, in their order; each says its number.
    pub(super) fn next(&mut self, count: usize) -> Vec<Event> {
        (0..count).map(|_| self.append(&format!("{{\"n\": {}}}", self.appended))).collect()
    }

    /// A new event with this payload.
    pub(super) fn append(&mut self, payload: &str) -> Event {
        self.appended += 1;
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.lane.id()[..8]);
        key[8..].copy_from_slice(&self.appended.to_le_bytes());
        let mut meta = MetaWriter::default();
        meta.field(Tag::Source, b"shop").unwrap();
        meta.field(Tag::Environment, b"production").unwrap();
        meta.field(Tag::EventId, format!("evt_{}", self.appended).as_bytes()).unwrap();
        // What no header, subject or column may choke on.
        meta.field(Tag::EventType, b"invoice.paid\r\n> *\0").unwrap();
        let record = NewRecord {
            kind: Kind::Event,
            key: Key(key),
            received_ns: Clock::System.wall_ns(),
            meta: meta.as_bytes(),
            body: payload.as_bytes(),
        };
        self.lane.appender().append(&record).unwrap();
        let record = self.reader.next_held().unwrap().expect("it was just appended");
        Event::new(Carried {
            lane: Arc::clone(&self.name),
            made: None,
            record,
            content_type: "application/json".into(),
            order_key: None,
            pass: Pass::Live,
        })
    }
}

/// The same events on their way for another reason.
pub(super) fn with_pass(events: &[Event], pass: Pass) -> Vec<Event> {
    let mut events = events.to_vec();
    for event in &mut events {
        event.pass = pass;
    }
    events
}

/// The same event with another payload, as a shape may make it.
pub(super) fn with_payload(event: &Event, payload: &str) -> Event {
    let mut event = event.clone();
    event.made = Some(Bytes::copy_from_slice(payload.as_bytes()));
    event
}

/// Which event it is, as the counterparts are asked to tell it.
pub(super) fn name_of(event: &Event) -> String {
    format!("{} {}", event.lane, event.position())
}

pub(super) fn names_of(events: &[Event]) -> Vec<String> {
    events.iter().map(name_of).collect()
}
