//! The log of forebay: segments of one lane, the writer that appends to them, the reader that
//! tails them from any process.
//!
//! A [`Lane`] is a directory with one writer. Its [`Appender`]s, one a thread, put records behind
//! one another without a lock; its keeper, one thread, does everything that takes time. A
//! [`Reader`] in any process follows, read-only.
//!
//! Beside these: a [`Cursor`] remembers how far a consumer has come, and retention waits for it; a
//! [`Purger`] erases payloads for good; [`verify`] and [`repair`] look after what a disk has done
//! to a lane; [`probe`] tells what a volume can promise.
//!
//! # Durability
//!
//! A record counts once [`Lane::acked`] has reached [`Appended::end`]. At [`AckLevel::Written`]
//! it then survives the death of the process, at [`AckLevel::Synced`] the loss of power. A sync
//! that fails is never tried again, because nobody can know what the medium holds: the records go
//! into another file, and if that fails too the lane has failed ([`LaneState::Failed`]) and
//! acknowledges nothing more.
//!
//! # Order
//!
//! All records of a lane have one order, that of their offsets, which every reader sees. Records
//! of one appender are in the order in which it appended them.
//!
//! # Duplicates
//!
//! The log keeps what it is given. A record that was appended and not acknowledged before a crash
//! may be there after it; see [`Lane::recovered_keys`].
//!
//! # Limits
//!
//! A record lies in one segment: at most the segment's size less 8192 bytes, header included. A
//! field of a meta section has at most 65535 bytes. An appender that rests keeps up to two old
//! segments mapped, and their space taken, until it appends again.
//!
//! # Watermarks
//!
//! ```text
//!   segment n                                  segment n + 1
//!   [ record | record | record | record ]      [ record | ....... ]
//!            ^                 ^        ^
//!            durable           published claimed
//! ```
#![doc = include_str!("../FORMAT.md")]
#![deny(unsafe_code)]

mod atomic;
pub mod clock;
pub mod planted;
mod format;
mod position;
mod meta;
mod fault;
mod mapping;
mod segment;
mod scan;
mod watermark;
mod stats;
mod shared;
mod append;
mod salvage;
mod keeper;
mod residency;
mod store;
mod marks;
mod volume;
mod recover;
mod lane;
mod record;
mod cursor;
mod tail;
mod inspect;
mod roll;
mod purge;
mod probe;
mod syncs;
mod restore;
mod repair;

#[cfg(test)]
mod golden;

#[cfg(all(test, any(forebay_loom, forebay_shuttle)))]
mod models;

pub use append::{AppendError, Appended, Appender, NewRecord};
pub use clock::{Clock, Look};
pub use cursor::{CURSORS_MAX, Cursor, CursorError, CursorFacts, Place, cursors, remove_cursor};
pub use format::{FORMAT_VERSION, RECORD_HEADER_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
pub use inspect::{
    Finding, FooterFacts, HeaderFacts, SegmentFacts, SegmentState, Severity, Verified, segments,
    verify,
};
pub use lane::{AckLevel, AgeSince, Lane, LaneOptions, OpenError, Recovered, Retention};
pub use mapping::{FileMap, tell_bus_errors};
pub use meta::{FieldTooLong, Fields, HeaderValue, Headers, Meta, MetaWriter, Tag};
pub use position::{Key, Kind, ParsePositionError, Position};
pub use probe::{SAMPLES_MAX, Trial, VolumeFacts, probe};
pub use purge::{Candidate, Erased, PurgeError, Purger};
pub use record::{Record, RecordRef};
pub use recover::Recovery;
pub use repair::{Cure, Repaired, Step, repair};
pub use shared::{Acked, LaneState, SUBSCRIBERS_MAX};
pub use stats::{Durations, LaneStats};
pub use syncs::{MapSync, SyncTrial};
pub use tail::{From, ReadError, Reader, Skipped};
pub use watermark::WatermarksRead;
