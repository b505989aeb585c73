//! A page of a mapped file that cannot be had: which file it was, and an end to the process.
//!
//! The kernel tells a store or a load that it cannot carry out by SIGBUS: the disk fails under the
//! file, or someone has made the file shorter. Nothing can be mended in there, and going on would
//! mean to jump out of the middle of a copy. So the process says in one line which file it was,
//! leaves the line in a file as well, and aborts; a restart recovers what was acknowledged.
//!
//! Everything here but [`prepare`] runs inside the signal's handler: no lock, no memory, nothing
//! but calls of the kernel. The file is looked up in `/proc/self/maps`.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, Mode, OFlags, openat};

/// Longer lines of the kernel's table are cut.
const LINE_BYTES: usize = 1024;
const SAID_BEFORE: &[u8] = b"forebay: bus error: ";
const SAID_BEHIND: &[u8] =
    b" cannot be read or written: its disk has failed, or the file was cut short; aborting\n";

/// Where the line is left.
static MARKER: OnceLock<CString> = OnceLock::new();
/// One thread tells; the others wait for the end.
static TELLING: AtomicBool = AtomicBool::new(false);

/// Keeps what the handler will need.
pub(crate) fn prepare(marker: Option<&Path>) -> io::Result<()> {
    if let Some(marker) = marker {
        let marker = CString::new(marker.as_os_str().as_bytes()).map_err(io::Error::other)?;
        // The first one stays: the handler may be looking at it.
        let _ = MARKER.set(marker);
    }
    Ok(())
}

/// Tells and aborts, if a mapped file lies at `address`; returns if none does.
pub(crate) fn handle(address: usize) {
    let mut line = Line::default();
    if !line.find(address) {
        return;
    }
    // Relaxed: a lone flag.
    if TELLING.swap(true, Ordering::Relaxed) {
        loop {
            std::thread::yield_now();
        }
    }
    say(rustix::stdio::stderr(), line.path());
    if let Some(marker) = MARKER.get() {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP;
        if let Ok(file) = openat(CWD, marker.as_c_str(), flags, mode) {
            say(file.as_fd(), line.path());
            let _ = rustix::fs::fsync(file);
        }
    }
    std::process::abort();
}

fn say(to: BorrowedFd<'_>, path: &[u8]) {
    for part in [SAID_BEFORE, path, SAID_BEHIND] {
        // Whoever does not listen misses it; the process ends all the same.
        let _ = rustix::io::write(to, part);
    }
}

/// One line of `/proc/self/maps`: `start-end mode offset device inode   path`.
struct Line {
    bytes: [u8; LINE_BYTES],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; LINE_BYTES], length: 0 }
    }
}

impl Line {
    /// Reads lines until this is the one of a file mapped at `address`; false if none is.
    fn find(&mut self, address: usize) -> bool {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let Ok(maps) = openat(CWD, c"/proc/self/maps", flags, Mode::empty()) else { return false };
        let mut chunk = [0; LINE_BYTES];
        while let Ok(count @ 1..) = rustix::io::read(&maps, &mut chunk) {
            for byte in chunk.get(..count).unwrap_or_default() {
                if *byte != b'\n' {
                    self.push(*byte);
                } else if self.holds(address) {
                    return !self.path().is_empty();
                } else {
                    self.length = 0;
                }
            }
        }
        false
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    fn text(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn holds(&self, address: usize) -> bool {
        let mut ends = self.text().split(|byte| matches!(byte, b'-' | b' ')).map(number);
        let (start, end) = (ends.next().flatten(), ends.next().flatten());
        start.is_some_and(|start| start <= address) && end.is_some_and(|end| address < end)
    }

    /// What follows the first slash: only a file has one.
    fn path(&self) -> &[u8] {
        let from = self.text().iter().position(|byte| *byte == b'/');
        from.and_then(|from| self.text().get(from..)).unwrap_or_default()
    }
}

/// A number of hexadecimal digits.
fn number(digits: &[u8]) -> Option<usize> {
    digits.iter().try_fold(0_usize, |number, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        number.checked_mul(16)?.checked_add(usize::try_from(digit).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_an_address_is_found_and_memory_has_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("mapped");
        std::fs::write(&path, [1; 5000]).expect("written");
        let file = std::fs::File::open(&path).expect("a file");
        let map = crate::mapping::ReadMap::new(&file, 5000).expect("mapped");
        let address = map.bytes(0, 1).as_ptr().addr();
        for inside in [address, address + 8191] {
            let mut line = Line::default();
            assert!(line.find(inside));
            assert_eq!(line.path(), path.as_os_str().as_bytes());
        }
        let heap = Box::new(7);
        assert!(!Line::default().find(std::ptr::from_ref(heap.as_ref()).addr()));
    }
}
