//! A record as a reader hands it out: its header checked, its sections borrowed from the mapping.

use std::sync::Arc;

use crate::cursor::Place;
use crate::meta::Meta;
use crate::position::{Key, Kind, Position};
use crate::scan::{Framed, Scanned};
use crate::segment::Identity;

/// One record, borrowed from the mapped segment.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    pub(crate) framed: Framed,
    pub(crate) kind: Kind,
    pub(crate) lane_id: [u8; 16],
    pub(crate) epoch: u32,
    pub(crate) sequence: u64,
    pub(crate) meta: &'a [u8],
    pub(crate) body: &'a [u8],
}

impl<'a> RecordRef<'a> {
    pub(crate) fn new(scanned: &'a Scanned, framed: Framed, kind: Kind) -> Self {
        let (meta, body) = scanned.sections(&framed);
        let Identity { lane_id, epoch, sequence, .. } = scanned.identity;
        Self { framed, kind, lane_id, epoch, sequence, meta, body }
    }

    /// What tells its lane from every other, also from one of the same name that was there before:
    /// no two records have the same lane id and position.
    pub fn lane_id(&self) -> [u8; 16] {
        self.lane_id
    }

    /// Where the record starts.
    pub fn position(&self) -> Position {
        Position::new(self.epoch, self.framed.start)
    }

    /// Where the next one starts at the earliest: read on from here after a restart.
    pub fn end(&self) -> Position {
        Position::new(self.epoch, self.framed.end)
    }

    /// The place behind the record, for a [`Cursor`](crate::Cursor) to commit.
    pub fn place(&self) -> Place {
        Place { position: self.end(), sequence: self.sequence }
    }

    /// What the record is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The fingerprint of the event key.
    pub fn key(&self) -> Key {
        Key(self.framed.header.key)
    }

    /// When the request arrived, nanoseconds since the unix epoch.
    pub fn received_ns(&self) -> u64 {
        self.framed.header.received_ns.to_native()
    }

    /// The meta section.
    pub fn meta(&self) -> Meta<'a> {
        Meta::new(self.meta)
    }

    /// The body, byte-exact.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }
}

/// A record that keeps its segment mapped. A clone costs a count; the bytes are never copied.
///
/// A segment whose records are held stays on the disk until they are dropped, even where retention
/// has removed its name.
#[derive(Clone, Debug)]
pub struct Record {
    scanned: Arc<Scanned>,
    framed: Framed,
    kind: Kind,
}

impl Record {
    pub(crate) fn new(scanned: Arc<Scanned>, framed: Framed, kind: Kind) -> Self {
        Self { scanned, framed, kind }
    }

    /// What it says.
    pub fn get(&self) -> RecordRef<'_> {
        RecordRef::new(&self.scanned, self.framed, self.kind)
    }
}
