//! The structs against the tables of FORMAT.md, and headers against harm.

use super::*;
use crate::meta::Tag;

const DOCUMENT: &str = include_str!("../../FORMAT.md");

/// The rows `(offset, size, field)` of the table under a heading of the document.
fn table(heading: &str) -> Vec<(usize, usize, String)> {
    let section = DOCUMENT.split(&format!("### {heading}\n")).nth(1).expect("the heading");
    let section = section.split("\n#").next().expect("a section");
    let row = |line: &str| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let offset = cells.next()?.parse().ok()?;
        let size = cells.next()?.parse().ok()?;
        Some((offset, size, cells.next()?.trim_matches('`').to_owned()))
    };
    section.lines().filter_map(row).collect()
}

/// The rows of a struct: every field in order, with no byte between them.
macro_rules! layout {
    ($type:ty, $($field:ident),+) => {{
        let bytes = [0_u8; size_of::<$type>()];
        let aligned = Aligned(bytes);
        let header = access::<$type, Failure>(&aligned.0).expect("zeros are a header");
        vec![$((
            offset_of!($type, $field),
            size_of_val(&header.$field),
            stringify!($field).to_owned(),
        )),+]
    }};
}

fn fills(rows: &[(usize, usize, String)], whole: usize) {
    let mut end = 0;
    for (offset, size, field) in rows {
        assert_eq!(*offset, end, "{field} does not start where the field before it ends");
        end += size;
    }
    assert_eq!(end, whole);
}

#[test]
fn the_tables_of_the_document_are_the_layout_of_the_structs() {
    let record = layout!(
        RecordHeader,
        commit,
        header_crc,
        position,
        received_ns,
        key,
        meta_bytes,
        body_bytes,
        payload_crc,
        kind,
        flags,
        reserved,
        signed_key_crc,
        reserved_wide
    );
    let segment = layout!(
        SegmentHeader,
        magic,
        version,
        own_bytes,
        crc,
        epoch,
        lane_id,
        sequence,
        base,
        segment_bytes,
        salt,
        created_ns,
        ack,
        reserved
    );
    let footer = layout!(
        Footer, magic, version, own_bytes, crc, flags, base, sealed_end, records, first_ns,
        last_ns, sealed_ns, damaged, gaps, reserved
    );
    let marks = layout!(
        MarksPage, magic, version, own_bytes, lane_id, epoch, claimed, published, durable, acked,
        first_base, last_base, writer_pid, futex, reserved
    );
    let cursor = layout!(
        CursorSlot,
        magic,
        version,
        own_bytes,
        crc,
        epoch,
        lane_id,
        count,
        offset,
        sequence,
        committed_ns,
        reserved
    );
    for (heading, rows, whole) in [
        ("Cursor slot", cursor, 128),
        ("Record header", record, 64),
        ("Segment header", segment, 128),
        ("Footer", footer, 128),
        ("Marks page", marks, 128),
    ] {
        fills(&rows, whole);
        assert_eq!(table(heading), rows, "{heading}");
    }
}

#[test]
fn the_document_names_the_magics_the_bounds_and_the_tags() {
    for magic in [SEGMENT_MAGIC, FOOTER_MAGIC, MARKS_MAGIC, CURSOR_MAGIC] {
        assert!(DOCUMENT.contains(std::str::from_utf8(&magic).expect("ASCII")));
    }
    assert!(DOCUMENT.contains(&format!("from {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}")));
    assert!(DOCUMENT.contains(&format!("# Format of a lane, version {FORMAT_VERSION}\n")));
    for (tag, meaning) in [
        (Tag::Source, "source"),
        (Tag::EventPosition, "in a delivery: position of the event"),
        (Tag::SuspectReplay, "signed bytes that came before under another id"),
        (Tag::SignedKey, "fingerprint of the signed bytes"),
        (Tag::Reason, "in a quarantined request: why it was refused"),
        (Tag::Quarantined, "in an event out of quarantine: its position"),
        (Tag::FirstReceived, "in an event out of quarantine: when it first arrived"),
        (Tag::HeaderName, "name of a request header"),
        (Tag::HeaderDigest, "keyed digest in place of the value"),
    ] {
        assert!(DOCUMENT.contains(&format!("| {} | {meaning}", tag as u16)), "{tag:?}");
    }
}

#[test]
fn a_header_holds_only_where_and_as_it_was_written() {
    let header = RecordHeader::pad(8192, 640);
    let bytes = header.sealed_bytes(7);
    let read = RecordHeader::read(bytes, 7, 8192).expect("it holds");
    assert_eq!(read.whole_bytes(), Some(640));
    assert!(RecordHeader::read(bytes, 8, 8192).is_none());
    assert!(RecordHeader::read(bytes, 7, 8256).is_none());
    for at in 4..64 {
        let mut damaged = bytes;
        damaged[at] ^= 0x10;
        assert!(RecordHeader::read(damaged, 7, 8192).is_none(), "byte {at}");
    }
}

#[test]
fn a_record_is_as_long_as_its_sections_rounded_up() {
    assert_eq!(record_bytes(0, 0), Some(64));
    assert_eq!(record_bytes(1, 0), Some(128));
    assert_eq!(record_bytes(30, 34), Some(128));
    assert_eq!(record_bytes(30, 35), Some(192));
    assert_eq!(record_bytes(usize::MAX, 1), None);
    assert_eq!(record_bytes(0, u32::MAX as usize), None);
}
