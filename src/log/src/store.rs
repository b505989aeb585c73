//! The segments of a lane over their life: made before they are needed, filled ahead, counted,
//! sealed, retired. Used by the keeper's thread alone.
//!
//! The disk is asked before it is full. Below the low-water mark the lane is [`LaneState::Full`],
//! with room left in the current segment for what producers are already storing; when space
//! returns the lane opens again by itself. Retention unlinks and never shortens a file, so a
//! reader that has one mapped can finish it.

mod retire;

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::format::{Footer, KIND_PAD, PAGE_BYTES, RecordHeader, seed_of};
use crate::lane::{AckLevel, AgeSince, LaneOptions, Retention, random};
use crate::mapping::HUGE_BYTES;
use crate::planted::{self, Point};
use crate::recover::{Plan, Sealed, Tally};
use crate::residency::Residency;
use crate::roll;
use crate::salvage;
use crate::segment::{self, Extent, Identity, Segment, sync_dir};
use crate::shared::{LaneState, Shared};
use crate::volume::{self, Volume};
use crate::watermark::Claimed;

/// How far ahead of the claims pages are made ready, so that producers do not fault.
const READY_BYTES: u64 = 8 * 1024 * 1024;
const _: () = assert!(READY_BYTES >= 2 * READY_STEP_BYTES, "a step at least stays ready");
/// Pages are made ready in steps of this, at multiples of it. Steps of 1 MiB cost ten times as
/// much (5.6 against 0.6 us of CPU a page on ext4): the kernel then reads ahead by itself.
const READY_STEP_BYTES: u64 = 4 * 1024 * 1024;
/// Where a step is used up within this, the next is made ready in huge pages: made, written and
/// given back whole, they cost the keeper a third less. The kernel writes a huge page whole for
/// each sync of a byte in it. So only at ack level written, which syncs by the 4 MiB or more
/// then; and the few that are ready when such a burst ends cost 2 MiB for each second with a record
/// in it.
const FAST_STEP: Duration = Duration::from_millis(100);
/// The next segment is made once so much of the current one is claimed: well before half.
const NEXT_AT_FRACTION: u64 = 4;
/// No segment is made ahead of a medium that is further behind than this, or than two segments:
/// what the kernel has to write stays bounded, and it puts nobody to sleep who stores.
const UNSYNCED_BYTES_STOP: u64 = 256 * 1024 * 1024;
/// How often the file system is asked how much room it has.
const ROOM_EVERY: Duration = Duration::from_millis(250);
/// A medium that fails so often in a row, with that pause in between, makes no segment any more.
const BROKEN_TRIES_MAX: u32 = 3;
/// The segments of one lane.
#[derive(Debug)]
pub(crate) struct Store {
    shared: Arc<Shared>,
    dir: PathBuf,
    lane_id: [u8; 16],
    epoch: u32,
    segment_bytes: u64,
    reserve_bytes: Option<u64>,
    retention: Retention,
    age_since: AgeSince,
    kept_for: Option<String>,
    no_cow: bool,
    /// Sealed segments, oldest first; those that are not sealed are in the shared table.
    sealed: VecDeque<Sealed>,
    next_base: u64,
    next_sequence: u64,
    /// Up to here pages have been made ready.
    ready: u64,
    /// When that was last.
    readied: Option<Instant>,
    residency: Residency,
    /// Up to here records have been counted, in the oldest segment of the table.
    counted: u64,
    tally: Tally,
    looked: Option<Instant>,
    /// The disk is below its low-water mark.
    low: bool,
    /// The next segment could not be made.
    blocked: bool,
    /// A footer could not be written for want of room, as under a limit on file sizes.
    seal_blocked: bool,
    /// How often in a row a segment could not be made because the medium failed.
    broken_tries: u32,
    /// Segments that are sealed and that some producer may still hold.
    left: Vec<Arc<Segment>>,
    retired: Option<Instant>,
    /// A purge waits until everything below this offset is in sealed segments.
    seal_asked: Option<u64>,
}

impl Store {
    pub(crate) fn new(
        shared: Arc<Shared>,
        dir: &Path,
        options: &LaneOptions,
        volume: Volume,
        plan: Plan,
    ) -> io::Result<Self> {
        let lane_id = plan.lane_id.map_or_else(random, Ok)?;
        let first = shared.watermarks.claimed();
        Ok(Self {
            shared,
            dir: dir.to_owned(),
            lane_id,
            epoch: plan.recovery.epoch,
            segment_bytes: options.segment_bytes,
            reserve_bytes: options.disk_reserve_bytes,
            retention: options.retention,
            age_since: options.age_since,
            kept_for: options.kept_for.clone(),
            no_cow: volume.copies_on_write(),
            sealed: plan.sealed.into(),
            next_base: plan.next_base,
            next_sequence: plan.next_sequence,
            ready: first,
            readied: None,
            residency: Residency::new(options.segment_bytes, first),
            counted: first,
            tally: Tally::default(),
            looked: None,
            low: false,
            blocked: false,
            seal_blocked: false,
            broken_tries: 0,
            left: Vec::new(),
            retired: None,
            seal_asked: None,
        })
    }

    pub(crate) fn lane_id(&self) -> [u8; 16] {
        self.lane_id
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The bases of the oldest and of the newest segment.
    pub(crate) fn bases(&self) -> (u64, u64) {
        let (first, last) = self.shared.with_segments(|segments| {
            let base = |segment: Option<&Arc<Segment>>| segment.map(|known| known.extent().base);
            (base(segments.first()), base(segments.last()))
        });
        let sealed = |sealed: Option<&Sealed>| sealed.map(|known| known.extent().base);
        let first = sealed(self.sealed.front()).or(first).unwrap_or(self.next_base);
        (first, last.or(sealed(self.sealed.back())).unwrap_or(self.next_base))
    }

    /// Does everything that is due.
    pub(crate) fn tend(&mut self) {
        self.look_for_room();
        if self.shared.state() != LaneState::Failed {
            self.make_next();
            self.seal_asked =
                self.seal_asked.filter(|to| !roll::leave_below(&self.shared, &self.dir, *to));
            self.make_ready();
            self.count_and_seal();
            self.residency.follow(&self.shared);
        }
        self.retire_if_due();
        let full = self.low || self.blocked || self.seal_blocked;
        self.shared.set_state(if full { LaneState::Full } else { LaneState::Open });
        // Unmapping takes its time: done here, once the last producer has left the segment.
        self.left.retain(|segment| Arc::strong_count(segment) > 1);
    }

    /// Asks the file system now and then how much room it has.
    fn look_for_room(&mut self) {
        let now = self.shared.clock.monotonic();
        if self.looked.is_some_and(|at| now.saturating_duration_since(at) < ROOM_EVERY) {
            return;
        }
        self.looked = Some(now);
        self.seal_asked = roll::asked(&self.dir);
        // What could not be made or sealed is tried again.
        self.blocked = false;
        self.seal_blocked = false;
        self.low = match self.room() {
            Ok((available, reserve)) => {
                self.shared.stats.available_bytes.set(available);
                // Once full, a little more is asked for, so that the state does not flutter.
                let again = reserve.saturating_add(self.segment_bytes);
                available < if self.low { again } else { reserve }
            }
            // A file system that does not answer is not one to promise anything on.
            Err(_) => true,
        };
    }

    /// Bytes that the disk has, and those that must stay free.
    fn room(&self) -> io::Result<(u64, u64)> {
        let room = volume::room(&self.dir)?;
        let reserve = self
            .reserve_bytes
            .unwrap_or_else(|| (room.all_bytes / 20).max(self.segment_bytes.saturating_mul(2)));
        Ok((room.available_bytes, reserve))
    }

    /// Makes the next segment, if the last one has begun to fill.
    fn make_next(&mut self) {
        let claimed = self.shared.watermarks.claimed();
        let due = self.shared.with_segments(|segments| {
            segments.last().is_none_or(|last| {
                let Extent { base, bytes } = last.extent();
                let asked = self.seal_asked.is_some_and(|to| base < to && base < claimed);
                asked || claimed >= base + bytes / NEXT_AT_FRACTION
            })
        });
        let behind = claimed.saturating_sub(self.shared.watermarks.durable());
        let slow = behind > UNSYNCED_BYTES_STOP.max(self.segment_bytes.saturating_mul(2));
        if !due || slow || self.low || self.blocked {
            return;
        }
        match self.needs_room().and_then(|()| self.create_next()) {
            Ok(()) => self.broken_tries = 0,
            Err(error) if volume::is_broken(&error) && self.broken_tries >= BROKEN_TRIES_MAX => {
                self.fail(&self.dir.join(segment::file_name(self.next_base)), &error);
            }
            // Tried again soon. Nothing that was acknowledged lies in what could not be made.
            Err(error) => {
                self.broken_tries += u32::from(volume::is_broken(&error));
                self.blocked = true;
            }
        }
    }

    /// An error if the next segment would take what must stay free.
    fn needs_room(&self) -> io::Result<()> {
        let (available, reserve) = self.room()?;
        let enough = available >= reserve.max(self.segment_bytes);
        if enough { Ok(()) } else { Err(rustix::io::Errno::NOSPC.into()) }
    }

    fn create_next(&mut self) -> io::Result<()> {
        let segment = Segment::create(&self.dir, self.next_identity()?, self.no_cow)?;
        self.next_base = segment.extent().end();
        self.next_sequence += 1;
        self.shared.add_segment(Arc::new(segment));
        self.shared.stats.segments_created.add(1);
        self.count_bytes();
        Ok(())
    }

    /// Saves the records of a segment of which a sync has failed, and tells up to where they are
    /// durable by that; nothing if the lane has failed.
    pub(crate) fn salvage(&mut self, failed: &Arc<Segment>, error: &io::Error) -> Option<u64> {
        self.shared.stats.sync_failures.add(1);
        let behind = failed.extent().end() + PAGE_BYTES;
        let closed = self.shared.watermarks.next_claim() == Claimed::Closed;
        let next = self.shared.segment_from(failed.extent().end());
        // For this the reserve may be used.
        let ready = if closed || next.is_some() { Ok(()) } else { self.create_next() };
        let fresh =
            ready.and_then(|()| salvage::salvage(&self.shared, &self.dir, failed, self.no_cow));
        let Ok(fresh) = fresh else {
            salvage::note_suspect(&self.dir);
            self.fail(failed.path(), error);
            return None;
        };
        self.shared.replace_segment(&Arc::new(fresh));
        self.shared.stats.salvages.add(1);
        self.left.push(Arc::clone(failed));
        Some(self.shared.watermarks.published().min(behind))
    }

    fn fail(&self, path: &Path, error: &io::Error) {
        self.shared.fail(|| {
            let cure = volume::cure(error);
            format!("{}: {error}{cure}; then restart", path.display())
        });
    }

    fn next_identity(&self) -> io::Result<Identity> {
        let salt = u64::from_le_bytes(random()?);
        Ok(Identity {
            lane_id: self.lane_id,
            sequence: self.next_sequence,
            epoch: self.epoch,
            extent: Extent { base: self.next_base, bytes: self.segment_bytes },
            salt,
            seed: seed_of(salt),
            created_ns: self.shared.clock.wall_ns(),
            ack: self.shared.ack as u8,
        })
    }

    /// Makes pages ready ahead of the claims.
    fn make_ready(&mut self) {
        let claimed = self.shared.watermarks.claimed();
        self.ready = self.ready.max(claimed / PAGE_BYTES * PAGE_BYTES);
        let last_end = self.shared.with_segments(|segments| {
            segments.last().map_or(0, |segment| segment.extent().record_end())
        });
        let ahead = claimed.saturating_add(READY_BYTES) / READY_STEP_BYTES * READY_STEP_BYTES;
        let target = ahead.min(last_end);
        if self.ready >= target {
            return;
        }
        let now = self.shared.clock.monotonic();
        let before = self.readied.replace(now);
        let fast = before.is_some_and(|before| now.saturating_duration_since(before) < FAST_STEP);
        let huge = fast && self.shared.ack == AckLevel::Written;
        while self.ready < target {
            let Some(segment) = self.shared.with_segments(|segments| {
                segments.iter().find(|segment| segment.extent().end() > self.ready).cloned()
            }) else {
                return;
            };
            let extent = segment.extent();
            let from = self.ready.max(extent.first());
            // A page that the machine has not touched lately takes long, and the kernel does not
            // stop within one: so one by one, and whoever shares the core has turns in between.
            let page_end = (from - extent.base + 1).next_multiple_of(HUGE_BYTES) + extent.base;
            let step_end = if huge { target.min(page_end) } else { target };
            let to = step_end.min(extent.end()).next_multiple_of(PAGE_BYTES).max(from);
            if huge {
                std::thread::yield_now();
                segment.map.prefer_huge(from - extent.base, to - from);
            }
            let made = segment.map.make_ready(from - extent.base, to - from);
            // A page that the disk cannot back kills whoever stores into it. Other errors mean
            // that the kernel does not know how; then producers fault, and that is all.
            if let Err(error) = made
                && volume::is_no_room(&error)
            {
                return self.fail(segment.path(), &error);
            }
            self.ready = to.max(self.ready + PAGE_BYTES);
        }
    }

    /// Counts the records of the oldest segment, and seals it once it is behind `durable`.
    fn count_and_seal(&mut self) {
        loop {
            let Some(oldest) = self.shared.with_segments(|segments| segments.first().cloned())
            else {
                return;
            };
            self.count(&oldest, self.shared.watermarks.published());
            // Beyond its end: whoever rolled has left it, and no claim starts in it any more.
            if self.shared.watermarks.durable() <= oldest.extent().end() {
                return;
            }
            if !self.seal(&oldest, oldest.extent().record_end()) {
                return;
            }
        }
    }

    /// Counts what was published in the oldest segment: before it is synced, which takes it out
    /// of the mapping.
    pub(crate) fn count_published(&mut self) {
        if let Some(oldest) = self.shared.with_segments(|segments| segments.first().cloned()) {
            self.count(&oldest, self.shared.watermarks.published());
        }
    }

    fn count(&mut self, segment: &Segment, published: u64) {
        let extent = segment.extent();
        self.counted = self.counted.max(extent.first());
        while self.counted < published.min(extent.record_end()) {
            let at = self.counted - extent.base;
            let header = segment.map.header(at);
            let header = header
                .and_then(|bytes| RecordHeader::read(bytes, segment.identity.seed, self.counted));
            let Some(header) = header else {
                // Memory is not what was stored into it: nothing more can be promised.
                let text = "a record in memory is not what was stored";
                return self.fail(segment.path(), &io::Error::other(text));
            };
            if header.kind == KIND_PAD {
                self.shared.stats.pads.add(1);
            } else {
                self.shared.stats.records.add(1);
                self.tally.add(header.received_ns.to_native());
            }
            self.counted += u64::from(header.whole_bytes().unwrap_or(u32::MAX));
        }
    }

    /// Seals the oldest segment and takes it from the table; false if the lane has failed.
    fn seal(&mut self, oldest: &Arc<Segment>, sealed_end: u64) -> bool {
        let mut footer = self.tally.footer(oldest.extent().base, sealed_end);
        footer.sealed_ns = self.shared.clock.wall_ns().into();
        if self.shared.state() == LaneState::Failed || self.seal_blocked {
            return false;
        }
        let Some(oldest) = self.write_footer(oldest, &footer) else { return false };
        planted::pass(Point::Sealed);
        self.sealed.push_back(Sealed { identity: oldest.identity, footer });
        self.tally = Tally::default();
        self.shared.drop_oldest();
        self.left.push(oldest);
        // What became too much by this is retired now.
        self.retired = None;
        true
    }

    /// Writes the footer of a segment, or of the one that is put in its place; nothing if that
    /// must wait for room, or if the lane has failed.
    fn write_footer(&mut self, oldest: &Arc<Segment>, footer: &Footer) -> Option<Arc<Segment>> {
        let Err(error) = oldest.seal(footer) else { return Some(Arc::clone(oldest)) };
        if volume::is_no_room(&error) {
            self.seal_blocked = true;
            return None;
        }
        self.salvage(oldest, &error)?;
        let fresh = self.shared.segment_from(oldest.extent().base)?;
        match fresh.seal(footer) {
            Ok(()) => Some(fresh),
            Err(error) => {
                self.fail(fresh.path(), &error);
                None
            }
        }
    }

    /// When the lane is closed: seals what has records and removes what was made ahead.
    pub(crate) fn seal_all(&mut self) {
        let published = self.shared.watermarks.published();
        while let Some(oldest) = self.shared.with_segments(|segments| segments.first().cloned()) {
            if oldest.extent().base > published {
                // Never claimed, so no position in it was ever told. A leftover does no harm.
                let _ = fs::remove_file(oldest.path());
                self.shared.drop_oldest();
                continue;
            }
            self.count(&oldest, published);
            let sealed_end = published.min(oldest.extent().record_end());
            if !self.seal(&oldest, sealed_end) {
                return;
            }
        }
        self.count_bytes();
        // The names that were removed need not be durable: they would come back empty.
        let _ = sync_dir(&self.dir);
    }

    fn bytes(&self) -> u64 {
        let live: u64 = self
            .shared
            .with_segments(|segments| segments.iter().map(|live| live.extent().bytes).sum());
        live + self.sealed.iter().map(|sealed| sealed.extent().bytes).sum::<u64>()
    }

    fn count_bytes(&self) {
        let live = self.shared.with_segments(<[Arc<Segment>]>::len);
        self.shared.stats.segments.set((self.sealed.len() + live) as u64);
        self.shared.stats.bytes.set(self.bytes());
    }
}
