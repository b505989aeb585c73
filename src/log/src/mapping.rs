//! The only mmap and the only unsafe code of the crate.
//!
//! Turns a file into memory that is stored to by claim ([`WriteMap`]) or only read ([`ReadMap`]),
//! and into the words of a marks page ([`MarksMap`]). [`FileMap`] is the same for a file that is
//! no part of a log and that nobody changes. What a mapping holds is never trusted here:
//! this file keeps accesses in bounds and ordered, `format` decides whether bytes mean anything.
//! Headers and footers of segments are not read through a mapping at all, but with `pread`.
//!
//! # Invariants
//!
//! ## Mapped
//! The pointer is valid for `len` bytes for as long as the mapping object lives. The file had at
//! least `len` bytes when it was mapped, and nobody makes a segment or a marks file shorter:
//! segments are allocated whole and retention only unlinks. Should someone truncate one all the
//! same, or the disk fail, the kernel sends SIGBUS; no wrong byte is read. See [`tell_bus_errors`].
//!
//! A [`FileMap`] covers the whole of a file that was written, synced and renamed before it was
//! mapped, and that is never written again, only unlinked: the pages stay until they are unmapped.
//!
//! ## In bounds
//! Every access first passes [`range`], which panics on a range outside the mapping.
//!
//! ## Aligned
//! Commit words stand at multiples of 64, words of the marks page at the constants of `format`,
//! multiples of their size; a mapping starts at a page.
//!
//! ## Claimed
//! A [`Claim`] is the only right to store into a range. It comes from one successful step of the
//! `claimed` watermark, cannot be copied, and ends with the commit word: so no two stores into
//! one byte race, and nobody reads it before the commit word is seen.
//!
//! ## Settled
//! Bytes of a record do not change once its commit word is not zero. A reference is formed only
//! to bytes of records whose commit word was loaded with Acquire, or, when a lane is recovered,
//! while the lane's lock keeps every writer away.
//!
//! ## Words
//! A word that more than one process touches is touched through an atomic only. On a read-only
//! mapping it is a relaxed load and a fence: only relaxed loads are defined on read-only memory.
//!
//! | word | writer | readers | ordering | what becomes visible |
//! |---|---|---|---|---|
//! | commit word of a record | the claim's owner, once | walkers of this process, tails of any | Release / Acquire | header, meta and body of the record |
//! | `epoch`, `acked` of the marks | the opening thread, then the keeper | tails of any process | Release / Acquire | that records below `acked` are committed |
//! | other marks | the keeper | whoever looks | Relaxed | nothing else |
//! | futex word | the keeper | waiting tails | Release / Acquire | the marks stored before it |
#![expect(unsafe_code, reason = "mapped memory has no safe interface; see the invariants above")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};
use rustix::thread::futex;

use crate::fault;
use crate::format::{MarksPage, PAGE_BYTES, RECORD_ALIGN};
use crate::watermark::Claim;

/// A mapping that this process stores records into.
#[derive(Debug)]
pub(crate) struct WriteMap {
    raw: MmapRaw,
}

/// A mapping that this process can only read.
#[derive(Debug)]
pub(crate) struct ReadMap {
    raw: MmapRaw,
}

/// Makes a bus error on a mapped file end the process by one line on standard error that names the
/// file, and an abort. The line is left in `marker` too, which a start may look for.
///
/// Without it the process dies of SIGBUS and says nothing. `forebay serve` calls this; a process
/// that only reads a lane may.
pub fn tell_bus_errors(marker: Option<&Path>) -> io::Result<()> {
    fault::prepare(marker)?;
    let handle = |info: &libc::siginfo_t| {
        // SAFETY: The kernel fills the address in for every SIGBUS that it sends itself; in one
        // that a process sends the field is another number, which lies in no mapping or tells a
        // wrong file before the abort that was asked for.
        let address = unsafe { info.si_addr() };
        fault::handle(address.addr());
    };
    // SAFETY: `fault::handle` only makes calls of the kernel: no lock, no memory, no panic.
    unsafe { signal_hook_registry::register_sigaction(libc::SIGBUS, handle) }?;
    Ok(())
}

/// What a processor fetches at once.
const LINE_BYTES: usize = 64;
/// The huge pages of most processors.
pub(crate) const HUGE_BYTES: u64 = 2 * 1024 * 1024;

/// Has the processor fetch the line at an address to store to it.
fn fetch_line(line: *const u8) {
    // SAFETY: A hint: nothing is read or written, and no address makes it fault.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        _mm_prefetch::<_MM_HINT_ET0>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// Checks a range against a mapping's length. Panics, rather than touch memory that is not ours.
fn range(len: usize, at: u64, bytes: u64) -> Range<usize> {
    let inside = at.checked_add(bytes).is_some_and(|end| end <= len as u64);
    assert!(inside, "{bytes} bytes at {at} do not lie in a mapping of {len} bytes");
    // Both fit a usize: they are no larger than `len`.
    #[expect(clippy::cast_possible_truncation, reason = "bounded by `len` on the line above")]
    let range = at as usize..(at + bytes) as usize;
    range
}

/// Maps the first `bytes` of a file after making sure that it has them.
fn map(file: &File, bytes: u64, writable: bool) -> io::Result<MmapRaw> {
    if file.metadata()?.len() < bytes {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is too short to map"));
    }
    let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
    let mut options = MmapOptions::new();
    options.len(bytes);
    if writable { options.map_raw(file) } else { options.map_raw_read_only(file) }
}

/// Starts to write a range of a file to its medium, and waits for nothing.
pub(crate) fn start_writing(file: &File, at: u64, bytes: u64) -> io::Result<()> {
    let number = |value: u64| i64::try_from(value).map_err(io::Error::other);
    let (at, bytes) = (number(at)?, number(bytes)?);
    // SAFETY: The kernel is given an open file and three numbers; it touches no memory of ours.
    let refused =
        unsafe { libc::sync_file_range(file.as_raw_fd(), at, bytes, libc::SYNC_FILE_RANGE_WRITE) };
    if refused == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl WriteMap {
    pub(crate) fn new(file: &File, bytes: u64) -> io::Result<Self> {
        Ok(Self { raw: map(file, bytes, true)? })
    }

    /// Copies a record to the place that was claimed for it, `at` in this mapping: its parts one
    /// behind the other. The first is the header, with a commit word of zero.
    pub(crate) fn store(&self, claim: &mut Claim, at: u64, parts: [&[u8]; 3]) {
        let whole = range(self.raw.len(), at, claim.bytes());
        let total: usize = parts.iter().map(|part| part.len()).sum();
        assert!(total <= whole.len(), "a record is longer than its claim");
        let mut to = whole.start;
        for part in parts {
            // SAFETY: In bounds: `whole` holds all parts, by the assertion.
            let target = unsafe { self.raw.as_mut_ptr().add(to) };
            // SAFETY: Mapped, In bounds; Claimed: nobody else touches these bytes, and `part`
            // is not among them, since references into a mapping reach settled bytes only.
            unsafe { target.copy_from_nonoverlapping(part.as_ptr(), part.len()) };
            to += part.len();
        }
    }

    /// Stores the commit word, last of all. The claim ends: what is published never changes.
    pub(crate) fn publish(&self, claim: Claim, at: u64) {
        let word = claim.end();
        // Release: pairs with the Acquire in `commit`; makes header, meta and body visible.
        self.word(at).store(word.to_le(), Ordering::Release);
    }

    /// Has the processor fetch lines that are stored to next, as far as they are in the mapping:
    /// they are new to its caches, and a copy into them would wait for each. A hint, which other
    /// processors than those of `x86_64` are not given.
    pub(crate) fn fetch(&self, at: u64, bytes: u64) {
        let end = self.raw.len() as u64;
        let at = at.min(end);
        let lines = range(self.raw.len(), at, bytes.min(end - at));
        for line in lines.step_by(LINE_BYTES) {
            // SAFETY: In bounds, by `range`.
            fetch_line(unsafe { self.raw.as_ptr().add(line) });
        }
    }

    /// The commit word of the record at `at`; zero while it is not published.
    pub(crate) fn commit(&self, at: u64) -> u32 {
        // Acquire: pairs with the Release in `publish`; the record's bytes are visible if not 0.
        u32::from_le(self.word(at).load(Ordering::Acquire))
    }

    /// A copy of the header of the record at `at`, if the record is published.
    pub(crate) fn header(&self, at: u64) -> Option<[u8; 64]> {
        let range = range(self.raw.len(), at, RECORD_ALIGN);
        if self.commit(at) == 0 {
            return None;
        }
        // SAFETY: In bounds, by `range`.
        let header = unsafe { self.raw.as_ptr().add(range.start) };
        // SAFETY: Mapped, In bounds; Settled: the commit word was not zero.
        Some(unsafe { header.cast::<[u8; 64]>().read() })
    }

    /// Makes pages present and writable, so that a store into them does not fault.
    ///
    /// The kernel answers EFAULT where the file has no space behind a page.
    pub(crate) fn make_ready(&self, at: u64, bytes: u64) -> io::Result<()> {
        let range = range(self.raw.len(), at, bytes);
        self.raw.advise_range(Advice::PopulateWrite, range.start, range.len())
    }

    /// Asks for huge pages where a range is made ready next, and for no others behind them: the
    /// kernel reads ahead by what suits the disk, 8 MiB here, all of it zeroed in one go.
    pub(crate) fn prefer_huge(&self, at: u64, bytes: u64) {
        let range = range(self.raw.len(), at, bytes);
        for advice in [Advice::Random, Advice::HugePage] {
            // Only a hint: without it the range is made ready in small pages.
            let _ = self.raw.advise_range(advice, range.start, range.len());
        }
    }

    /// Takes whole pages out of the mapping. What stands in them comes back from the file.
    pub(crate) fn leave(&self, at: u64, bytes: u64) -> io::Result<()> {
        let range = range(self.raw.len(), at, bytes);
        // SAFETY: Settled: the mapping is of a file and shared, so these pages read the same
        // again, from the page cache or from the medium.
        unsafe {
            self.raw.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len())
        }
    }

    /// Writes a range to the medium and waits until it is there.
    pub(crate) fn sync(&self, at: u64, bytes: u64) -> io::Result<()> {
        let range = range(self.raw.len(), at, bytes);
        self.raw.flush_range(range.start, range.len())
    }

    fn word(&self, at: u64) -> &AtomicU32 {
        let range = range(self.raw.len(), at, 4);
        assert!(at.is_multiple_of(RECORD_ALIGN), "no commit word stands at {at}");
        // SAFETY: In bounds, by `range`.
        let word = unsafe { self.raw.as_mut_ptr().add(range.start) };
        #[expect(clippy::cast_ptr_alignment, reason = "Aligned: asserted above")]
        let word = word.cast::<u32>();
        // SAFETY: Mapped, Aligned, Words: a commit word is touched through this atomic only,
        // once its bytes were allocated as zeros.
        unsafe { AtomicU32::from_ptr(word) }
    }
}

impl ReadMap {
    pub(crate) fn new(file: &File, bytes: u64) -> io::Result<Self> {
        Ok(Self { raw: map(file, bytes, false)? })
    }

    /// How many bytes of the file are mapped.
    pub(crate) fn bytes_mapped(&self) -> u64 {
        self.raw.len() as u64
    }

    /// Tells the kernel that the mapping will be read from front to back.
    pub(crate) fn read_in_order(&self) {
        // Only a hint: without it reading is slower, not different.
        let _ = self.raw.advise(Advice::Sequential);
    }

    /// The commit word at `at`, a multiple of 64.
    pub(crate) fn commit(&self, at: u64) -> u32 {
        let range = range(self.raw.len(), at, 4);
        assert!(at.is_multiple_of(RECORD_ALIGN), "no commit word stands at {at}");
        // SAFETY: In bounds, by `range`.
        let word = unsafe { self.raw.as_ptr().add(range.start) };
        #[expect(clippy::cast_ptr_alignment, reason = "Aligned: asserted above")]
        let word = word.cast::<u32>().cast_mut();
        // SAFETY: Mapped, Aligned, Words: only loaded, relaxed.
        let word = unsafe { AtomicU32::from_ptr(word) }.load(Ordering::Relaxed);
        // Acquire: pairs with the Release in `WriteMap::publish`; the record is visible if not 0.
        fence(Ordering::Acquire);
        u32::from_le(word)
    }

    /// A copy of the 64 bytes at `at`, which may be a header. The caller stays below `acked`, or
    /// holds the lane's lock.
    pub(crate) fn header(&self, at: u64) -> [u8; 64] {
        let range = range(self.raw.len(), at, RECORD_ALIGN);
        // SAFETY: In bounds, by `range`.
        let header = unsafe { self.raw.as_ptr().add(range.start) };
        // SAFETY: Mapped, In bounds, Settled.
        unsafe { header.cast::<[u8; 64]>().read() }
    }

    /// The bytes of a section. The caller stays below `acked`, or holds the lane's lock.
    pub(crate) fn bytes(&self, at: u64, bytes: u64) -> &[u8] {
        let range = range(self.raw.len(), at, bytes);
        // SAFETY: In bounds, by `range`.
        let start = unsafe { self.raw.as_ptr().add(range.start) };
        // SAFETY: Mapped, In bounds, Settled; the reference ends with the mapping.
        unsafe { std::slice::from_raw_parts(start, range.len()) }
    }
}

/// A whole file, mapped for reading, that nobody writes to any more.
///
/// For files that are made whole under another name, renamed, and only unlinked after that. Its
/// bytes are as good as the medium: a reader checks its own checksums.
#[derive(Debug)]
pub struct FileMap {
    map: ReadMap,
    bytes: u64,
}

impl FileMap {
    /// Maps `file` from its start to its present end; an empty file is an error.
    pub fn new(file: &File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        let map = ReadMap::new(file, bytes)?;
        // Look-ups jump about; read-ahead would fill memory with what nobody asks for.
        map.raw.advise(Advice::Random)?;
        Ok(Self { map, bytes })
    }

    /// Length of the file in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Asks the kernel to read a range into memory, without waiting for it.
    pub fn will_need(&self, at: u64, bytes: u64) {
        if self.get(at, bytes).is_some() {
            let range = range(self.map.raw.len(), at, bytes);
            // Only a hint: without it reading is slower, not different.
            let _ = self.map.raw.advise_range(Advice::WillNeed, range.start, range.len());
        }
    }

    /// The bytes of a range; none of it if it does not lie within the file.
    pub fn get(&self, at: u64, bytes: u64) -> Option<&[u8]> {
        let inside = at.checked_add(bytes).is_some_and(|end| end <= self.bytes);
        inside.then(|| self.map.bytes(at, bytes))
    }
}

/// A word of the marks page, by its offset in [`MarksPage`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mark {
    Epoch,
    Claimed,
    Published,
    Durable,
    Acked,
    FirstBase,
    LastBase,
    WriterPid,
}

impl Mark {
    const fn offset(self) -> usize {
        match self {
            Self::Epoch => std::mem::offset_of!(MarksPage, epoch),
            Self::Claimed => std::mem::offset_of!(MarksPage, claimed),
            Self::Published => std::mem::offset_of!(MarksPage, published),
            Self::Durable => std::mem::offset_of!(MarksPage, durable),
            Self::Acked => std::mem::offset_of!(MarksPage, acked),
            Self::FirstBase => std::mem::offset_of!(MarksPage, first_base),
            Self::LastBase => std::mem::offset_of!(MarksPage, last_base),
            Self::WriterPid => std::mem::offset_of!(MarksPage, writer_pid),
        }
    }
}

/// The shared page of watermarks, mapped for storing or for looking.
#[derive(Debug)]
pub(crate) struct MarksMap {
    raw: MmapRaw,
    writable: bool,
}

impl MarksMap {
    pub(crate) fn new(file: &File, writable: bool) -> io::Result<Self> {
        Ok(Self { raw: map(file, PAGE_BYTES, writable)?, writable })
    }

    /// Stores a mark. Only where the page was mapped for storing.
    pub(crate) fn store(&self, mark: Mark, value: u64) {
        assert!(self.writable, "the marks are mapped read-only");
        // Release: pairs with the fence in `load`; records committed before are visible.
        self.word(mark).store(value.to_le(), Ordering::Release);
    }

    /// Loads a mark; what was stored before it is visible.
    pub(crate) fn load(&self, mark: Mark) -> u64 {
        // Relaxed and a fence instead of Acquire: the page may be mapped read-only.
        let value = self.word(mark).load(Ordering::Relaxed);
        // Acquire: pairs with the Release in `store`.
        fence(Ordering::Acquire);
        u64::from_le(value)
    }

    /// Changes the futex word and wakes every process that waits on it; true if one did.
    pub(crate) fn wake(&self) -> bool {
        assert!(self.writable, "the marks are mapped read-only");
        // Release: pairs with the fence in `futex_value`; the marks stored before are visible.
        self.futex().fetch_add(1, Ordering::Release);
        // A failed wake costs a waiter its timeout, not a record.
        let woken = futex::wake(self.futex(), futex::Flags::empty(), i32::MAX.unsigned_abs());
        woken.is_ok_and(|woken| woken > 0)
    }

    /// The futex word, to be taken before looking at the marks that one would wait for.
    pub(crate) fn futex_value(&self) -> u32 {
        let value = self.futex().load(Ordering::Relaxed);
        // Acquire: pairs with the Release in `wake`.
        fence(Ordering::Acquire);
        value
    }

    /// Sleeps until the futex word is no longer `seen`, at most `timeout`. False where the kernel
    /// cannot wait on this page.
    pub(crate) fn wait(&self, seen: u32, timeout: Duration) -> bool {
        let Ok(timeout) = futex::Timespec::try_from(timeout) else { return false };
        match futex::wait(self.futex(), futex::Flags::empty(), seen, Some(&timeout)) {
            Ok(()) => true,
            Err(error) => matches!(
                error,
                rustix::io::Errno::TIMEDOUT | rustix::io::Errno::AGAIN | rustix::io::Errno::INTR
            ),
        }
    }

    fn word(&self, mark: Mark) -> &AtomicU64 {
        let range = range(self.raw.len(), mark.offset() as u64, 8);
        // SAFETY: In bounds, by `range`.
        let word = unsafe { self.raw.as_ptr().add(range.start) };
        #[expect(clippy::cast_ptr_alignment, reason = "Aligned: asserted in `format`")]
        let word = word.cast::<u64>().cast_mut();
        // SAFETY: Mapped, Aligned, Words; stored to only where `writable`.
        unsafe { AtomicU64::from_ptr(word) }
    }

    fn futex(&self) -> &AtomicU32 {
        let range = range(self.raw.len(), std::mem::offset_of!(MarksPage, futex) as u64, 4);
        // SAFETY: In bounds, by `range`.
        let word = unsafe { self.raw.as_ptr().add(range.start) };
        #[expect(clippy::cast_ptr_alignment, reason = "Aligned: asserted in `format`")]
        let word = word.cast::<u32>().cast_mut();
        // SAFETY: Mapped, Aligned, Words; stored to only where `writable`.
        unsafe { AtomicU32::from_ptr(word) }
    }
}
