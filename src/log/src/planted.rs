//! Faults that are planted on purpose: points at which the process dies, and bugs that some
//! harness has to catch. Only in a build with `--cfg forebay_fault`; in any other both functions
//! are empty and leave nothing behind.
//!
//! `FOREBAY_DIE_AT=committed:700` ends the process at the 700th passing of a point, as `kill -9`
//! would. `FOREBAY_BUG=sync-skipped` plants a bug. The campaigns of `forebay-torture` set them.

/// A point at which the process can be made to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "`name` says it")]
pub enum Point {
    Claimed,
    Stored,
    Committed,
    Published,
    Rolled,
    Allocated,
    Filled,
    Named,
    NameSynced,
    Syncing,
    Synced,
    Durable,
    Told,
    Sealing,
    FooterWritten,
    Sealed,
    Unlinking,
    Unlinked,
    Planned,
    RecoverySynced,
    RecoverySealed,
    LeftoverRemoved,
    Recovered,
    CursorMade,
    CursorWritten,
    CursorSynced,
    Reserved,
    GenerationBegun,
    GenerationWritten,
    GenerationNamed,
    GenerationOpened,
    GenerationPublished,
    MergePublished,
}

impl Point {
    /// Where a record is appended, once or more for each.
    pub const APPEND: [Self; 4] = [Self::Claimed, Self::Stored, Self::Committed, Self::Published];
    /// Where records are synced and told of.
    pub const SYNC: [Self; 4] = [Self::Syncing, Self::Synced, Self::Durable, Self::Told];
    /// Where a segment is made, left, sealed and retired.
    pub const SEGMENT: [Self; 10] = [
        Self::Allocated,
        Self::Filled,
        Self::Named,
        Self::NameSynced,
        Self::Rolled,
        Self::Sealing,
        Self::FooterWritten,
        Self::Sealed,
        Self::Unlinking,
        Self::Unlinked,
    ];
    /// Where a lane is recovered.
    pub const RECOVERY: [Self; 5] = [
        Self::Planned,
        Self::RecoverySynced,
        Self::RecoverySealed,
        Self::LeftoverRemoved,
        Self::Recovered,
    ];
    /// Where a cursor is written.
    pub const CURSOR: [Self; 3] = [Self::CursorMade, Self::CursorWritten, Self::CursorSynced];
    /// Where the keys of events are written beside the log.
    pub const DEDUPE: [Self; 7] = [
        Self::Reserved,
        Self::GenerationBegun,
        Self::GenerationWritten,
        Self::GenerationNamed,
        Self::GenerationOpened,
        Self::GenerationPublished,
        Self::MergePublished,
    ];

    /// Its name in `FOREBAY_DIE_AT`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Stored => "stored, before the commit word",
            Self::Committed => "committed, before published moves",
            Self::Published => "published",
            Self::Rolled => "rolled, before the rest is padded",
            Self::Allocated => "segment allocated",
            Self::Filled => "segment synced, before its name",
            Self::Named => "segment named, before its directory is synced",
            Self::NameSynced => "segment made",
            Self::Syncing => "before a sync",
            Self::Synced => "behind a sync, before durable moves",
            Self::Durable => "durable moved, before it is told",
            Self::Told => "told",
            Self::Sealing => "before a footer",
            Self::FooterWritten => "footer written, before its sync",
            Self::Sealed => "sealed",
            Self::Unlinking => "before an unlink",
            Self::Unlinked => "unlinked, before its directory is synced",
            Self::Planned => "recovery planned",
            Self::RecoverySynced => "recovery: records synced, before their footer",
            Self::RecoverySealed => "recovery: a segment sealed",
            Self::LeftoverRemoved => "recovery: a leftover removed",
            Self::Recovered => "recovered, before the first segment",
            Self::CursorMade => "cursor made, still empty",
            Self::CursorWritten => "cursor written, before its sync",
            Self::CursorSynced => "cursor synced",
            Self::Reserved => "key reserved, before its append",
            Self::GenerationBegun => "generation begun",
            Self::GenerationWritten => "generation synced, before its name",
            Self::GenerationNamed => "generation named, before its folder is synced",
            Self::GenerationOpened => "generation durable, before it is listed",
            Self::GenerationPublished => "generation listed",
            Self::MergePublished => "generations merged, before the old ones go",
        }
    }
}

/// A bug, and where it stands. ARCHITECTURE.md says which harness catches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "`name` says it")]
pub enum Bug {
    PublishRelaxed,
    DurableRelaxed,
    PublishUnfenced,
    WalkNotRepeated,
    SyncSkipped,
    AckBeforeSync,
    SegmentUnsynced,
    SyncRetried,
    PayloadUnchecked,
    TombstoneIgnored,
    EpochKept,
    CursorUnsynced,
    SealUnseen,
    ReservationKept,
    BlockGoneEarly,
    CoversTooMuch,
    SignedKeyUnread,
    CodingUsual,
    LengthTwice,
    FormUnread,
    LengthKept,
    BodyOverread,
}

impl Bug {
    /// Its name in `FOREBAY_BUG`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PublishRelaxed => "publish-relaxed",
            Self::DurableRelaxed => "durable-relaxed",
            Self::PublishUnfenced => "publish-unfenced",
            Self::WalkNotRepeated => "walk-not-repeated",
            Self::SyncSkipped => "sync-skipped",
            Self::AckBeforeSync => "ack-before-sync",
            Self::SegmentUnsynced => "segment-unsynced",
            Self::SyncRetried => "sync-retried",
            Self::PayloadUnchecked => "payload-unchecked",
            Self::TombstoneIgnored => "tombstone-ignored",
            Self::EpochKept => "epoch-kept",
            Self::CursorUnsynced => "cursor-unsynced",
            Self::SealUnseen => "seal-unseen",
            Self::ReservationKept => "reservation-kept",
            Self::BlockGoneEarly => "block-gone-early",
            Self::CoversTooMuch => "covers-too-much",
            Self::SignedKeyUnread => "signed-key-unread",
            Self::CodingUsual => "coding-usual",
            Self::LengthTwice => "length-twice",
            Self::FormUnread => "form-unread",
            Self::LengthKept => "length-kept",
            Self::BodyOverread => "body-overread",
        }
    }
}

pub use active::{PLANTED, has, pass};

#[cfg(not(forebay_fault))]
mod active {
    use super::{Bug, Point};

    /// Whether this build can be made to fail on purpose.
    pub const PLANTED: bool = false;

    /// Dies here, if it was told to.
    #[inline]
    pub const fn pass(_: Point) {}

    /// Whether this bug is planted.
    #[inline]
    pub const fn has(_: Bug) -> bool {
        false
    }
}

#[cfg(forebay_fault)]
mod active {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{Bug, Point};

    /// Whether this build can be made to fail on purpose.
    pub const PLANTED: bool = true;

    /// Where to die, by name, and how often the place is to be passed until then.
    static DEATH: LazyLock<Option<(String, AtomicU64)>> = LazyLock::new(|| {
        let told = std::env::var("FOREBAY_DIE_AT").ok()?;
        let (name, nth) = told.rsplit_once(':')?;
        Some((name.to_owned(), AtomicU64::new(nth.parse().ok()?)))
    });
    static BUG: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("FOREBAY_BUG").ok());

    /// Dies here, if it was told to.
    pub fn pass(place: Point) {
        let Some((name, left)) = &*DEATH else { return };
        // Relaxed: a lone count.
        if name == place.name() && left.fetch_sub(1, Ordering::Relaxed) == 1 {
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
            loop {
                // The signal is on its way: nothing behind this place may happen.
                std::thread::park();
            }
        }
    }

    /// Whether this bug is planted.
    pub fn has(bug: Bug) -> bool {
        BUG.as_deref() == Some(bug.name())
    }
}
