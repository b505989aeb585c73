//! The log of forebay: segments of one lane, the writer that appends to them, the reader that
//! tails them from any process.
#![deny(unsafe_code)]

mod atomic;
pub mod clock;
mod format;
mod mapping;
mod position;
mod meta;
mod segment;
mod scan;
mod watermark;
mod stats;
mod shared;
mod append;
mod marks;
mod volume;
mod recover;
mod store;
mod keeper;
mod lane;
mod tail;

pub use append::{AppendError, Appended, Appender, NewRecord};
pub use clock::Clock;
pub use format::{FORMAT_VERSION, RECORD_HEADER_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
pub use lane::{
    AckLevel, Lane, LaneOptions, OpenError, Recovered, Retention, WatermarksRead as Watermarks,
};
pub use meta::{FieldTooLong, Fields, HeaderValue, Headers, Meta, MetaWriter, Tag};
pub use position::{Key, Kind, ParsePositionError, Position};
pub use recover::Recovery;
pub use shared::{Acked, LaneState, SUBSCRIBERS_MAX};
pub use stats::{Durations, LaneStats};
pub use tail::{From, ReadError, Reader, RecordRef, Skipped};
