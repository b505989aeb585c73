//! The atomics of the log's protocol: the core library's, loom's under `cfg(forebay_loom)`, or
//! shuttle's under `cfg(forebay_shuttle)`.
//!
//! Only what the models in `watermark` exercise goes through here. The words inside a mapping are
//! always the core library's, because neither can place its atomics at an address.

#[cfg(not(any(forebay_loom, forebay_shuttle)))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};

#[cfg(forebay_loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};

#[cfg(forebay_shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicU64, Ordering, fence};
