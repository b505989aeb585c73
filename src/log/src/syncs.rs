//! A segment to try on a volume what of it makes stored records durable: as the log does it, and
//! as it might. In a folder of its own, removed afterwards.

use std::io;
use std::ops::Range;
use std::path::Path;

use crate::append::{Held, NewRecord, header_of};
use crate::format::{PAGE_BYTES, RECORD_HEADER_BYTES, payload_crc, seed_of};
use crate::lane::random;
use crate::mapping;
use crate::position::{Key, Kind};
use crate::probe::Scratch;
use crate::segment::{self, Extent, Identity, Segment};
use crate::volume::Volume;
use crate::watermark::Watermarks;

/// How what was stored through a mapping gets to the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapSync {
    /// `msync` of the range, its pages taken out of the mapping first: what the log does.
    Msync,
    /// `fdatasync` of the file.
    Datasync,
    /// `sync_file_range` of the range, then `fdatasync` of the file.
    RangeThenDatasync,
}

/// A segment made as the log makes them, for records of a trial.
#[derive(Debug)]
pub struct SyncTrial {
    segment: Segment,
    watermarks: Watermarks,
    body: Vec<u8>,
    _folder: Scratch,
}

impl SyncTrial {
    /// Allocates a segment of `bytes`, a multiple of 4096, below `dir` for records of
    /// `record_bytes`, a multiple of 4096 too.
    pub fn create(dir: impl AsRef<Path>, bytes: u64, record_bytes: u64) -> io::Result<Self> {
        let pages = |bytes: u64| bytes > 0 && bytes.is_multiple_of(PAGE_BYTES);
        if !pages(bytes) || !pages(record_bytes) {
            let what = "a trial takes whole pages of 4096 bytes";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let number = u64::from_le_bytes(random()?);
        let folder = Scratch(dir.as_ref().join(format!("forebay-syncs-{number:016x}")));
        segment::create_dir(&folder.0)?;
        let identity = Identity {
            lane_id: [0; 16],
            sequence: 0,
            epoch: 1,
            extent: Extent { base: 0, bytes },
            salt: 0,
            seed: seed_of(0),
            created_ns: 0,
            ack: 0,
        };
        let no_cow = Volume::of(&folder.0)?.copies_on_write();
        let segment = Segment::create(&folder.0, identity, no_cow)?;
        let body_bytes = record_bytes - RECORD_HEADER_BYTES;
        let body = vec![0xa5; usize::try_from(body_bytes).map_err(io::Error::other)?];
        Ok(Self { segment, watermarks: Watermarks::new(PAGE_BYTES), body, _folder: folder })
    }

    /// Makes the pages of the next record ready and stores it there: where it lies, or nothing
    /// once the segment is full.
    pub fn store(&self) -> io::Result<Option<Range<u64>>> {
        let from = self.watermarks.claimed();
        let to = from + RECORD_HEADER_BYTES + self.body.len() as u64;
        if to > self.segment.extent().record_end() {
            return Ok(None);
        }
        self.segment.map.make_ready(from, to - from)?;
        let Some(claim) = self.watermarks.claim(from, to) else { return Ok(None) };
        let record = NewRecord {
            kind: Kind::Event,
            key: Key([0; 16]),
            received_ns: 0,
            meta: b"",
            body: &self.body,
        };
        let seed = self.segment.identity.seed;
        let crc = payload_crc(seed, record.meta, record.body);
        let header = header_of(&record, from, seed, crc).sealed_bytes(seed);
        Held::new(&self.segment, claim).publish([&header, record.meta, record.body]);
        Ok(Some(from..to))
    }

    /// Brings a range to the medium.
    pub fn sync(&self, how: MapSync, range: Range<u64>) -> io::Result<()> {
        if how == MapSync::Msync {
            return self.segment.sync(range.start, range.end);
        }
        if how == MapSync::RangeThenDatasync {
            mapping::start_writing(self.segment.file(), range.start, range.end - range.start)?;
        }
        self.segment.file().sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_fills_its_segment_in_each_way_and_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        for how in [MapSync::Msync, MapSync::Datasync, MapSync::RangeThenDatasync] {
            let trial = SyncTrial::create(dir.path(), 1 << 17, 1 << 13).expect("a segment");
            let mut records = 0;
            while let Some(range) = trial.store().expect("room") {
                trial.sync(how, range).expect("synced");
                records += 1;
            }
            // All but the first and the last page.
            assert_eq!(records, 15, "{how:?}");
        }
        assert!(SyncTrial::create(dir.path(), 1 << 17, 100).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 0);
    }
}
