//! The bytes on disk: headers, offsets, checksums. No I/O, no atomics, no unsafe.
//!
//! Every header is a `#[repr(C)]` struct of explicit little-endian integers, so its bytes do not
//! depend on the machine or on the Cargo features of the build that reads them. Bytes become a
//! header only through rkyv's checked access on an aligned copy, and a header is believed only
//! after its checksum holds. `FORMAT.md` specifies what stands here; a test compares the two.

use std::mem::offset_of;

use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Failure;
use rkyv::rend::{u16_le, u32_le, u64_le};
use rkyv::{Portable, access};

use crate::meta::SIGNED_KEY_BYTES;

/// The version of the format that this crate writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 1;
/// Segment files, their header and their footer are laid out in pages of this size.
pub(crate) const PAGE_BYTES: u64 = 4096;
/// Where the copy of the segment header stands in the last page: in another page than the header
/// and another sector than the footer, so that no sector and no page takes both with it.
pub(crate) const HEADER_COPY_AT: u64 = 2048;
/// Records start at multiples of this: a header fills exactly one cache line.
pub(crate) const RECORD_ALIGN: u64 = 64;
/// Bytes of a record before its meta section.
pub const RECORD_HEADER_BYTES: u64 = 64;
/// The smallest segment: small enough for a test to reach every edge of it.
pub const SEGMENT_BYTES_MIN: u64 = 64 * 1024;
/// The largest segment: a record's length must fit the 32-bit commit word.
pub const SEGMENT_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// Kind number of filler: an abandoned claim, or the rest of a segment after a roll.
pub(crate) const KIND_PAD: u8 = 0xff;
/// Set in [`RecordHeader::flags`] when the payload was erased: zeros stand in its place.
pub(crate) const RECORD_PURGED: u8 = 1;
/// Set in [`RecordHeader::flags`] when the meta section begins with the key of the signed bytes.
pub(crate) const RECORD_SIGNED_KEY: u8 = 2;
/// Set in [`Footer::flags`] when recovery sealed the segment after a crash.
pub(crate) const FOOTER_RECOVERED: u32 = 1;

const SEGMENT_MAGIC: [u8; 8] = *b"FOREBAYS";
const FOOTER_MAGIC: [u8; 8] = *b"FOREBAYF";
pub(crate) const MARKS_MAGIC: [u8; 8] = *b"FOREBAYM";
const CURSOR_MAGIC: [u8; 8] = *b"FOREBAYC";

/// The header of a record.
#[derive(Clone, Copy, Debug, Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub(crate) struct RecordHeader {
    pub(crate) commit: u32_le,
    pub(crate) header_crc: u32_le,
    pub(crate) position: u64_le,
    pub(crate) received_ns: u64_le,
    pub(crate) key: [u8; 16],
    pub(crate) meta_bytes: u32_le,
    pub(crate) body_bytes: u32_le,
    pub(crate) payload_crc: u32_le,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) reserved: u16_le,
    pub(crate) signed_key_crc: u32_le,
    pub(crate) reserved_wide: u32_le,
}

/// The header of a segment, at the start of its first page.
#[derive(Clone, Copy, Debug, Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub(crate) struct SegmentHeader {
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32_le,
    pub(crate) own_bytes: u32_le,
    pub(crate) crc: u32_le,
    pub(crate) epoch: u32_le,
    pub(crate) lane_id: [u8; 16],
    pub(crate) sequence: u64_le,
    pub(crate) base: u64_le,
    pub(crate) segment_bytes: u64_le,
    pub(crate) salt: u64_le,
    pub(crate) created_ns: u64_le,
    pub(crate) ack: u8,
    pub(crate) reserved: [u8; 47],
}

/// The footer of a sealed segment, at the start of its last page.
#[derive(Clone, Copy, Debug, Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub(crate) struct Footer {
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32_le,
    pub(crate) own_bytes: u32_le,
    pub(crate) crc: u32_le,
    pub(crate) flags: u32_le,
    pub(crate) base: u64_le,
    pub(crate) sealed_end: u64_le,
    pub(crate) records: u64_le,
    pub(crate) first_ns: u64_le,
    pub(crate) last_ns: u64_le,
    pub(crate) sealed_ns: u64_le,
    pub(crate) damaged: u32_le,
    pub(crate) gaps: u32_le,
    pub(crate) reserved: [u8; 48],
}

/// The shared page that tells other processes how far they may read.
#[derive(Clone, Copy, Debug, Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub(crate) struct MarksPage {
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32_le,
    pub(crate) own_bytes: u32_le,
    pub(crate) lane_id: [u8; 16],
    pub(crate) epoch: u64_le,
    pub(crate) claimed: u64_le,
    pub(crate) published: u64_le,
    pub(crate) durable: u64_le,
    pub(crate) acked: u64_le,
    pub(crate) first_base: u64_le,
    pub(crate) last_base: u64_le,
    pub(crate) writer_pid: u64_le,
    pub(crate) futex: u32_le,
    pub(crate) reserved: [u8; 28],
}

/// One of the two slots of a cursor's file.
#[derive(Clone, Copy, Debug, Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub(crate) struct CursorSlot {
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32_le,
    pub(crate) own_bytes: u32_le,
    pub(crate) crc: u32_le,
    pub(crate) epoch: u32_le,
    pub(crate) lane_id: [u8; 16],
    pub(crate) count: u64_le,
    pub(crate) offset: u64_le,
    pub(crate) sequence: u64_le,
    pub(crate) committed_ns: u64_le,
    pub(crate) reserved: [u8; 56],
}

const _: () = {
    assert!(size_of::<CursorSlot>() == 128 && align_of::<CursorSlot>() == 8);
    assert!(offset_of!(CursorSlot, magic) == 0 && offset_of!(CursorSlot, version) == 8);
    assert!(offset_of!(CursorSlot, own_bytes) == 12 && offset_of!(CursorSlot, crc) == 16);
    assert!(offset_of!(CursorSlot, epoch) == 20 && offset_of!(CursorSlot, lane_id) == 24);
    assert!(offset_of!(CursorSlot, count) == 40 && offset_of!(CursorSlot, offset) == 48);
    assert!(offset_of!(CursorSlot, sequence) == 56);
    assert!(offset_of!(CursorSlot, committed_ns) == 64 && offset_of!(CursorSlot, reserved) == 72);
};

const _: () = {
    assert!(size_of::<RecordHeader>() == 64 && align_of::<RecordHeader>() == 8);
    assert!(offset_of!(RecordHeader, commit) == 0 && offset_of!(RecordHeader, header_crc) == 4);
    assert!(offset_of!(RecordHeader, position) == 8 && offset_of!(RecordHeader, received_ns) == 16);
    assert!(offset_of!(RecordHeader, key) == 24 && offset_of!(RecordHeader, meta_bytes) == 40);
    assert!(offset_of!(RecordHeader, body_bytes) == 44);
    assert!(offset_of!(RecordHeader, payload_crc) == 48);
    assert!(offset_of!(RecordHeader, kind) == 52 && offset_of!(RecordHeader, flags) == 53);
    assert!(offset_of!(RecordHeader, reserved) == 54);
    assert!(offset_of!(RecordHeader, signed_key_crc) == 56);
    assert!(offset_of!(RecordHeader, reserved_wide) == 60);
    assert!(
        RECORD_HEADER_BYTES == 64 && RECORD_ALIGN == 64 && PAGE_BYTES.is_multiple_of(RECORD_ALIGN)
    );

    assert!(size_of::<SegmentHeader>() == 128 && align_of::<SegmentHeader>() == 8);
    assert!(offset_of!(SegmentHeader, magic) == 0 && offset_of!(SegmentHeader, version) == 8);
    assert!(offset_of!(SegmentHeader, own_bytes) == 12 && offset_of!(SegmentHeader, crc) == 16);
    assert!(offset_of!(SegmentHeader, epoch) == 20 && offset_of!(SegmentHeader, lane_id) == 24);
    assert!(offset_of!(SegmentHeader, sequence) == 40 && offset_of!(SegmentHeader, base) == 48);
    assert!(offset_of!(SegmentHeader, segment_bytes) == 56);
    assert!(offset_of!(SegmentHeader, salt) == 64 && offset_of!(SegmentHeader, created_ns) == 72);
    assert!(offset_of!(SegmentHeader, ack) == 80 && offset_of!(SegmentHeader, reserved) == 81);

    assert!(size_of::<Footer>() == 128 && align_of::<Footer>() == 8);
    assert!(offset_of!(Footer, magic) == 0 && offset_of!(Footer, version) == 8);
    assert!(offset_of!(Footer, own_bytes) == 12 && offset_of!(Footer, crc) == 16);
    assert!(offset_of!(Footer, flags) == 20 && offset_of!(Footer, base) == 24);
    assert!(offset_of!(Footer, sealed_end) == 32 && offset_of!(Footer, records) == 40);
    assert!(offset_of!(Footer, first_ns) == 48 && offset_of!(Footer, last_ns) == 56);
    assert!(offset_of!(Footer, sealed_ns) == 64 && offset_of!(Footer, damaged) == 72);
    assert!(offset_of!(Footer, gaps) == 76 && offset_of!(Footer, reserved) == 80);

    assert!(size_of::<MarksPage>() == 128 && align_of::<MarksPage>() == 8);
    assert!(offset_of!(MarksPage, magic) == 0 && offset_of!(MarksPage, version) == 8);
    assert!(offset_of!(MarksPage, own_bytes) == 12 && offset_of!(MarksPage, lane_id) == 16);
    assert!(offset_of!(MarksPage, epoch) == 32 && offset_of!(MarksPage, claimed) == 40);
    assert!(offset_of!(MarksPage, published) == 48 && offset_of!(MarksPage, durable) == 56);
    assert!(offset_of!(MarksPage, acked) == 64 && offset_of!(MarksPage, first_base) == 72);
    assert!(offset_of!(MarksPage, last_base) == 80 && offset_of!(MarksPage, writer_pid) == 88);
    assert!(offset_of!(MarksPage, futex) == 96 && offset_of!(MarksPage, reserved) == 100);
};

/// A copy of bytes at an address that suits every header.
#[repr(C, align(16))]
struct Aligned<const N: usize>([u8; N]);

/// Bytes of a record with these sections, header and alignment included; `None` beyond 32 bits.
pub(crate) fn record_bytes(meta_bytes: usize, body_bytes: usize) -> Option<u32> {
    let payload = u64::try_from(meta_bytes).ok()?.checked_add(u64::try_from(body_bytes).ok()?)?;
    let whole = payload.checked_add(RECORD_HEADER_BYTES)?.checked_next_multiple_of(RECORD_ALIGN)?;
    u32::try_from(whole).ok()
}

/// Where checksums of a segment start: bytes left by another segment never validate.
pub(crate) fn seed_of(salt: u64) -> u32 {
    crc32c::crc32c(&salt.to_le_bytes())
}

/// The checksum of a record's meta and body.
pub(crate) fn payload_crc(seed: u32, meta: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(seed, meta), body)
}

/// The checksum of the field that is the key of a record's signed bytes: it outlives the payload.
pub(crate) fn signed_key_crc(seed: u32, field: &[u8; SIGNED_KEY_BYTES]) -> u32 {
    crc32c::crc32c_append(seed, field)
}

impl RecordHeader {
    /// A filler record of `whole` bytes at `position`.
    pub(crate) fn pad(position: u64, whole: u32) -> Self {
        Self {
            commit: whole.into(),
            header_crc: 0.into(),
            position: position.into(),
            received_ns: 0.into(),
            key: [0; 16],
            meta_bytes: 0.into(),
            body_bytes: whole.saturating_sub(64).into(),
            payload_crc: 0.into(),
            kind: KIND_PAD,
            flags: 0,
            reserved: 0.into(),
            signed_key_crc: 0.into(),
            reserved_wide: 0.into(),
        }
    }

    /// The bytes of this header with its checksum in place and the commit word zero: the commit
    /// word is stored last, on its own.
    pub(crate) fn sealed_bytes(&self, seed: u32) -> [u8; 64] {
        let mut bytes = [0; 64];
        put(&mut bytes, offset_of!(Self, position), self.position.to_native().to_le_bytes());
        put(&mut bytes, offset_of!(Self, received_ns), self.received_ns.to_native().to_le_bytes());
        put(&mut bytes, offset_of!(Self, key), self.key);
        put(&mut bytes, offset_of!(Self, meta_bytes), self.meta_bytes.to_native().to_le_bytes());
        put(&mut bytes, offset_of!(Self, body_bytes), self.body_bytes.to_native().to_le_bytes());
        put(&mut bytes, offset_of!(Self, payload_crc), self.payload_crc.to_native().to_le_bytes());
        put(&mut bytes, offset_of!(Self, kind), [self.kind]);
        put(&mut bytes, offset_of!(Self, flags), [self.flags]);
        let signed_key_crc = self.signed_key_crc.to_native().to_le_bytes();
        put(&mut bytes, offset_of!(Self, signed_key_crc), signed_key_crc);
        let crc = crc32c::crc32c_append(seed, covered(&bytes));
        put(&mut bytes, offset_of!(Self, header_crc), crc.to_le_bytes());
        bytes
    }

    /// Reads a header that must stand at `position`: checksum, position and lengths hold, or
    /// nothing is returned. The commit word in the bytes is not looked at.
    pub(crate) fn read(bytes: [u8; 64], seed: u32, position: u64) -> Option<Self> {
        let aligned = Aligned(bytes);
        let header = *access::<Self, Failure>(&aligned.0).ok()?;
        let crc = crc32c::crc32c_append(seed, covered(&aligned.0));
        let holds = header.header_crc == crc && header.position == position;
        (holds && header.whole_bytes().is_some()).then_some(header)
    }

    /// Bytes of the whole record by its section lengths, which the checksum covers.
    pub(crate) fn whole_bytes(&self) -> Option<u32> {
        let meta = usize::try_from(self.meta_bytes.to_native()).ok()?;
        let body = usize::try_from(self.body_bytes.to_native()).ok()?;
        record_bytes(meta, body)
    }
}

/// The part of a record header that its checksum covers.
fn covered(header: &[u8; 64]) -> &[u8] {
    &header[offset_of!(RecordHeader, position)..]
}

impl SegmentHeader {
    /// The bytes of this header with its checksum in place.
    pub(crate) fn sealed_bytes(&self) -> [u8; 128] {
        let mut bytes = [0; 128];
        put(&mut bytes, offset_of!(Self, magic), SEGMENT_MAGIC);
        put(&mut bytes, offset_of!(Self, version), self.version.to_native().to_le_bytes());
        put(&mut bytes, offset_of!(Self, own_bytes), 128_u32.to_le_bytes());
        put(&mut bytes, offset_of!(Self, epoch), self.epoch.to_native().to_le_bytes());
        put(&mut bytes, offset_of!(Self, lane_id), self.lane_id);
        put(&mut bytes, offset_of!(Self, sequence), self.sequence.to_native().to_le_bytes());
        put(&mut bytes, offset_of!(Self, base), self.base.to_native().to_le_bytes());
        let segment_bytes = self.segment_bytes.to_native().to_le_bytes();
        put(&mut bytes, offset_of!(Self, segment_bytes), segment_bytes);
        put(&mut bytes, offset_of!(Self, salt), self.salt.to_native().to_le_bytes());
        put(&mut bytes, offset_of!(Self, created_ns), self.created_ns.to_native().to_le_bytes());
        put(&mut bytes, offset_of!(Self, ack), [self.ack]);
        let crc = crc32c::crc32c(&bytes);
        put(&mut bytes, offset_of!(Self, crc), crc.to_le_bytes());
        bytes
    }

    /// Reads a header whose magic and checksum hold; the version may be one of the future.
    pub(crate) fn read(bytes: [u8; 128]) -> Option<Self> {
        let aligned = Aligned(bytes);
        let header = *access::<Self, Failure>(&aligned.0).ok()?;
        let crc = crc_without(bytes, offset_of!(Self, crc), 0);
        (header.magic == SEGMENT_MAGIC && header.crc == crc).then_some(header)
    }
}

impl CursorSlot {
    /// The bytes of this slot with magic, version and checksum in place.
    pub(crate) fn sealed_bytes(&self) -> [u8; 128] {
        let mut bytes = [0; 128];
        put(&mut bytes, offset_of!(Self, magic), CURSOR_MAGIC);
        put(&mut bytes, offset_of!(Self, version), FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, offset_of!(Self, own_bytes), 128_u32.to_le_bytes());
        put(&mut bytes, offset_of!(Self, epoch), self.epoch.to_native().to_le_bytes());
        put(&mut bytes, offset_of!(Self, lane_id), self.lane_id);
        put(&mut bytes, offset_of!(Self, count), self.count.to_native().to_le_bytes());
        put(&mut bytes, offset_of!(Self, offset), self.offset.to_native().to_le_bytes());
        put(&mut bytes, offset_of!(Self, sequence), self.sequence.to_native().to_le_bytes());
        let committed_ns = self.committed_ns.to_native().to_le_bytes();
        put(&mut bytes, offset_of!(Self, committed_ns), committed_ns);
        let crc = crc32c::crc32c(&bytes);
        put(&mut bytes, offset_of!(Self, crc), crc.to_le_bytes());
        bytes
    }

    /// Reads a slot of this version whose checksum holds.
    pub(crate) fn read(bytes: [u8; 128]) -> Option<Self> {
        let aligned = Aligned(bytes);
        let slot = *access::<Self, Failure>(&aligned.0).ok()?;
        let crc = crc_without(bytes, offset_of!(Self, crc), 0);
        let known = slot.magic == CURSOR_MAGIC && slot.version == FORMAT_VERSION;
        (known && slot.crc == crc).then_some(slot)
    }
}

impl Footer {
    /// The bytes of this footer with its checksum in place.
    pub(crate) fn sealed_bytes(&self, seed: u32) -> [u8; 128] {
        let mut bytes = [0; 128];
        put(&mut bytes, offset_of!(Self, magic), FOOTER_MAGIC);
        put(&mut bytes, offset_of!(Self, version), FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, offset_of!(Self, own_bytes), 128_u32.to_le_bytes());
        put(&mut bytes, offset_of!(Self, flags), self.flags.to_native().to_le_bytes());
        put(&mut bytes, offset_of!(Self, base), self.base.to_native().to_le_bytes());
        put(&mut bytes, offset_of!(Self, sealed_end), self.sealed_end.to_native().to_le_bytes());
        put(&mut bytes, offset_of!(Self, records), self.records.to_native().to_le_bytes());
        put(&mut bytes, offset_of!(Self, first_ns), self.first_ns.to_native().to_le_bytes());
        put(&mut bytes, offset_of!(Self, last_ns), self.last_ns.to_native().to_le_bytes());
        put(&mut bytes, offset_of!(Self, sealed_ns), self.sealed_ns.to_native().to_le_bytes());
        put(&mut bytes, offset_of!(Self, damaged), self.damaged.to_native().to_le_bytes());
        put(&mut bytes, offset_of!(Self, gaps), self.gaps.to_native().to_le_bytes());
        let crc = crc32c::crc32c_append(seed, &bytes);
        put(&mut bytes, offset_of!(Self, crc), crc.to_le_bytes());
        bytes
    }

    /// Reads a footer whose magic, version and checksum hold.
    pub(crate) fn read(bytes: [u8; 128], seed: u32) -> Option<Self> {
        let aligned = Aligned(bytes);
        let footer = *access::<Self, Failure>(&aligned.0).ok()?;
        let crc = crc_without(bytes, offset_of!(Self, crc), seed);
        let holds = footer.magic == FOOTER_MAGIC && footer.crc == crc;
        (holds && footer.version == FORMAT_VERSION).then_some(footer)
    }
}

impl MarksPage {
    /// The bytes that make an empty page of marks for a lane.
    pub(crate) fn initial_bytes(lane_id: [u8; 16]) -> [u8; 128] {
        let mut bytes = [0; 128];
        put(&mut bytes, offset_of!(Self, magic), MARKS_MAGIC);
        put(&mut bytes, offset_of!(Self, version), FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, offset_of!(Self, own_bytes), 128_u32.to_le_bytes());
        put(&mut bytes, offset_of!(Self, lane_id), lane_id);
        bytes
    }

    /// Reads the fixed part of a page of marks; the watermarks in it move and are read as atomics.
    pub(crate) fn read(bytes: [u8; 128]) -> Option<Self> {
        let aligned = Aligned(bytes);
        let page = *access::<Self, Failure>(&aligned.0).ok()?;
        (page.magic == MARKS_MAGIC && page.version == FORMAT_VERSION).then_some(page)
    }
}

/// The checksum over a header whose own checksum field, at `at`, counts as zero.
fn crc_without(mut bytes: [u8; 128], at: usize, seed: u32) -> u32 {
    put(&mut bytes, at, [0; 4]);
    crc32c::crc32c_append(seed, &bytes)
}

/// Puts a field at its offset; both are constants, so a wrong one fails in the first test.
fn put<const N: usize, const M: usize>(bytes: &mut [u8; N], at: usize, field: [u8; M]) {
    bytes[at..at + M].copy_from_slice(&field);
}

#[cfg(test)]
mod tests;
