//! The atomics of the log's protocol: the core library's, or loom's under `cfg(forebay_loom)`.
//!
//! Only what the model in `watermark` exercises goes through here. The words inside a mapping are
//! always the core library's, because loom cannot place its atomics at an address.

#[cfg(not(forebay_loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};

#[cfg(forebay_loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
