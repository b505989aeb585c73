//! Events for tests, as the drain would read them: written to a log and held.

use std::path::Path;
use std::sync::Arc;

use forebay_log::{
    AckLevel, Appender, Key, Kind, Lane, LaneOptions, MetaWriter, NewRecord, Reader, Record, Tag,
};
use tempfile::TempDir;

use super::sink::{Carried, Event, Pass};

/// 2026-11-21T18:00:00Z.
pub(crate) const RECEIVED_NS: u64 = 1_795_284_000_000_000_000;

/// A lane, its writer and its reader.
pub(crate) struct Written {
    _data: TempDir,
    _lane: Lane,
    appender: Appender,
    reader: Reader,
    /// When the next records arrive.
    pub(crate) received_ns: u64,
}

/// What one record says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said<'s> {
    pub(crate) fields: &'s [(Tag, &'s str)],
    pub(crate) headers: &'s [(&'s str, &'s str)],
    pub(crate) body: &'s [u8],
}

impl Written {
    pub(crate) fn new() -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let folder = data.path().join("main");
        let (lane, _) = Lane::open(&folder, options()).expect("a lane");
        let appender = lane.appender();
        let reader = Reader::open(&folder).expect("a reader");
        Self { _data: data, _lane: lane, appender, reader, received_ns: RECEIVED_NS }
    }

    /// Appends a record, whose key is filled with its number, and reads it back.
    pub(crate) fn record(&mut self, number: u8, said: Said<'_>) -> Record {
        let mut meta = MetaWriter::default();
        for (tag, text) in said.fields {
            meta.field(*tag, text.as_bytes()).expect("short");
        }
        for (name, value) in said.headers {
            meta.header(name.as_bytes(), value.as_bytes()).expect("short");
        }
        let record = NewRecord {
            kind: Kind::Event,
            key: Key([number; 16]),
            received_ns: self.received_ns,
            meta: meta.as_bytes(),
            body: said.body,
        };
        self.appender.append(&record).expect("appended");
        loop {
            if let Some(record) = self.reader.next_held().expect("readable") {
                return record;
            }
            std::thread::yield_now();
        }
    }

    /// An event of JSON with its raw body as the payload.
    pub(crate) fn event(&mut self, number: u8, body: &str) -> Event {
        let fields =
            [(Tag::Source, "hub"), (Tag::EventId, "ev 1"), (Tag::EventType, "room.started")];
        let headers = [("content-type", "application/json")];
        let said = Said { fields: &fields, headers: &headers, body: body.as_bytes() };
        Self::event_of(self.record(number, said))
    }

    /// A record on its way for the first time, as JSON.
    pub(crate) fn event_of(record: Record) -> Event {
        Event::new(Carried {
            lane: Arc::from("main"),
            made: None,
            record,
            content_type: "application/json".into(),
            order_key: None,
            pass: Pass::Live,
        })
    }

    /// Writes a lane of so many records, each with its number as the body, and closes it.
    pub(crate) fn fill(folder: &Path, count: u64) {
        let options = LaneOptions { segment_bytes: 16 << 20, ..options() };
        let (lane, _) = Lane::open(folder, options).expect("a lane");
        let mut appender = lane.appender();
        for number in 0..count {
            let body = format!("{{\"n\":{number}}}");
            let record = NewRecord {
                kind: Kind::Event,
                key: Key([7; 16]),
                received_ns: RECEIVED_NS,
                meta: &[],
                body: body.as_bytes(),
            };
            appender.append(&record).expect("appended");
        }
    }
}

fn options() -> LaneOptions {
    LaneOptions {
        segment_bytes: forebay_log::SEGMENT_BYTES_MIN,
        ack: AckLevel::Written,
        disk_reserve_bytes: Some(0),
        volatile_allowed: true,
        ..LaneOptions::default()
    }
}
