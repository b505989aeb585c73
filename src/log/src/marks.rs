//! The marks file: one shared page that tells other processes how far they may read.
//!
//! Advice for readers, never evidence: recovery finds the end of a lane in its segments. The file
//! keeps its inode over restarts, so a tail that has it mapped sees the next writer.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::format::{MarksPage, PAGE_BYTES};
use crate::mapping::{Mark, MarksMap};
use crate::segment::writing;

/// The name of the file in a lane's directory.
pub(crate) const MARKS_FILE: &str = "marks";

/// The watermarks as the writer last told them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) claimed: u64,
    pub(crate) published: u64,
    pub(crate) durable: u64,
    pub(crate) acked: u64,
    pub(crate) first_base: u64,
    pub(crate) last_base: u64,
}

/// Opens the marks for the one writer. What a former writer told stays until [`begin`].
pub(crate) fn open_for_writing(dir: &Path, lane_id: [u8; 16]) -> io::Result<MarksMap> {
    let file = writing().create(true).truncate(false).open(dir.join(MARKS_FILE))?;
    let known = read_page(&file)?.filter(|page| page.lane_id == lane_id);
    if known.is_none() {
        // Allocated, so that no store into the page can meet a full disk.
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, PAGE_BYTES)?;
        file.write_all_at(&MarksPage::initial_bytes(lane_id), 0)?;
        file.sync_all()?;
    }
    MarksMap::new(&file, true)
}

/// Opens the marks of a lane for looking; nothing if there are none that hold.
pub(crate) fn open_for_reading(dir: &Path) -> io::Result<Option<MarksMap>> {
    match File::open(dir.join(MARKS_FILE)) {
        Ok(file) if read_page(&file)?.is_some() => MarksMap::new(&file, false).map(Some),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The id of a lane, if its marks hold.
pub(crate) fn lane_id(dir: &Path) -> io::Result<Option<[u8; 16]>> {
    Ok(page(dir)?.map(|page| page.lane_id))
}

/// What the last writer told, as it was left: the page, if there is one.
pub(crate) fn left(dir: &Path) -> Option<MarksPage> {
    page(dir).ok().flatten()
}

fn page(dir: &Path) -> io::Result<Option<MarksPage>> {
    match File::open(dir.join(MARKS_FILE)) {
        Ok(file) => read_page(&file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_page(file: &File) -> io::Result<Option<MarksPage>> {
    let mut bytes = [0; 128];
    if file.metadata()?.len() < PAGE_BYTES {
        return Ok(None);
    }
    file.read_exact_at(&mut bytes, 0)?;
    Ok(MarksPage::read(bytes))
}

/// Starts an epoch. The epoch is told before the marks that belong to it: a tail that sees the
/// new marks with the old epoch would read the old segments too far.
pub(crate) fn begin(marks: &MarksMap, epoch: u32, told: &Told) {
    marks.store(Mark::Epoch, u64::from(epoch));
    marks.store(Mark::WriterPid, u64::from(std::process::id()));
    tell(marks, told);
    marks.wake();
}

/// Tells how far the lane has come.
pub(crate) fn tell(marks: &MarksMap, told: &Told) {
    marks.store(Mark::Claimed, told.claimed);
    marks.store(Mark::Published, told.published);
    marks.store(Mark::Durable, told.durable);
    marks.store(Mark::FirstBase, told.first_base);
    marks.store(Mark::LastBase, told.last_base);
    marks.store(Mark::Acked, told.acked);
}

/// The epoch, and how far its records are acknowledged.
pub(crate) fn acked(marks: &MarksMap) -> (u64, u64) {
    // In this order: whoever sees marks of an epoch then sees the epoch. See `begin`.
    let acked = marks.load(Mark::Acked);
    (marks.load(Mark::Epoch), acked)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_reader_sleeps_on_its_read_only_page_and_the_writer_wakes_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let writer = open_for_writing(dir.path(), [1; 16]).expect("a page");
        let reader = open_for_reading(dir.path()).expect("readable").expect("a page");
        let seen = reader.futex_value();
        assert!(reader.wait(seen, Duration::from_millis(1)), "the kernel cannot wait here");
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                while reader.futex_value() == seen {
                    assert!(reader.wait(seen, Duration::from_secs(60)));
                }
                acked(&reader)
            });
            std::thread::sleep(Duration::from_millis(20));
            begin(&writer, 3, &Told { acked: 4096, ..Told::default() });
            assert_eq!(sleeper.join().expect("no panic"), (3, 4096));
        });
    }

    #[test]
    fn marks_of_the_same_lane_outlive_their_writer_and_those_of_another_do_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let told = Told { acked: 8192, ..Told::default() };
        begin(&open_for_writing(dir.path(), [1; 16]).expect("a page"), 1, &told);
        let again = open_for_writing(dir.path(), [1; 16]).expect("a page");
        assert_eq!(acked(&again), (1, 8192));
        let other = open_for_writing(dir.path(), [2; 16]).expect("a page");
        assert_eq!(acked(&other), (0, 0));
    }
}
