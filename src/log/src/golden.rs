//! The golden segment: bytes that version 1 has always meant, and must always mean.
//!
//! It is made again by the writer's own code and compared byte by byte, and read by the public
//! reader. A change of the format makes a new version beside it; this one stays.

use std::path::{Path, PathBuf};

use crate::append::{Held, NewRecord, header_of, pad};
use crate::format::{SEGMENT_BYTES_MIN, payload_crc, record_bytes, seed_of};
use crate::recover::Tally;
use crate::segment::{Extent, Identity, Segment, file_name};
use crate::watermark::Watermarks;
use crate::{HeaderValue, Key, Kind, MetaWriter, Position, Reader, Tag};

const RECORDS: [(Kind, &[u8]); 3] = [
    (Kind::Event, br#"{"event":"room_finished","id":"EV_1"}"#),
    (Kind::Delivery, b""),
    (Kind::Quarantine, &[0xff; 300]),
];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/format-v1").join(file_name(4096))
}

fn meta(index: u64) -> MetaWriter {
    let mut meta = MetaWriter::default();
    meta.field(Tag::Source, b"livekit").expect("short");
    meta.field(Tag::EventId, format!("EV_{index}").as_bytes()).expect("short");
    meta.header(b"content-type", b"application/json").expect("short");
    meta.header_digest(b"authorization", &[0xd1; 16]).expect("short");
    meta
}

/// Makes the segment in a directory, with nothing in it that chance or time decides.
fn make(dir: &Path) {
    let extent = Extent { base: 4096, bytes: SEGMENT_BYTES_MIN };
    let salt = 0x5a17_5a17_0000_0001;
    let identity = Identity {
        lane_id: *b"a golden lane id",
        sequence: 3,
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
    for (index, (kind, body)) in (0_u64..).zip(RECORDS) {
        let meta = meta(index);
        let record = NewRecord {
            kind,
            key: Key([u8::try_from(index).expect("few"); 16]),
            received_ns: 1_700_000_000_000_000_001 + index,
            meta: meta.as_bytes(),
            body,
        };
        let whole = record_bytes(record.meta.len(), body.len()).expect("small");
        let crc = payload_crc(identity.seed, record.meta, body);
        let header = header_of(&record, offset, crc).sealed_bytes(identity.seed);
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
fn the_writer_still_makes_the_golden_segment() {
    let dir = tempfile::tempdir().expect("a directory");
    make(dir.path());
    let made = std::fs::read(dir.path().join(file_name(4096))).expect("made");
    let golden = std::fs::read(golden()).expect("tests/golden/format-v1 of the repository");
    assert!(made == golden, "version 1 no longer means what it meant");
}

#[test]
fn the_reader_still_reads_the_golden_segment() {
    let dir = golden().parent().expect("a directory").to_owned();
    let mut reader = Reader::open(dir).expect("a lane without a writer");
    let mut position = Position::new(2, 8192);
    for (index, (kind, body)) in (0_u64..).zip(RECORDS) {
        let record = reader.next().expect("readable").expect("a record");
        assert_eq!(record.position(), position);
        assert_eq!((record.kind(), record.body()), (kind, body));
        assert_eq!(record.received_ns(), 1_700_000_000_000_000_001 + index);
        assert_eq!(record.key(), Key([u8::try_from(index).expect("few"); 16]));
        assert_eq!(record.meta().as_bytes(), meta(index).as_bytes());
        assert_eq!(record.meta().get(Tag::Source), Some(b"livekit".as_slice()));
        let digest = (b"authorization".as_slice(), HeaderValue::Digest(&[0xd1; 16]));
        assert_eq!(record.meta().headers().nth(1), Some(digest));
        position = record.end();
    }
    assert!(reader.next().expect("readable").is_none());
    assert_eq!(reader.skipped(), crate::Skipped::default());
}

#[test]
#[ignore = "writes the golden segment; only for a new version of the format"]
fn write_the_golden_segment() {
    let golden = golden();
    let dir = golden.parent().expect("a directory");
    std::fs::create_dir_all(dir).expect("made");
    assert!(!golden.exists(), "a golden segment is never written again");
    make(dir);
}
