//! Finding records in the mapped bytes of one segment: the same rule for recovery and for tails.
//!
//! A record counts if it stands at a multiple of 64, its commit word equals the length by its
//! sections, it ends within bounds, and its header's checksum and position hold. What does not
//! count is a hole; behind a hole the search goes on in steps of 64. Of a file that was cut short
//! only what is there is mapped, and bounds everything.

use std::fs::File;
use std::io;

use crate::format::{
    KIND_PAD, PAGE_BYTES, RECORD_ALIGN, RECORD_HEADER_BYTES, RECORD_PURGED, RECORD_SIGNED_KEY,
    RecordHeader, payload_crc, signed_key_crc,
};
use crate::mapping::ReadMap;
use crate::meta::{Meta, SIGNED_KEY_BYTES};
use crate::planted::{self, Bug};
use crate::position::Key;
use crate::segment::{Extent, Identity};

/// A segment mapped for reading.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) map: ReadMap,
    pub(crate) identity: Identity,
}

/// A record whose framing holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Framed {
    pub(crate) header: RecordHeader,
    /// Offset in the lane.
    pub(crate) start: u64,
    /// Offset in the lane.
    pub(crate) end: u64,
}

impl Framed {
    pub(crate) fn is_pad(&self) -> bool {
        self.header.kind == KIND_PAD
    }

    /// Whether its payload was erased for good.
    pub(crate) fn is_purged(&self) -> bool {
        self.header.flags & RECORD_PURGED != 0 && !planted::has(Bug::TombstoneIgnored)
    }

    /// Whether its header says that it has a key of its signed bytes.
    pub(crate) fn has_signed_key(&self) -> bool {
        self.header.flags & RECORD_SIGNED_KEY != 0
    }
}

/// What stands behind an offset.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found {
    /// A record right there.
    Record(Framed),
    /// A hole, and the next record behind it.
    Gap(Framed),
    /// No record up to the limit.
    Nothing,
}

impl Scanned {
    pub(crate) fn new(file: &File, identity: Identity) -> io::Result<Self> {
        let there = file.metadata()?.len().min(identity.extent.bytes);
        let map = ReadMap::new(file, there)?;
        map.read_in_order();
        Ok(Self { map, identity })
    }

    /// Whether the file is shorter than its header says: then its end will never be seen.
    pub(crate) fn is_cut(&self) -> bool {
        self.map.bytes_mapped() < self.extent().bytes
    }

    /// Where what can be read ends: where records end, or where the file was cut.
    fn readable_end(&self) -> u64 {
        self.extent().record_end().min(self.extent().base + self.map.bytes_mapped())
    }

    pub(crate) fn extent(&self) -> Extent {
        self.identity.extent
    }

    /// The record that starts at `offset` and ends by `limit`, both offsets in the lane.
    pub(crate) fn framed(&self, offset: u64, limit: u64) -> Option<Framed> {
        let limit = limit.min(self.readable_end());
        let at = offset.checked_sub(self.extent().base)?;
        let framing = at >= PAGE_BYTES && at.is_multiple_of(RECORD_ALIGN);
        if !framing || offset.checked_add(RECORD_HEADER_BYTES)? > limit {
            return None;
        }
        let commit = self.map.commit(at);
        if commit == 0 {
            return None;
        }
        let header = RecordHeader::read(self.map.header(at), self.identity.seed, offset)?;
        let whole = header.whole_bytes()?;
        let end = offset.checked_add(u64::from(whole))?;
        (whole == commit && end <= limit).then_some(Framed { header, start: offset, end })
    }

    /// The record at `offset`, or the next one behind it.
    pub(crate) fn find(&self, offset: u64, limit: u64) -> Found {
        if let Some(framed) = self.framed(offset, limit) {
            return Found::Record(framed);
        }
        let step = usize::try_from(RECORD_ALIGN).unwrap_or(usize::MAX);
        let limit = limit.min(self.readable_end());
        (offset.next_multiple_of(RECORD_ALIGN)..limit)
            .step_by(step)
            .skip(usize::from(offset.is_multiple_of(RECORD_ALIGN)))
            .find_map(|next| self.framed(next, limit))
            .map_or(Found::Nothing, Found::Gap)
    }

    /// Where the first record starts at `offset` or behind, or will: found by walking over records
    /// that are in place from `start`, where one starts or will. Below `offset` if a gap comes first.
    pub(crate) fn first_start(&self, offset: u64, start: u64) -> u64 {
        let mut start = start;
        while start < offset {
            let Some(next) = self.committed_end(start) else { break };
            start = next;
        }
        start
    }

    /// The end of the record at `offset`, if one is in place there.
    fn committed_end(&self, offset: u64) -> Option<u64> {
        let ends = offset.saturating_add(RECORD_HEADER_BYTES);
        let inside = offset.is_multiple_of(RECORD_ALIGN) && ends <= self.readable_end();
        let at = offset.checked_sub(self.extent().base)?;
        let whole = inside.then(|| u64::from(self.map.commit(at)))?;
        (whole != 0).then_some(offset + whole).filter(|end| *end <= self.extent().record_end())
    }

    /// Whether something was published at `offset`, where no record holds: the commit word of a
    /// record is stored last, into the line of its header, so that no crash leaves it alone.
    pub(crate) fn is_harmed_at(&self, offset: u64) -> bool {
        let there = offset.saturating_add(RECORD_HEADER_BYTES) <= self.readable_end();
        there && self.map.commit(offset - self.extent().base) != 0
    }

    /// The meta section and the body of a record.
    pub(crate) fn sections(&self, framed: &Framed) -> (&[u8], &[u8]) {
        let at = framed.start - self.extent().base + RECORD_HEADER_BYTES;
        let meta_bytes = u64::from(framed.header.meta_bytes.to_native());
        let body_bytes = u64::from(framed.header.body_bytes.to_native());
        (self.map.bytes(at, meta_bytes), self.map.bytes(at + meta_bytes, body_bytes))
    }

    /// The key of a record's signed bytes, if it has one that holds. Only then is more than the
    /// header looked at: its field begins the line behind that.
    #[inline]
    pub(crate) fn signed_key(&self, framed: &Framed) -> Option<Key> {
        if !framed.has_signed_key() {
            return None;
        }
        let RecordHeader { meta_bytes, signed_key_crc, .. } = framed.header;
        self.read_signed_key(framed.start, meta_bytes.to_native(), signed_key_crc.to_native())
    }

    /// With what it needs of a record alone: whoever walks over records keeps them in registers.
    #[inline(never)]
    fn read_signed_key(&self, start: u64, meta_bytes: u32, crc: u32) -> Option<Key> {
        let at = start - self.extent().base + RECORD_HEADER_BYTES;
        let (key, field) = Meta::new(self.map.bytes(at, u64::from(meta_bytes))).signed_key()?;
        (signed_key_crc(self.identity.seed, field) == crc).then_some(key)
    }

    /// How much of a record's payload a purge leaves: the key of its signed bytes.
    pub(crate) fn kept_bytes(&self, framed: &Framed) -> usize {
        if self.signed_key(framed).is_some() { SIGNED_KEY_BYTES } else { 0 }
    }

    /// Whether nothing is left of a payload that was purged but what is to be kept.
    pub(crate) fn is_erased(&self, framed: &Framed) -> bool {
        let (meta, body) = self.sections(framed);
        meta.iter().chain(body).skip(self.kept_bytes(framed)).all(|byte| *byte == 0)
    }

    /// Whether the payload's checksum holds. A pad has no payload to check, nor has a record whose
    /// payload was erased.
    pub(crate) fn payload_holds(&self, framed: &Framed) -> bool {
        if framed.is_pad() || framed.is_purged() || planted::has(Bug::PayloadUnchecked) {
            return true;
        }
        let (meta, body) = self.sections(framed);
        framed.header.payload_crc == payload_crc(self.identity.seed, meta, body)
    }
}
