//! The second half: what the log keeps, brought to sinks at their own pace.
//!
//! ```text
//! lane --> feed --> shape --> queue --> sink --> settle --> cursor
//!          (held)               ^         |
//!                               +---------+--> a dead letter
//!                               (again)
//! ```
//!
//! The drain reads the log as any other process could and runs on threads of its own: receivers
//! know nothing of it. Each sink has a cursor in every lane that it reads, so that a slow or dead
//! sink delays nobody, and retention keeps what it has not taken.

pub mod order;
pub mod sink;
pub mod sinks;
