//! The header of a segment, made again when its page is lost.
//!
//! What a header says can be had from elsewhere, but for the salt, without which no checksum of
//! the segment can be checked. A checksum is a one-to-one map of the value it starts from, so that
//! value follows from any one header with its checksum; a second checksum then proves it. Any salt
//! that leads to the value will do: the bytes differ from those that were lost, and nothing else.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::format::{
    Footer, PAGE_BYTES, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
    SegmentHeader, payload_crc, seed_of,
};
use crate::segment::{Extent, Identity};

/// The polynomial of CRC-32C, its lowest bit first.
const POLYNOMIAL: u32 = 0x82f6_3b78;
const TABLE: [u32; 256] = table();
/// Bytes that the checksum of a record header leaves out: commit word and checksum.
const UNCOVERED: usize = 8;
/// Where a footer keeps its checksum.
const FOOTER_CRC: usize = 16;

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte: u32 = 0;
    while byte < 256 {
        let mut crc = byte;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[byte as usize] = crc;
        byte += 1;
    }
    table
}

/// The value from which the checksum `crc` of `bytes` started.
fn start_of(crc: u32, bytes: &[u8]) -> u32 {
    let back = |state: u32, byte: &u8| {
        // The entries of the table differ in their highest byte, which alone comes from them.
        let [.., high] = state.to_le_bytes();
        let index = TABLE.iter().position(|entry| entry.to_le_bytes()[3] == high).unwrap_or(0);
        let entry = TABLE.get(index).copied().unwrap_or(0);
        // The index fits a byte: the table has 256 entries.
        ((state ^ entry) << 8) | (u32::try_from(index).unwrap_or(0) ^ u32::from(*byte))
    };
    !bytes.iter().rev().fold(!crc, back)
}

/// A salt whose checksums start from `seed`.
fn salt_for(seed: u32) -> u64 {
    // Four bytes of the eight decide: they are what takes the checksum of the others to `seed`.
    let before = crc32c::crc32c(&[0; 4]);
    u64::from(!start_of(seed, &[0; 4]) ^ !before) << 32
}

/// What is known of a segment whose header is lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) lane_id: [u8; 16],
    pub(crate) base: u64,
    pub(crate) epoch: u32,
    pub(crate) sequence: u64,
    pub(crate) ack: u8,
}

/// The header of a segment whose own does not hold; nothing if too little else of it holds.
pub(crate) fn header(file: &File, known: &Known) -> io::Result<Option<[u8; 128]>> {
    let file_bytes = file.metadata()?.len();
    let bounded = (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&file_bytes);
    if !bounded || !file_bytes.is_multiple_of(PAGE_BYTES) {
        return Ok(None);
    }
    let mut lost = [0; 128];
    file.read_exact_at(&mut lost, 0)?;
    if let Some(header) = with_one_bit(lost, known.base) {
        return Ok(Some(header));
    }
    let extent = Extent { base: known.base, bytes: file_bytes };
    let (record, footer) = (seed_by_record(file, extent)?, seed_by_footer(file, extent)?);
    // Two that agree, or a record whose payload agrees with its header.
    let Some(seed) = record.filter(|(_, proven)| *proven || footer == record.map(|(seed, _)| seed))
    else {
        return Ok(None);
    };
    let salt = salt_for(seed.0);
    let identity = Identity {
        lane_id: known.lane_id,
        sequence: known.sequence,
        epoch: known.epoch,
        extent,
        salt,
        seed: seed_of(salt),
        created_ns: 0,
        ack: known.ack,
    };
    Ok((identity.seed == seed.0).then(|| identity.header().sealed_bytes()))
}

/// The header, if one bit of it is wrong.
fn with_one_bit(lost: [u8; 128], base: u64) -> Option<[u8; 128]> {
    (0..128 * 8).find_map(|bit| {
        let mut mended = lost;
        *mended.get_mut(bit / 8)? ^= 1 << (bit % 8);
        let header = SegmentHeader::read(mended)?;
        // What is written must be what stood there, in every byte.
        (header.base == base && header.sealed_bytes() == mended).then_some(mended)
    })
}

/// The value from which the first record's checksum starts, and whether its payload agrees.
fn seed_by_record(file: &File, extent: Extent) -> io::Result<Option<(u32, bool)>> {
    let mut bytes = [0; 64];
    file.read_exact_at(&mut bytes, PAGE_BYTES)?;
    let Some((head, covered)) = bytes.split_first_chunk::<UNCOVERED>() else { return Ok(None) };
    let [c0, c1, c2, c3, h0, h1, h2, h3] = *head;
    let commit = u32::from_le_bytes([c0, c1, c2, c3]);
    let seed = start_of(u32::from_le_bytes([h0, h1, h2, h3]), covered);
    let header = RecordHeader::read(bytes, seed, extent.first());
    let Some(header) = header.filter(|header| header.whole_bytes() == Some(commit)) else {
        return Ok(None);
    };
    if extent.first() + u64::from(commit) > extent.record_end() {
        return Ok(None);
    }
    let meta_bytes = header.meta_bytes.to_native() as usize;
    let mut payload = vec![0; meta_bytes + header.body_bytes.to_native() as usize];
    file.read_exact_at(&mut payload, PAGE_BYTES + RECORD_HEADER_BYTES)?;
    let proven = header.payload_crc == payload_crc(seed, &payload, &[]) && !payload.is_empty();
    Ok(Some((seed, proven)))
}

/// The value from which the footer's checksum starts.
fn seed_by_footer(file: &File, extent: Extent) -> io::Result<Option<u32>> {
    let mut bytes = [0; 128];
    file.read_exact_at(&mut bytes, extent.bytes - PAGE_BYTES)?;
    let mut covered = bytes;
    let Some(crc) = covered.get_mut(FOOTER_CRC..FOOTER_CRC + 4) else { return Ok(None) };
    let told = crc.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
    crc.fill(0);
    let seed = start_of(told, &covered);
    let footer = Footer::read(bytes, seed).filter(|footer| footer.base == extent.base);
    Ok(footer.map(|_| seed))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_checksum_tells_where_it_started(
            seed in any::<u32>(),
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let crc = crc32c::crc32c_append(seed, &bytes);
            prop_assert_eq!(start_of(crc, &bytes), seed);
            prop_assert_eq!(seed_of(salt_for(seed)), seed);
        }
    }
}
