//! The atomics of the table: those of the standard library, or loom's under `forebay_loom`.
//!
//! [`Published`] is the pointer to the current block list: loaded without a lock, replaced by
//! compare-and-swap. Under loom, which cannot see into `ArcSwap`, a lock stands in for it; it
//! promises no more than the release and acquire that the table relies on.

#[cfg(not(forebay_loom))]
pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

#[cfg(forebay_loom)]
pub(super) use ::loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

pub(super) use published::{Loaded, Published};

#[cfg(not(forebay_loom))]
mod published {
    use std::sync::Arc;

    use arc_swap::{ArcSwap, Guard};

    /// What was current when it was loaded; keeps it alive.
    pub(in super::super) type Loaded<T> = Guard<Arc<T>>;

    /// A value that is replaced whole.
    pub(in super::super) struct Published<T>(ArcSwap<T>);

    impl<T> Published<T> {
        pub(in super::super) fn new(value: T) -> Self {
            Self(ArcSwap::from_pointee(value))
        }

        pub(in super::super) fn load(&self) -> Loaded<T> {
            self.0.load()
        }

        /// Publishes `next` if `current` still is current.
        pub(in super::super) fn replace(&self, current: &Loaded<T>, next: T) -> bool {
            let before = self.0.compare_and_swap(current, Arc::new(next));
            Arc::ptr_eq(&before, current)
        }
    }
}

#[cfg(forebay_loom)]
mod published {
    use std::sync::Arc;

    use loom::sync::Mutex;

    pub(in super::super) type Loaded<T> = Arc<T>;

    pub(in super::super) struct Published<T>(Mutex<Arc<T>>);

    impl<T> Published<T> {
        pub(in super::super) fn new(value: T) -> Self {
            Self(Mutex::new(Arc::new(value)))
        }

        pub(in super::super) fn load(&self) -> Loaded<T> {
            self.0.lock().expect("no thread panics in the lock").clone()
        }

        pub(in super::super) fn replace(&self, current: &Loaded<T>, next: T) -> bool {
            let mut held = self.0.lock().expect("no thread panics in the lock");
            let same = Arc::ptr_eq(&held, current);
            if same {
                *held = Arc::new(next);
            }
            same
        }
    }
}
