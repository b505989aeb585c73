//! What it costs to bring a group of records to the medium, by each way there is to do it.
//!
//! Every way does the whole of it, for one group behind another: the records are copied to where
//! they go in a file that was allocated ahead, and are durable at the end. The ways take turns, a
//! group each, so that whatever else the machine does falls on all of them alike. What is told is
//! the median of each, and the median of its ratio to what the log does, round by round.
//!
//! Nothing is broken here, and no time fails a run: the figures are for a table.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::mem::ManuallyDrop;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use forebay_log::{Clock, MapSync, SyncTrial};
use monoio::{IoUringDriver, Runtime, RuntimeBuilder};
use rustix::fs::{FallocateFlags, OFlags};

use crate::report::{Report, Stop, say};

/// Group sizes in bytes.
const SIZES: [u64; 3] = [4 << 10, 64 << 10, 1 << 20];
const PAGE_BYTES: usize = 4 << 10;
/// Pages of a segment that hold no records.
const EXTRA_BYTES: u64 = 2 << 12;
/// Rounds that are not counted: files are young, and memory is not there yet.
const WARM: u64 = 3;

const NAMES: [&str; 7] = [
    "map, msync of the range (the log)",
    "map, fdatasync",
    "map, sync_file_range, fdatasync",
    "pwrite, fdatasync",
    "pwrite with O_DSYNC",
    "pwrite with O_DIRECT and O_DSYNC",
    "io_uring: pwrite, fdatasync",
];

/// Memory as `O_DIRECT` wants it.
#[derive(Clone)]
#[repr(align(4096))]
struct Page([u8; PAGE_BYTES]);

/// A file that was allocated ahead, and the next group for it.
struct Target {
    file: File,
    at: u64,
    body: Vec<u8>,
}

/// One way, ready to carry out a group.
enum Way {
    /// Stores into a mapping.
    Map(MapSync, Box<SyncTrial>),
    /// `pwrite`, then `fdatasync`.
    Write(Target),
    /// `pwrite` into a file that was opened so that this is all.
    WriteThrough(Target),
    /// The same past the page cache: what a mapping in memory and a writer beside it would do.
    Direct(Target, Vec<Page>),
    /// The calls of `Write` through a ring.
    Ring(ManuallyDrop<Runtime<IoUringDriver>>, Target),
}

/// Measures so many groups of each size in `dir`.
pub(crate) fn run(dir: &Path, rounds: u64, seed: u64) -> Result<Report, Stop> {
    let mut report = Report::new("syncs", seed);
    for bytes in SIZES {
        let folder = tempfile::Builder::new().prefix("forebay-torture-").tempdir_in(dir)?;
        let mut ways = ways(folder.path(), bytes, rounds + WARM)?;
        let mut took: Vec<Vec<Duration>> = vec![Vec::new(); ways.len()];
        for round in 0..rounds + WARM {
            for (way, took) in ways.iter_mut().zip(&mut took) {
                let once = way.group()?;
                if round >= WARM {
                    took.push(once);
                }
            }
            report.progress(|| format!("{bytes} bytes: round {round}"));
        }
        tell(bytes, &took, &mut report);
    }
    Ok(report)
}

fn ways(dir: &Path, bytes: u64, groups: u64) -> io::Result<Vec<Way>> {
    let all = bytes * groups;
    let map = |how| Ok(Way::Map(how, Box::new(SyncTrial::create(dir, all + EXTRA_BYTES, bytes)?)));
    let target = |name: &str, flags: OFlags| Target::create(&dir.join(name), flags, all, bytes);
    let mut ways: Vec<Way> = [MapSync::Msync, MapSync::Datasync, MapSync::RangeThenDatasync]
        .into_iter()
        .map(map)
        .collect::<io::Result<_>>()?;
    ways.push(Way::Write(target("write", OFlags::empty())?));
    ways.push(Way::WriteThrough(target("write-through", OFlags::DSYNC)?));
    let direct = target("direct", OFlags::DIRECT | OFlags::DSYNC)?;
    let pages = vec![Page([0xa5; PAGE_BYTES]); direct.body.len() / PAGE_BYTES];
    ways.push(Way::Direct(direct, pages));
    match RuntimeBuilder::<IoUringDriver>::new().build() {
        Ok(ring) => {
            // Never dropped: what is still in it would be freed under the kernel.
            ways.push(Way::Ring(ManuallyDrop::new(ring), target("ring", OFlags::empty())?));
        }
        Err(error) => say(&format!("no io_uring here: {error}")),
    }
    Ok(ways)
}

impl Target {
    /// A file with room for everything, on the medium, as a segment is.
    fn create(path: &Path, flags: OFlags, all: u64, bytes: u64) -> io::Result<Self> {
        let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
        let options = OpenOptions::new().write(true).create_new(true).custom_flags(flags).clone();
        let file = options.open(path)?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, all)?;
        file.sync_all()?;
        let body = vec![0xa5; usize::try_from(bytes).map_err(io::Error::other)?];
        Ok(Self { file, at: 0, body })
    }

    /// Where the next group goes.
    fn next(&mut self) -> u64 {
        let at = self.at;
        self.at += self.body.len() as u64;
        at
    }
}

impl Way {
    /// Brings one group to the medium; how long that took.
    fn group(&mut self) -> io::Result<Duration> {
        let clock = Clock::System;
        let began = clock.monotonic();
        match self {
            Self::Map(how, trial) => {
                let range = trial.store()?.ok_or(io::ErrorKind::StorageFull)?;
                trial.sync(*how, range)?;
            }
            Self::Write(target) => {
                let at = target.next();
                target.file.write_all_at(&target.body, at)?;
                target.file.sync_data()?;
            }
            Self::WriteThrough(target) => {
                let at = target.next();
                target.file.write_all_at(&target.body, at)?;
            }
            Self::Direct(target, pages) => {
                let at = target.next();
                let pages: Vec<_> = pages.iter().map(|page| IoSlice::new(&page.0)).collect();
                let written = rustix::io::pwritev(&target.file, &pages, at)?;
                if written < target.body.len() {
                    return Err(io::ErrorKind::WriteZero.into());
                }
            }
            Self::Ring(ring, target) => return by_ring(ring, target),
        }
        Ok(clock.monotonic().saturating_duration_since(began))
    }
}

fn by_ring(ring: &mut Runtime<IoUringDriver>, target: &mut Target) -> io::Result<Duration> {
    let at = target.next();
    let body = std::mem::take(&mut target.body);
    let file = target.file.try_clone()?;
    let (body, took) = ring.block_on(async move {
        let clock = Clock::System;
        let file = monoio::fs::File::from_std(file)?;
        let began = clock.monotonic();
        let (written, body) = file.write_all_at(body, at).await;
        written?;
        file.sync_data().await?;
        let took = clock.monotonic().saturating_duration_since(began);
        file.close().await?;
        Ok::<_, io::Error>((body, took))
    })?;
    target.body = body;
    Ok(took)
}

/// The middle one; nothing of no values.
fn median<T: Copy + PartialOrd>(mut values: Vec<T>) -> Option<T> {
    values
        .sort_unstable_by(|one, other| one.partial_cmp(other).unwrap_or(std::cmp::Ordering::Equal));
    values.get(values.len() / 2).copied()
}

/// A line for each way.
fn tell(bytes: u64, took: &[Vec<Duration>], report: &mut Report) {
    let Some(log) = took.first() else { return };
    for (name, took) in NAMES.iter().zip(took) {
        let ratios = took.iter().zip(log).map(|(one, log)| one.as_secs_f64() / log.as_secs_f64());
        let (Some(middle), Some(ratio)) = (median(took.clone()), median(ratios.collect())) else {
            continue;
        };
        let us = u64::try_from(middle.as_micros()).unwrap_or(u64::MAX);
        say(&format!("{:>5} KiB  {name:<34} {us:>8} us  x {ratio:.2}", bytes / 1024));
        report.count(&format!("{:>5} KiB: {name}: median us", bytes / 1024), us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_brings_a_group_to_the_medium() {
        let dir = tempfile::tempdir().expect("a folder");
        let report = run(dir.path(), 1, 0).expect("measured");
        let figure = |name: &str| report.figure(&format!("   64 KiB: {name}: median us"));
        assert!(NAMES.iter().take(6).all(|name| figure(name) > 0));
        assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 0);
    }
}
