//! How a purge asks a running writer to seal what it still writes.
//!
//! The one who purges puts the file `seal` into the lane's directory, whose owner alone can do
//! that: an offset, in decimal digits. The keeper finds it within half a second, leaves the
//! current segment early if that lies below the offset, and removes the file. What follows is the
//! usual roll: a filler, a sync, a footer.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use crate::append;
use crate::segment;
use crate::shared::Shared;
use crate::watermark::Claimed;

/// The name of the request in a lane's directory.
const SEAL_FILE: &str = "seal";
/// More digits than an offset has.
const DIGITS_MAX: u64 = 24;

/// Asks whoever writes the lane to seal everything below `offset`.
pub(crate) fn ask(dir: &Path, offset: u64) -> io::Result<()> {
    let beside = dir.join("seal.new");
    let mut file = segment::writing().create(true).truncate(true).open(&beside)?;
    file.write_all(offset.to_string().as_bytes())?;
    fs::rename(beside, dir.join(SEAL_FILE))
}

/// Takes the question back.
pub(crate) fn withdraw(dir: &Path) {
    // Usually the writer has removed it; if it stays it asks for what is sealed already.
    let _ = fs::remove_file(dir.join(SEAL_FILE));
}

/// The offset below which everything should be sealed, if somebody asks for that.
pub(crate) fn asked(dir: &Path) -> Option<u64> {
    let file = File::open(dir.join(SEAL_FILE)).ok()?;
    let mut text = String::new();
    file.take(DIGITS_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Leaves the current segment, if it holds something below `to`, and removes the request: true
/// once that is done. Where the next segment is not there yet the request stays for the next time.
///
/// A request that comes between its being read and its removal goes with it. So whoever asks does
/// it again while nothing happens.
pub(crate) fn leave_below(shared: &Shared, dir: &Path, to: u64) -> bool {
    let Claimed::At(from) = shared.watermarks.next_claim() else { return false };
    let Some(segment) = shared.segment_at(from) else { return false };
    let extent = segment.extent();
    let nothing_below = extent.first() >= to || from == extent.first();
    let left = nothing_below || append::roll(shared, &segment, from).is_ok();
    if left {
        withdraw(dir);
    }
    left
}
