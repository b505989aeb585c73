//! The log of forebay: segments of one lane, the writer that appends to them, the reader that
//! tails them from any process.

pub mod clock;

pub use clock::Clock;
