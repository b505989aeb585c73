//! The golden segments: bytes that version 1 has always meant, and must always mean.
//!
//! They are made again by the writer's own code and compared byte by byte, and read by the public
//! reader. A change of the format makes a new version beside them, and what is added to this one
//! another segment; these stay.

use std::path::{Path, PathBuf};

use crate::append::{Held, NewRecord, header_of, pad};
use crate::format::{SEGMENT_BYTES_MIN, payload_crc, record_bytes, seed_of};
use crate::recover::Tally;
use crate::segment::{Extent, Identity, Segment, file_name};
use crate::watermark::Watermarks;
use crate::{HeaderValue, Key, Kind, MetaWriter, Position, Purger, Reader, Skipped, Tag};

const FINISHED: &[u8] = br#"{"event":"room_finished","id":"EV_1"}"#;
const BASES: [u64; 2] = [4096, 4096 + SEGMENT_BYTES_MIN];
/// Which segment each record is in, what it is, and its body.
const RECORDS: [(usize, Kind, &[u8]); 5] = [
    (0, Kind::Event, FINISHED),
    (0, Kind::Delivery, b""),
    (0, Kind::Quarantine, &[0xff; 300]),
    (1, Kind::Event, FINISHED),
    (1, Kind::Event, FINISHED),
];
/// The events that have a key of their signed bytes too; the second of them is purged.
const SIGNED: [u64; 2] = [3, 4];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/format-v1")
}

fn key(index: u64) -> Key {
    Key([u8::try_from(index).expect("few"); 16])
}

fn signed_key(index: u64) -> Option<Key> {
    SIGNED.contains(&index).then(|| Key([0x50 + u8::try_from(index).expect("few"); 16]))
}

fn meta(index: u64) -> MetaWriter {
    let mut meta = MetaWriter::default();
    if let Some(key) = signed_key(index) {
        meta.field(Tag::SignedKey, &key.0).expect("short");
    }
    meta.field(Tag::Source, b"livekit").expect("short");
    meta.field(Tag::EventId, format!("EV_{index}").as_bytes()).expect("short");
    meta.header(b"content-type", b"application/json").expect("short");
    meta.header_digest(b"authorization", &[0xd1; 16]).expect("short");
    meta
}

/// Makes the segments in a directory, with nothing in them that chance or time decides.
fn make(dir: &Path) {
    (0..BASES.len()).for_each(|segment| make_segment(dir, segment));
    let mut purger = Purger::open(dir).expect("nobody else is there");
    let erased = purger.erase(|found| found.key == key(SIGNED[1])).expect("erased");
    assert_eq!(erased.records, 1);
}

fn make_segment(dir: &Path, number: usize) {
    let extent = Extent { base: BASES[number], bytes: SEGMENT_BYTES_MIN };
    let salt = 0x5a17_5a17_0000_0001 + number as u64;
    let identity = Identity {
        lane_id: *b"a golden lane id",
        sequence: 3 + number as u64,
        epoch: 2,
        extent,
        salt,
        seed: seed_of(salt),
        created_ns: 1_700_000_000_000_000_000,
        ack: 2,
    };
    let segment = Segment::create(dir, identity, false).expect("a segment");
    let watermarks = Watermarks::new(extent.first());
    let mut tally = Tally::default();
    let mut offset = extent.first();
    let of_it = (0_u64..).zip(RECORDS).filter(|(_, (within, ..))| *within == number);
    for (index, (_, kind, body)) in of_it {
        let meta = meta(index);
        let record = NewRecord {
            kind,
            key: key(index),
            received_ns: 1_700_000_000_000_000_001 + index,
            meta: meta.as_bytes(),
            body,
        };
        let whole = record_bytes(record.meta.len(), body.len()).expect("small");
        let crc = payload_crc(identity.seed, record.meta, body);
        let header = header_of(&record, offset, identity.seed, crc).sealed_bytes(identity.seed);
        let claim = watermarks.claim(offset, offset + u64::from(whole)).expect("free");
        Held::new(&segment, claim).publish([&header, record.meta, body]);
        tally.add(record.received_ns);
        offset += u64::from(whole);
    }
    let claim = watermarks.claim(offset, extent.record_end()).expect("free");
    pad(&segment, claim);
    let mut footer = tally.footer(extent.base, extent.record_end());
    footer.sealed_ns = 1_700_000_001_000_000_000.into();
    segment.seal(&footer).expect("sealed");
}

#[test]
fn the_writer_still_makes_the_golden_segments() {
    let dir = tempfile::tempdir().expect("a directory");
    make(dir.path());
    for name in BASES.map(file_name) {
        let made = std::fs::read(dir.path().join(&name)).expect("made");
        let golden = std::fs::read(golden().join(&name)).expect("tests/golden of the repository");
        assert!(made == golden, "version 1 no longer means what it meant: {name}");
    }
}

#[test]
fn the_reader_still_reads_the_golden_segments() {
    let mut reader = Reader::open(golden()).expect("a lane without a writer");
    let mut ends = Position::default();
    for (index, (within, kind, body)) in (0_u64..).zip(RECORDS).filter(|(at, _)| *at != SIGNED[1]) {
        let record = reader.next().expect("readable").expect("a record");
        let position = ends.max(Position::new(2, BASES[within] + 4096));
        assert_eq!(record.position(), position);
        assert_eq!((record.kind(), record.body()), (kind, body));
        assert_eq!(record.received_ns(), 1_700_000_000_000_000_001 + index);
        assert_eq!(record.key(), key(index));
        assert_eq!(record.meta().as_bytes(), meta(index).as_bytes());
        assert_eq!(record.meta().get(Tag::Source), Some(b"livekit".as_slice()));
        let digest = (b"authorization".as_slice(), HeaderValue::Digest(&[0xd1; 16]));
        assert_eq!(record.meta().headers().nth(1), Some(digest));
        ends = record.end();
    }
    assert!(reader.next().expect("readable").is_none());
    assert_eq!(reader.skipped(), Skipped { purged: 1, ..Skipped::default() });
}

#[test]
fn every_key_of_the_golden_segments_is_known_of_what_was_purged_too() {
    let mut reader = Reader::open(golden()).expect("a lane without a writer");
    for index in 0..RECORDS.len() as u64 {
        let found = reader.skim(u64::MAX).expect("readable").expect("a record");
        assert_eq!((found.key, found.signed_key), (key(index), signed_key(index)));
    }
    assert!(reader.skim(u64::MAX).expect("readable").is_none());
}

#[test]
#[ignore = "writes golden segments; only for what is new in the format"]
fn write_the_golden_segments_that_are_missing() {
    let dir = tempfile::tempdir().expect("a directory");
    make(dir.path());
    std::fs::create_dir_all(golden()).expect("made");
    // A golden segment is never written again.
    for name in BASES.map(file_name).iter().filter(|name| !golden().join(name).exists()) {
        std::fs::copy(dir.path().join(name), golden().join(name)).expect("copied");
    }
}
