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
//! know nothing of it, but that those of a lane which replicates wait for its [`crate::replica`]. Each sink has a cursor in every lane that it reads, so that a slow or dead
//! sink delays nobody, and retention keeps what it has not taken.
//!
//! | thread | how many | what it does |
//! |---|---|---|
//! | `forebay-drain` | one, two from two sinks on | the couriers: each sink stays on one of them |
//! | `forebay-feed` | one a sink and lane | reads, shapes, waits for memory |
//! | `forebay-dead` | one a sink | keeps dead letters, and counts those that wait |
//! | `forebay-redrive` | one a sink that redrives by itself | brings dead letters once more |
//! | `forebay-cursors` | one | commits cursors |
//! | `forebay-letters` | one a lane that replicates | takes back what was redriven or discarded |

pub mod order;
pub mod sink;
pub mod sinks;
pub mod feed;
pub mod shape;
pub mod dead;
pub mod letters;
mod tally;
mod settle;
mod queue;
mod limit;
mod attempt;
mod retry;
mod circuit;
mod rate;
mod courier;
mod cursors;
mod given_up;
mod runner;
mod start;
pub mod errand;
pub mod redrive;

pub use feed::{Payload, Raw, Shaping};
pub(crate) use start::cursor_name;
pub use start::{Drain, DrainError, Ground, LaneOf};

#[cfg(test)]
pub(crate) mod testing;
