//! What the table says: to a key, of a key found at the start, and of itself.

use super::table::Reservation;

/// What the table says to a key.
#[derive(Debug)]
#[must_use]
pub enum Outcome {
    /// New: append it, then say where.
    Reserved(Reservation),
    /// Stored by a twin, which is acknowledged once the lane's acked watermark reaches `end`.
    Seen {
        /// The offset that the twin's record does not end before: as `end`, where it is known.
        first: u64,
        /// The offset behind the twin's record, or behind that of a later event.
        end: u64,
    },
    /// A twin is between reserve and append, or room is being made, or the key may be in a file
    /// that is being mended: ask again in a millisecond.
    Pending,
    /// No room to remember another key inside the window, or none until the files have caught up.
    Full,
}

/// What became of a key found in the log at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Restored {
    /// Remembered.
    Stored,
    /// Remembered already.
    Known,
    /// Received a window ago or longer.
    Old,
    /// No room: `dedupe_capacity` is smaller than what the log holds inside the window. The key
    /// is not remembered, so a table that said this must not serve as exact.
    Full,
}

/// A moment of the table, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Slots in use; keys whose append failed count until their block retires.
    pub keys: u64,
    /// Keys that memory holds at most.
    pub capacity: u64,
    /// Blocks that look-ups visit: the active one and the sealed ones.
    pub blocks: u64,
    /// The generations on disk.
    pub files: FileStats,
    /// Times that `Full` was said.
    pub refused: u64,
}

/// A moment of the generations on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileStats {
    /// Generations that look-ups visit.
    pub generations: u64,
    /// Keys in them; one that stands in two counts twice.
    pub keys: u64,
    /// Bytes of their filters and indices, which the page cache holds.
    pub guide_bytes: u64,
    /// Generations whose records retention has removed from the log: they alone know them.
    pub unbacked: u64,
    /// Generations that were missing or damaged and were made again from the log.
    pub rebuilt: u64,
    /// Of those, damaged ones of whose records the log no longer held all.
    pub lost: u64,
    /// Times that keys could not be written, merged or mended; tried again.
    pub failures: u64,
}
