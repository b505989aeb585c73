//! Identified to unique: an exact, bounded memory of the event keys of one lane.
//!
//! ```text
//! reserve (pending) -> append -> appended(end) (stored) -> the lane acks past end -> seen
//!         \-> dropped (vacant again): the append failed, the sender's retry is no duplicate
//! ```
//!
//! One [`Table`] a lane, shared by all receivers, safe Rust over atomics, no lock. The newest keys
//! are in memory, in blocks; those of a sealed block become a file beside the log, a generation. A key is a
//! 128-bit keyed fingerprint ([`Fingerprinter`]). "Stored" holds the lane offset that the lane's
//! acked watermark must reach, so whether a twin may be answered is read off the watermark and
//! needs no second write: [`Outcome::Seen`] says how far to wait. The table never forgets a key
//! inside its window; when it has no room it says [`Outcome::Full`] and counts it.
//!
//! # Blocks
//!
//! ```text
//!   spare        active          sealed, newest first (at most 7)          generations on disk
//!  [      ] --> [###   ] -seal-> [######] ... [######] --write, sync--> (####) (########) (####)
//!     ^                                |                                   merged, then removed
//!     +------------- freed, reused <---+                                   when a window old
//! ```
//!
//! New keys go to the active block. It is sealed when it is full or as old as the window, and
//! the spare takes its place. [`Table::tend`] writes a sealed block to a file once the log has all
//! its records on the medium, and replaces the one by the other in one step; while the disk does
//! not keep up up to seven blocks wait, a seventh of the capacity each, or some more of smaller ones;
//! new keys wait as well where more of the log than a start should read has no key in a file. Without a disk
//! ([`Table::new`]) a sealed block retires when it was sealed a window ago. A key therefore lives
//! at least one window and at most about two. [`Table::prepare`], called from a background thread, keeps a spare whose pages were touched;
//! a request makes one itself only when a whole block of keys came between two calls. Where blocks
//! are sealed before they are full, the next is smaller (`spares.rs`).
//!
//! # A slot
//!
//! Open addressing, linear probing from a home slot that the low word names, bounded. A key's
//! two words, once set, never change while the block lives:
//!
//! 1. compare-and-swap `low` from 0 to the key's low word, or find it equal;
//! 2. compare-and-swap `high` from 0 likewise; any thread that finds its own low word with no
//!    high word beside it may do so, so nobody waits for a thread that stopped between the two.
//!    Where another key's high word stands, probe on;
//! 3. compare-and-swap `state` from vacant to pending: the winner holds the [`Reservation`].
//!
//! All threads with one key pass the same slots, whose words do not change, and so stop at the
//! same slot: one block never holds a key twice.
//!
//! Zero means "not set", so a zero half is stored as 1. The keys (0, h) and (1, h) then share a
//! slot, as do (h, 0) and (h, 1). The chance that two given keys collide grows from 2^-128 to
//! 2^-128 (1 + 2^-62): as before, no pair of a trillion keys is expected to.
//!
//! # Two blocks, one key
//!
//! A thread that reserved in a block while another sealed it must not hold the only view of that
//! reservation. Two stores, two loads, a full fence between each pair (Dekker):
//!
//! ```text
//! reserving in block k                      rotating from k, then looking for the key
//!   state of the slot := pending              k.sealed_ns := now; publish the list k+1, [k, ..]
//!   fence(SeqCst)                             load the list; fence(SeqCst)
//!   k.sealed_ns? set -> withdraw, retry       the slot in k? pending or stored -> no reservation
//! ```
//!
//! Whichever fence comes second sees the other side's store: either the reserving thread finds
//! the seal and withdraws, or whoever works with the newer list finds the reservation. Both may
//! hold (then the second thread merely tries again), never neither. `loom.rs` explores it.
//!
//! Whoever writes a sealed block to a file does the same, and waits while a slot is pending: so
//! the file holds every reservation that was not withdrawn. Whoever makes the filter of a block does so behind the same fence as one who looks for
//! a key, so a reservation that the filter misses has been or will be withdrawn. A filter only
//! hastens a "no": what it lets through is looked up.
//!
//! # Atomics
//!
//! | atomic | written by | read by | ordering | what becomes visible |
//! |---|---|---|---|---|
//! | `low`, `high` of a slot | whoever claims it, once | all | CAS `AcqRel`, load Acquire | itself; immutable until the block is retired |
//! | `state` | winner of vacant to pending, then the winner alone | all | CAS `AcqRel`, store Release, load Acquire | the end offset (its own value) |
//! | `sealed_ns` of a block | first rotator, once | reserving threads, behind the fence | CAS and load Relaxed, ordered by the fences and by the list | that the block takes no more keys |
//! | `opened_ns` of a block | rotator; restore | prepare | Relaxed | nothing else: a time |
//! | `covers` of a block | prepare, while it is active | the writer of its file | Relaxed | nothing else: an offset; see `Block::cover` |
//! | `used` of a block | claiming threads | claiming threads, prepare, stats | Relaxed | nothing else: a count |
//! | `filter` of a sealed block | prepare, once, behind the fence | look-ups | `OnceLock` | every key that the block holds |
//! | the list | rotators, prepare and tend, by compare-and-swap | all | Release, Acquire (`ArcSwap`) | blocks zeroed before, seals set before |
//! | `keys` of the spares | who seals early or finds a block full | whoever makes a spare | Relaxed | nothing else: a number |
//! | `making` | whoever makes a spare | the same | swap Acquire, store Release | a hint: only one allocates |
//! | `refused` | threads that were refused | stats | Relaxed | nothing else: a count |
//! | `waits` | prepare | reserving threads | Relaxed | nothing else: a hint that a look later holds as well |
//!
//! What it does not do: it does not trust a file (what does not hold is read from the log again),
//! wait, or ask what time it is.
#![doc = include_str!("FORMAT.md")]

mod atomic;
mod fingerprint;
mod block;
mod format;
mod write;
mod generation;
mod merge;
mod generations;
mod reopen;
mod files;
mod steady;
mod spares;
mod list;
mod outcome;
mod table;
mod unique;

pub use fingerprint::{Fingerprinter, Origin, SecretError};
pub use outcome::{FileStats, Outcome, Restored, Stats};
pub use reopen::OpenError;
pub use steady::Steady;
pub use table::{Options, Reservation, Table};
pub use unique::{Delivery, Duplicate, Unique};

#[cfg(all(test, not(forebay_loom)))]
mod tests;

#[cfg(all(test, not(forebay_loom)))]
mod disk_tests;

#[cfg(all(test, forebay_loom))]
mod loom;
