//! The bytes of a generation file: head, directory, guides, pages of keys. No I/O.
//!
//! FORMAT.md beside this file specifies them. What is read here is checked before it is used: a
//! head or a page that does not hold yields nothing, and what holds cannot send a look-up out of
//! bounds.

use super::block::Words;

/// Everything large stands at multiples of this.
pub(super) const PAGE_BYTES: usize = 4096;
/// Keys in a page behind its 16 bytes of header.
pub(super) const PAGE_KEYS: usize = (PAGE_BYTES - 16) / KEY_BYTES;
/// One key, its low word first.
pub(super) const KEY_BYTES: usize = 16;
/// What a part aims at: its filter is built in memory, in about 12 MB.
pub(super) const PART_KEYS: u64 = 1 << 18;
/// Length of the filter's own description.
pub(super) const DESCRIPTOR_BYTES: usize = 20;

const MAGIC: [u8; 8] = *b"FOREBAYG";
const VERSION: u32 = 1;
pub(super) const HEAD_BYTES: usize = 128;
const ENTRY_BYTES: usize = 64;
/// No directory is longer: 2^40 keys.
const PARTS_MAX: u32 = 1 << 22;
/// The filter's hashing uses 18 bits within a segment.
const SEGMENT_LENGTH_MAX: u32 = 1 << 18;

/// What a generation is: which blocks went into it, which records of the log, from when to when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) lane_id: [u8; 16],
    /// Every block that was sealed has a number; these are the first and the last in here.
    pub(super) first: u64,
    pub(super) last: u64,
    /// Its records begin at or behind this offset.
    pub(super) from: u64,
    /// Records of all earlier generations end at or before this offset.
    pub(super) previous_to: u64,
    /// Every event that ends at or before this offset is in this generation or an earlier one.
    pub(super) covers: u64,
    /// Records of this and of all earlier generations end at or before this offset.
    pub(super) to: u64,
    /// No key is older than this.
    pub(super) oldest_ns: u64,
    /// No key is younger than this; a window later the generation goes.
    pub(super) newest_ns: u64,
    pub(super) keys: u64,
}

/// One share of the keys, by their low word: a guide, and pages of keys behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// Where the guide starts: the first key of each page, then the filter.
    pub(super) guide_at: u64,
    pub(super) keys: u32,
    pub(super) pages: u32,
    /// 0 where no filter could be made: then every key may be there.
    pub(super) filter_bytes: u32,
    pub(super) guide_crc: u32,
    pub(super) descriptor: [u8; DESCRIPTOR_BYTES],
}

impl Part {
    pub(super) fn index_bytes(&self) -> u64 {
        u64::from(self.pages) * KEY_BYTES as u64
    }

    pub(super) fn guide_bytes(&self) -> u64 {
        self.index_bytes() + u64::from(self.filter_bytes)
    }

    /// Where the pages of keys start.
    pub(super) fn pages_at(&self) -> u64 {
        self.guide_at + self.guide_bytes().next_multiple_of(PAGE_BYTES as u64)
    }

    pub(super) fn end(&self) -> u64 {
        self.pages_at() + u64::from(self.pages) * PAGE_BYTES as u64
    }

    /// Whether a look-up by this part stays within a file of `bytes`.
    fn holds(&self, bytes: u64) -> bool {
        let at = |index: usize| {
            let word = self.descriptor.get(index..index + 4).and_then(|word| word.try_into().ok());
            word.map_or(0, u32::from_le_bytes)
        };
        let (length, mask, count_length) = (at(8), at(12), at(16));
        let slots = u64::from(self.filter_bytes) / 2;
        let filter = self.filter_bytes == 0
            || (length.is_power_of_two()
                && length <= SEGMENT_LENGTH_MAX
                && mask == length - 1
                && count_length != 0
                && count_length.is_multiple_of(length)
                && self.filter_bytes.is_multiple_of(2)
                && u64::from(count_length) + 2 * u64::from(length) == slots);
        let keys = u64::from(self.pages) * PAGE_KEYS as u64;
        let placed = self.guide_at.is_multiple_of(PAGE_BYTES as u64) && self.guide_at <= bytes;
        filter && placed && u64::from(self.keys) <= keys && self.end() <= bytes
    }
}

/// Takes little-endian integers from the front of a slice.
struct Fields<'b>(&'b [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.0.split_first_chunk::<N>().unwrap_or((&[0; N], &[]));
        let taken = *taken;
        self.0 = rest;
        taken
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }
}

/// Bytes that head and directory take, in whole pages.
pub(super) fn front_bytes(parts: usize) -> usize {
    (HEAD_BYTES + parts * ENTRY_BYTES).next_multiple_of(PAGE_BYTES)
}

/// Where the checksums of guides and pages start: bytes of another file never hold.
pub(super) fn seed(head: &Head) -> u32 {
    crc32c::crc32c(&head_bytes(head, 0)[16..96])
}

/// Head and directory, in whole pages.
pub(super) fn front(head: &Head, parts: &[Part]) -> Vec<u8> {
    let mut bytes = head_bytes(head, u32::try_from(parts.len()).unwrap_or(u32::MAX));
    for part in parts {
        bytes.extend(part.guide_at.to_le_bytes());
        for word in [part.keys, part.pages, part.filter_bytes, part.guide_crc] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(part.descriptor);
        bytes.resize(bytes.len() + ENTRY_BYTES - 24 - DESCRIPTOR_BYTES, 0);
    }
    let crc = crc32c::crc32c(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes.resize(front_bytes(parts.len()), 0);
    bytes
}

/// The head, its checksum still zero.
fn head_bytes(head: &Head, parts: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PAGE_BYTES);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(head.lane_id);
    let words = [
        head.first,
        head.last,
        head.from,
        head.previous_to,
        head.covers,
        head.to,
        head.oldest_ns,
        head.newest_ns,
        head.keys,
    ];
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    bytes.extend(parts.to_le_bytes());
    bytes.resize(HEAD_BYTES, 0);
    bytes
}

/// How long head and directory are, as the first bytes of a file of `file_bytes` tell.
pub(super) fn front_bytes_told(
    start: &[u8; HEAD_BYTES],
    file_bytes: u64,
) -> Result<usize, &'static str> {
    let mut fields = Fields(start);
    if fields.array() != MAGIC {
        return Err("is no generation of event keys");
    }
    if fields.u32() != VERSION {
        return Err("has a version of the format that this build does not know");
    }
    let parts = Fields(&start[104..]).u32();
    let whole = front_bytes(usize::try_from(parts.min(PARTS_MAX)).unwrap_or(0));
    if parts == 0 || parts > PARTS_MAX || whole as u64 > file_bytes {
        return Err("has a head that does not hold");
    }
    Ok(whole)
}

/// Head and directory, if they hold for a file of `file_bytes`.
pub(super) fn read_front(
    bytes: &mut [u8],
    file_bytes: u64,
) -> Result<(Head, Vec<Part>), &'static str> {
    const DAMAGED: &str = "has a head that does not hold";
    let crc = Fields(bytes.get(12..).unwrap_or_default()).u32();
    if let Some(own) = bytes.get_mut(12..16) {
        own.fill(0);
    }
    let count = usize::try_from(Fields(bytes.get(104..).unwrap_or_default()).u32()).unwrap_or(0);
    let meant = bytes.get(..HEAD_BYTES.saturating_add(count.saturating_mul(ENTRY_BYTES)));
    let meant = meant.filter(|meant| crc32c::crc32c(meant) == crc).ok_or(DAMAGED)?;
    let mut fields = Fields(meant.get(16..).unwrap_or_default());
    let head = Head {
        lane_id: fields.array(),
        first: fields.u64(),
        last: fields.u64(),
        from: fields.u64(),
        previous_to: fields.u64(),
        covers: fields.u64(),
        to: fields.u64(),
        oldest_ns: fields.u64(),
        newest_ns: fields.u64(),
        keys: fields.u64(),
    };
    let entries = meant.get(HEAD_BYTES..).unwrap_or_default().chunks_exact(ENTRY_BYTES);
    let parts: Vec<Part> = entries.map(part).collect();
    let sound = head.first <= head.last && !parts.is_empty();
    if !sound || !parts.iter().all(|part| part.holds(file_bytes)) {
        return Err(DAMAGED);
    }
    Ok((head, parts))
}

fn part(entry: &[u8]) -> Part {
    let mut fields = Fields(entry);
    Part {
        guide_at: fields.u64(),
        keys: fields.u32(),
        pages: fields.u32(),
        filter_bytes: fields.u32(),
        guide_crc: fields.u32(),
        descriptor: fields.array(),
    }
}

/// The page of these keys, at `at` in its file.
pub(super) fn page(seed: u32, at: u64, keys: &[Words]) -> [u8; PAGE_BYTES] {
    let mut page = [0; PAGE_BYTES];
    page[4..8].copy_from_slice(&u32::try_from(keys.len()).unwrap_or(u32::MAX).to_le_bytes());
    page[8..16].copy_from_slice(&at.to_le_bytes());
    for (place, key) in page[16..].chunks_exact_mut(KEY_BYTES).zip(keys) {
        place.copy_from_slice(&key.to_bytes());
    }
    let crc = crc32c::crc32c_append(seed, &page[4..]);
    page[..4].copy_from_slice(&crc.to_le_bytes());
    page
}

/// The keys of a page, if it holds.
pub(super) fn page_keys(seed: u32, at: u64, page: &[u8]) -> Option<&[[u8; KEY_BYTES]]> {
    let mut fields = Fields(page);
    let (crc, count, told_at) = (fields.u32(), fields.u32(), fields.u64());
    let count = usize::try_from(count).ok().filter(|count| *count <= PAGE_KEYS)?;
    let sound = page.len() == PAGE_BYTES
        && told_at == at
        && crc32c::crc32c_append(seed, page.get(4..)?) == crc;
    sound.then(|| fields.0.as_chunks::<KEY_BYTES>().0.get(..count))?
}

#[cfg(all(test, not(forebay_loom)))]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            lane_id: [7; 16],
            first: 3,
            last: 4,
            from: 10,
            previous_to: 11,
            covers: 20,
            to: 21,
            oldest_ns: 5,
            newest_ns: 6,
            keys: 300,
        }
    }

    fn parts() -> Vec<Part> {
        let part = Part { guide_at: 4096, keys: 300, pages: 2, ..Part::default() };
        vec![part, Part { guide_at: 16_384, keys: 0, pages: 0, ..Part::default() }]
    }

    #[test]
    fn a_front_reads_back_and_any_flipped_bit_is_told() {
        let bytes = front(&head(), &parts());
        let file_bytes = 1 << 20;
        let start: &[u8; HEAD_BYTES] = bytes.first_chunk().expect("a head");
        assert_eq!(front_bytes_told(start, file_bytes), Ok(PAGE_BYTES));
        assert_eq!(read_front(&mut bytes.clone(), file_bytes), Ok((head(), parts())));
        for bit in (0..(HEAD_BYTES + 2 * ENTRY_BYTES) * 8).step_by(3) {
            let mut bent = bytes.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            let start = bent.first_chunk().copied().expect("a head");
            let told = front_bytes_told(&start, file_bytes);
            assert!(told.is_err() || read_front(&mut bent, file_bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_directory_that_leads_out_of_the_file_is_refused_whatever_its_checksum() {
        let mut parts = parts();
        parts[1].pages = 3;
        let mut bytes = front(&head(), &parts);
        assert!(read_front(&mut bytes.clone(), 16_384 + 4096 + 3 * 4096).is_ok());
        assert!(read_front(&mut bytes, 16_384 + 3 * 4096).is_err());
        parts[1].filter_bytes = 64;
        assert!(read_front(&mut front(&head(), &parts), 1 << 20).is_err(), "no such filter");
    }

    #[test]
    fn a_page_reads_back_at_its_place_alone_and_any_flipped_bit_is_told() {
        let keys: Vec<Words> = (1..=255).map(|low| Words { low, high: 2 * low }).collect();
        let bytes = page(9, 8192, &keys);
        let read = page_keys(9, 8192, &bytes).expect("it holds");
        assert!(read.iter().copied().map(Words::from_bytes).eq(keys.iter().copied()));
        assert!(page_keys(9, 4096, &bytes).is_none());
        assert!(page_keys(8, 8192, &bytes).is_none());
        for bit in (0..PAGE_BYTES * 8).step_by(7) {
            let mut bent = bytes;
            bent[bit / 8] ^= 1 << (bit % 8);
            assert!(page_keys(9, 8192, &bent).is_none(), "bit {bit}");
        }
    }
}
