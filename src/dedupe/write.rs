//! Ascending keys to a generation file: whole and durable, or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use forebay_log::planted::{self, Point};
use xorf::{BinaryFuse16, DmaSerializable};

use super::block::{Words, share_of};
use super::format::{self, DESCRIPTOR_BYTES, Head, PAGE_BYTES, PAGE_KEYS, PART_KEYS, Part};

/// What a generation file's name ends in.
pub(super) const EXTENSION: &str = "gen";
/// What the name of one in the making ends in.
pub(super) const FRESH_EXTENSION: &str = "new";

/// A large file is synced every so many parts, some 40 MiB, lest the sync at its end take seconds
/// in which nothing else is written.
const SYNC_PARTS: usize = 8;

/// The name of the generation of these blocks.
pub(super) fn file_name(first: u64, last: u64) -> String {
    format!("{first:016x}-{last:016x}.{EXTENSION}")
}

/// What a key is to its filter: 64 bits that depend on all of it.
pub(super) fn filtered(words: Words) -> u64 {
    words.low ^ words.high.rotate_left(32)
}

/// Writes the generation `head` of these keys, ascending and at most `keys_max`, into `dir`.
/// The number of keys in `head` is counted here. Takes memory for one part, not for all keys.
pub(super) fn write(
    dir: &Path,
    head: Head,
    keys_max: u64,
    keys: impl Iterator<Item = io::Result<Words>>,
) -> io::Result<PathBuf> {
    let path = dir.join(file_name(head.first, head.last));
    let fresh = path.with_extension(FRESH_EXTENSION);
    let written = write_fresh(&fresh, head, keys_max, keys);
    if let Err(error) = written {
        // The first error is the one to tell; a leftover is removed at the next start.
        let _ = fs::remove_file(&fresh);
        return Err(error);
    }
    planted::pass(Point::GenerationWritten);
    fs::rename(&fresh, &path)?;
    planted::pass(Point::GenerationNamed);
    File::open(dir)?.sync_all()?;
    Ok(path)
}

fn write_fresh(
    fresh: &Path,
    head: Head,
    keys_max: u64,
    keys: impl Iterator<Item = io::Result<Words>>,
) -> io::Result<()> {
    let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).clone();
    let count = usize::try_from(keys_max.div_ceil(PART_KEYS).max(1)).map_err(io::Error::other)?;
    let front_bytes = format::front_bytes(count);
    let file = BufWriter::with_capacity(1 << 18, options.open(fresh)?);
    let mut writing = Writing { file, at: 0, head, parts: Vec::new(), seed: format::seed(&head) };
    writing.head.keys = 0;
    writing.put(&vec![0; front_bytes])?;
    planted::pass(Point::GenerationBegun);
    let mut part = Vec::new();
    for words in keys {
        let words = words?;
        while writing.parts.len() < share_of(words.low, count) {
            writing.part(&part)?;
            part.clear();
        }
        part.push(words);
    }
    while writing.parts.len() < count {
        writing.part(&part)?;
        part.clear();
    }
    writing.finish()
}

struct Writing {
    file: BufWriter<File>,
    /// Where the next byte goes.
    at: u64,
    head: Head,
    parts: Vec<Part>,
    seed: u32,
}

impl Writing {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// One guide and its pages.
    fn part(&mut self, keys: &[Words]) -> io::Result<()> {
        let mut part = Part {
            guide_at: self.at,
            keys: u32::try_from(keys.len()).map_err(io::Error::other)?,
            pages: u32::try_from(keys.len().div_ceil(PAGE_KEYS)).map_err(io::Error::other)?,
            ..Part::default()
        };
        let firsts = keys.chunks(PAGE_KEYS).filter_map(<[Words]>::first);
        let mut guide: Vec<u8> = firsts.flat_map(|first| first.to_bytes()).collect();
        if let Some(filter) = filter(keys) {
            let fingerprints = filter.dma_fingerprints();
            part.filter_bytes = u32::try_from(fingerprints.len()).map_err(io::Error::other)?;
            const { assert!(BinaryFuse16::DESCRIPTOR_LEN == DESCRIPTOR_BYTES) };
            filter.dma_copy_descriptor_to(&mut part.descriptor);
            guide.extend_from_slice(fingerprints);
        }
        part.guide_crc = crc32c::crc32c_append(self.seed, &guide);
        guide.resize(guide.len().next_multiple_of(PAGE_BYTES), 0);
        self.put(&guide)?;
        for keys in keys.chunks(PAGE_KEYS) {
            let page = format::page(self.seed, self.at, keys);
            self.put(&page)?;
        }
        self.head.keys += keys.len() as u64;
        self.parts.push(part);
        if self.parts.len().is_multiple_of(SYNC_PARTS) {
            self.file.flush()?;
            self.file.get_ref().sync_data()?;
        }
        Ok(())
    }

    /// Head and directory last: a file without them is no generation.
    fn finish(mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&format::front(&self.head, &self.parts))?;
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }
}

/// A filter over one part; nothing for no keys, or for keys that make none.
fn filter(keys: &[Words]) -> Option<BinaryFuse16> {
    if keys.is_empty() {
        return None;
    }
    let mut hashes: Vec<u64> = keys.iter().copied().map(filtered).collect();
    BinaryFuse16::try_from(&hashes).ok().or_else(|| {
        // Two keys with one hash, which hardly any filter ever meets: sorting costs more than making it.
        hashes.sort_unstable();
        hashes.dedup();
        BinaryFuse16::try_from(&hashes).ok()
    })
}
