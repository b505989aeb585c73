//! How much of a lane stays in memory behind what was synced.
//!
//! Left to the kernel, a lane fills all memory with pages that were written once, and each new
//! page is memory that the machine has not touched lately, or on a virtual machine not at all:
//! there a first touch costs several times the store itself. Given back a little way behind the
//! newest records, the same few pages serve over and over. Tails that are close read from memory,
//! those far behind from the disk.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::format::PAGE_BYTES;
use crate::segment::Segment;
use crate::shared::Shared;

/// What stays in memory behind `durable`, in a lane of large segments. With what is made ready and
/// what is not synced yet it fits into the last cache of many processors: with 32 MiB the keeper
/// took a quarter more time a record, to zero pages that no cache held.
const RESIDENT_BYTES: u64 = 4 * 1024 * 1024;
/// Memory is given back in steps of this, at multiples of it: the kernel keeps pages together in
/// larger folios and gives none back that is only partly left.
const STEP_BYTES: u64 = 4 * 1024 * 1024;

/// What the keeper still has in memory.
#[derive(Debug)]
pub(crate) struct Residency {
    /// Segments of which some bytes are in memory, oldest first.
    segments: VecDeque<Arc<Segment>>,
    /// Memory below this was given back.
    left: u64,
    resident_bytes: u64,
    step_bytes: u64,
}

impl Residency {
    /// Of a lane with segments of this size; a quarter of a small one stays, so that the memory
    /// of segments that retention has removed is not held for long.
    pub(crate) fn new(segment_bytes: u64, from: u64) -> Self {
        let resident_bytes = RESIDENT_BYTES.min(segment_bytes / 4);
        let step_bytes = STEP_BYTES.min(resident_bytes).max(PAGE_BYTES);
        Self { segments: VecDeque::new(), left: from, resident_bytes, step_bytes }
    }

    /// Gives back what has come to lie far enough behind `durable`.
    pub(crate) fn follow(&mut self, shared: &Shared) {
        self.meet(shared);
        let target = shared.watermarks.durable().saturating_sub(self.resident_bytes);
        let target = target / self.step_bytes * self.step_bytes;
        if target <= self.left {
            return;
        }
        while let Some(oldest) = self.segments.front() {
            oldest.leave(self.left, target);
            if oldest.extent().end() > target {
                break;
            }
            self.segments.pop_front();
        }
        self.left = target;
    }

    /// Takes up segments that have come since.
    fn meet(&mut self, shared: &Shared) {
        let met = self.segments.back().map_or(self.left, |segment| segment.extent().end());
        shared.with_segments(|segments| {
            let new = segments.iter().filter(|segment| segment.extent().end() > met);
            self.segments.extend(new.cloned());
        });
    }
}
