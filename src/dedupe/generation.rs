//! A generation file as look-ups see it: mapped, immutable, checked where it is touched.
//!
//! # What a look-up touches
//!
//! A new event asks the filter of each generation, three loads within some 30 KiB of the part
//! that the key's low word names, and with one in 65,536 exceptions touches nothing else. What
//! may be there costs a search in the index of the part and one page of keys.
//!
//! Guides (filters and indices) are asked all the time. They are read into memory and checked by
//! a background thread as soon as a generation is opened, and the kernel sees them used, so it
//! keeps them; where a look-up comes first it reads and checks the part itself, some 600 KB. Pages
//! of keys are read with one `pread`, so they are never in this process's memory, and an error of
//! the disk is an answer and no signal: where the kernel does not have the page, a duplicate of an
//! older event waits for the disk once, on its receiver's thread. What grows with the window is
//! 2.4 bytes a key of mapped page cache; the keys, at 16 bytes, are the kernel's.
//!
//! # Damage
//!
//! Every byte is under a checksum, looked at before the first use (guides) or at each use (pages).
//! A guide that does not hold costs time: its pages are searched instead. A page that does not
//! hold may hide the key, so the answer is [`Found::Unknown`] until the generation is rebuilt.
//!
//! | atomic | written by | read by | ordering | what becomes visible |
//! |---|---|---|---|---|
//! | state of a part | whoever checks its guide first; the same answer from all | look-ups | Relaxed | nothing else: the bytes were there before the mapping |
//! | `damaged` | whoever sees damage | the keeper | Relaxed | nothing else: a flag |

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use forebay_log::FileMap;
use xorf::{BinaryFuse16Ref, Filter, FilterRef};

use super::block::{Words, share_of};
use super::format::{self, HEAD_BYTES, Head, KEY_BYTES, PAGE_BYTES, Part};
use super::write::filtered;

/// A guide that nobody has checked yet.
const UNCHECKED: u8 = 0;
/// One that holds.
const SOUND: u8 = 1;
/// One that does not.
const DAMAGED: u8 = 2;
/// Pages that a merge reads at once.
const READ_PAGES: u64 = 32;

/// Whether a generation holds a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    No,
    /// Its record ends behind `from`, at `to` at the latest.
    Yes {
        from: u64,
        to: u64,
    },
    /// Damage hides it.
    Unknown,
}

/// The keys of some sealed blocks, on the disk.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) head: Head,
    parts: Box<[(Part, AtomicU8)]>,
    seed: u32,
    map: FileMap,
    /// For reading keys, past the mapping.
    file: File,
    path: PathBuf,
    damaged: AtomicBool,
}

impl Generation {
    /// Opens a file that [`write`](super::write::write) made. What it says of itself has to hold;
    /// guides and keys are checked when they are used.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let damaged = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
        let file = File::open(path)?;
        let file_bytes = file.metadata()?.len();
        let mut start = [0; HEAD_BYTES];
        file.read_exact_at(&mut start, 0)?;
        let front_bytes = format::front_bytes_told(&start, file_bytes).map_err(damaged)?;
        let mut front = vec![0; front_bytes];
        file.read_exact_at(&mut front, 0)?;
        let (head, parts) = format::read_front(&mut front, file_bytes).map_err(damaged)?;
        let map = FileMap::new(&file)?;
        let parts = parts.into_iter().map(|part| (part, AtomicU8::new(UNCHECKED))).collect();
        let (seed, path) = (format::seed(&head), path.to_owned());
        Ok(Self { head, parts, seed, map, file, path, damaged: AtomicBool::new(false) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether anything in it was found not to hold.
    pub(super) fn damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed) // Relaxed: a flag.
    }

    /// Bytes of filters and indices: what look-ups keep in memory.
    pub(super) fn guide_bytes(&self) -> u64 {
        self.parts.iter().map(|(part, _)| part.guide_bytes()).sum()
    }

    /// Whether the key is in it.
    pub(super) fn find(&self, words: Words) -> Found {
        let Some((part, state)) = self.parts.get(share_of(words.low, self.parts.len())) else {
            return Found::No;
        };
        // Relaxed: see the table above.
        let mut known = state.load(Ordering::Relaxed);
        if known == UNCHECKED {
            known = self.check(part, state);
        }
        if known == DAMAGED {
            return self.find_by_pages(part, words);
        }
        let at = part.guide_at + part.index_bytes();
        if part.filter_bytes != 0
            && let Some(filter) = self.map.get(at, u64::from(part.filter_bytes))
            && !BinaryFuse16Ref::from_dma(&part.descriptor, filter).contains(&filtered(words))
        {
            return Found::No;
        }
        self.find_by_index(part, words)
    }

    /// Reads and checks every guide that nobody has asked yet.
    pub(super) fn check_guides(&self) {
        for (part, state) in &self.parts {
            if state.load(Ordering::Relaxed) == UNCHECKED {
                self.check(part, state);
            }
        }
    }

    fn check(&self, part: &Part, state: &AtomicU8) -> u8 {
        self.map.will_need(part.guide_at, part.guide_bytes());
        let guide = self.map.get(part.guide_at, part.guide_bytes()).unwrap_or_default();
        let sound = crc32c::crc32c_append(self.seed, guide) == part.guide_crc;
        if !sound {
            self.damaged.store(true, Ordering::Relaxed);
        }
        let known = if sound { SOUND } else { DAMAGED };
        state.store(known, Ordering::Relaxed);
        known
    }

    fn find_by_index(&self, part: &Part, words: Words) -> Found {
        let index = self.map.get(part.guide_at, part.index_bytes()).unwrap_or_default();
        let firsts = index.as_chunks::<KEY_BYTES>().0;
        let behind = firsts.partition_point(|first| Words::from_bytes(*first) <= words);
        let Some(page) = behind.checked_sub(1) else { return Found::No };
        let mut buffer = [0; PAGE_BYTES];
        match self.page(part, page as u64, &mut buffer) {
            Some(keys) if holds(keys, words) => self.yes(),
            Some(_) => Found::No,
            None => Found::Unknown,
        }
    }

    /// Without a guide: by halves, a page at each step.
    fn find_by_pages(&self, part: &Part, words: Words) -> Found {
        let (mut low, mut high) = (0, u64::from(part.pages));
        while low < high {
            let middle = low + (high - low) / 2;
            let mut buffer = [0; PAGE_BYTES];
            let Some(keys) = self.page(part, middle, &mut buffer) else { return Found::Unknown };
            let first = keys.first().copied().map(Words::from_bytes);
            if first.is_none_or(|first| first > words) {
                high = middle;
            } else if holds(keys, words) {
                return self.yes();
            } else {
                low = middle + 1;
            }
        }
        Found::No
    }

    fn yes(&self) -> Found {
        Found::Yes { from: self.head.from, to: self.head.to }
    }

    /// The keys of a page of this part, if it holds.
    fn page<'b>(
        &self,
        part: &Part,
        index: u64,
        buffer: &'b mut [u8; PAGE_BYTES],
    ) -> Option<&'b [[u8; KEY_BYTES]]> {
        let at = part.pages_at() + index * PAGE_BYTES as u64;
        let read = self.file.read_exact_at(buffer, at).is_ok();
        let keys = read.then(|| format::page_keys(self.seed, at, buffer)).flatten();
        if keys.is_none() {
            self.damaged.store(true, Ordering::Relaxed); // Relaxed: a flag.
        }
        keys
    }

    /// Every key, ascending. Stops at an error, or goes on behind a page that does not hold if
    /// `salvage` says so.
    pub(super) fn keys(&self, salvage: bool) -> Keys<'_> {
        Keys { generation: self, part: 0, page: 0, read: Vec::new(), next: 0, salvage }
    }
}

/// Whether a page holds the key.
fn holds(keys: &[[u8; KEY_BYTES]], words: Words) -> bool {
    keys.binary_search_by(|key| Words::from_bytes(*key).cmp(&words)).is_ok()
}

/// The keys of a generation in order.
#[derive(Debug)]
pub(super) struct Keys<'g> {
    generation: &'g Generation,
    part: usize,
    /// The next page of that part.
    page: u64,
    read: Vec<Words>,
    next: usize,
    salvage: bool,
}

impl Keys<'_> {
    /// Reads the next pages; false behind the last.
    fn fill(&mut self) -> io::Result<bool> {
        let Self { generation, read, .. } = self;
        read.clear();
        self.next = 0;
        let Some((part, _)) = generation.parts.get(self.part) else { return Ok(false) };
        let pages = (u64::from(part.pages) - self.page).min(READ_PAGES);
        let at = part.pages_at() + self.page * PAGE_BYTES as u64;
        let mut bytes = vec![0; usize::try_from(pages).unwrap_or(0) * PAGE_BYTES];
        generation.file.read_exact_at(&mut bytes, at)?;
        for (page, at) in bytes.chunks_exact(PAGE_BYTES).zip((at..).step_by(PAGE_BYTES)) {
            if let Some(keys) = format::page_keys(generation.seed, at, page) {
                read.extend(keys.iter().copied().map(Words::from_bytes));
                continue;
            }
            generation.damaged.store(true, Ordering::Relaxed); // Relaxed: a flag.
            if !self.salvage {
                let what = format!("{} is damaged", generation.path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
        }
        self.page += pages;
        if self.page >= u64::from(part.pages) {
            (self.part, self.page) = (self.part + 1, 0);
        }
        Ok(true)
    }
}

impl Iterator for Keys<'_> {
    type Item = io::Result<Words>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(words) = self.read.get(self.next) {
                self.next += 1;
                return Some(Ok(*words));
            }
            match self.fill() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    // Nothing more after an error.
                    self.part = self.generation.parts.len();
                    return Some(Err(error));
                }
            }
        }
    }
}

/// Several ascending rows of keys as one, each key once.
pub(super) struct Merged<I: Iterator<Item = io::Result<Words>>> {
    rows: Vec<std::iter::Peekable<I>>,
    last: Option<Words>,
}

impl<I: Iterator<Item = io::Result<Words>>> Merged<I> {
    pub(super) fn new(rows: impl IntoIterator<Item = I>) -> Self {
        Self { rows: rows.into_iter().map(Iterator::peekable).collect(), last: None }
    }
}

impl<I: Iterator<Item = io::Result<Words>>> Iterator for Merged<I> {
    type Item = io::Result<Words>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut least: Option<(usize, Words)> = None;
            let mut failed = None;
            for (index, row) in self.rows.iter_mut().enumerate() {
                match row.peek() {
                    Some(Err(_)) => failed = Some(index),
                    Some(Ok(words)) if least.is_none_or(|(_, least)| *words < least) => {
                        least = Some((index, *words));
                    }
                    _ => {}
                }
            }
            let (index, words) = match (failed, least) {
                (Some(index), _) => return self.rows.get_mut(index)?.next(),
                (None, least) => least?,
            };
            self.rows.get_mut(index)?.next();
            if self.last.replace(words) != Some(words) {
                return Some(Ok(words));
            }
        }
    }
}
