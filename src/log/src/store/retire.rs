//! Which segments go: by age, by size, and by what cursors have not read.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Store;
use crate::clock::unix_ns;
use crate::cursor;
use crate::format::Footer;
use crate::lane::AgeSince;
use crate::planted::{self, Point};
use crate::recover::Sealed;
use crate::segment::{self, Segment, sync_dir};

/// How often retention looks for what is too old.
const RETIRE_EVERY: Duration = Duration::from_secs(1);

/// What cursors have not read yet: looked up once a round, and only if something is to go.
#[derive(Debug, Default)]
struct Unread {
    looked: bool,
    from: Option<u64>,
    /// Of the one cursor for which everything is kept.
    kept_from: Option<u64>,
}

impl Unread {
    fn look(&mut self, dir: &Path, lane_id: &[u8; 16], kept_for: Option<&str>) {
        if !self.looked {
            self.looked = true;
            self.from = cursor::slowest(dir, lane_id);
            // One that is not there, or cannot be read, has read nothing.
            self.kept_from =
                kept_for.map(|name| cursor::offset(dir, lane_id, name).unwrap_or_default());
        }
    }

    /// Whether a segment holds something that the slowest cursor has not read.
    fn holds(&self, sealed: &Sealed) -> bool {
        self.from.is_some_and(|from| from < sealed.footer.sealed_end.to_native())
    }

    /// Whether a segment holds something that must not go unread.
    fn keeps(&self, sealed: &Sealed) -> bool {
        self.kept_from.is_some_and(|from| from < sealed.footer.sealed_end.to_native())
    }
}

impl Store {
    /// Unlinks segments that retention gives up, and those that a restart left empty.
    pub(super) fn retire_if_due(&mut self) {
        let now = self.shared.clock.monotonic();
        if self.retired.is_some_and(|at| now.saturating_duration_since(at) < RETIRE_EVERY) {
            return;
        }
        self.retired = Some(now);
        let before = self.sealed.len();
        // First: what holds nothing must not push records over the bound on size.
        self.drop_empty();
        let mut unread = Unread::default();
        while self.sealed.front().is_some_and(|oldest| self.may_go(oldest, &mut unread)) {
            let Some(oldest) = self.sealed.pop_front() else { break };
            if !self.unlink(&oldest) {
                self.sealed.push_front(oldest);
                break;
            }
            if unread.holds(&oldest) {
                self.shared.stats.unread_segments.add(1);
                self.shared.stats.unread_records.add(oldest.footer.records.to_native());
            }
        }
        if self.sealed.len() < before {
            planted::pass(Point::Unlinked);
            // Durable or not: a name that comes back is retired again.
            let _ = sync_dir(&self.dir);
        }
        self.count_bytes();
    }

    /// Unlinks segments that were made ahead and that a crash has left empty.
    fn drop_empty(&mut self) {
        let live = self.shared.with_segments(|segments| !segments.is_empty());
        let mut kept = VecDeque::with_capacity(self.sealed.len());
        while let Some(sealed) = self.sealed.pop_front() {
            let newest = !live && self.sealed.is_empty();
            if newest || !sealed.is_empty() || !self.unlink(&sealed) {
                kept.push_back(sealed);
            }
        }
        self.sealed = kept;
    }

    /// Whether retention gives up the oldest segment. The newest of a lane stays in any case: it
    /// carries the epoch and the offsets over a restart.
    fn may_go(&self, oldest: &Sealed, unread: &mut Unread) -> bool {
        let live = self.shared.with_segments(<[Arc<Segment>]>::len);
        if self.sealed.len() + live < 2 {
            return false;
        }
        let too_old = self.retention.age.is_some_and(|age| {
            let age_ns = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
            self.newest_ns(oldest).saturating_add(age_ns) < self.shared.clock.wall_ns()
        });
        let too_much = self.retention.bytes.is_some_and(|bytes| self.bytes() > bytes);
        if too_old || too_much {
            unread.look(&self.dir, &self.lane_id, self.kept_for.as_deref());
        }
        // What a cursor has not read stays beyond its age, but not beyond the bound on size, and
        // not at the price of refusing events.
        let goes = too_much || (too_old && (self.low || !unread.holds(oldest)));
        goes && !unread.keeps(oldest)
    }

    /// From when on the age of a sealed segment counts, unix time in nanoseconds.
    fn newest_ns(&self, sealed: &Sealed) -> u64 {
        let Footer { last_ns, sealed_ns, .. } = &sealed.footer;
        match (self.age_since, sealed_ns.to_native()) {
            (AgeSince::Received, _) => last_ns.to_native(),
            // By a recovery, which does not say when: nobody has written into the file since, and a
            // purge has made it anew.
            (AgeSince::Sealed, 0) => {
                let path = self.dir.join(segment::file_name(sealed.extent().base));
                // As long as nobody can tell it is young.
                fs::metadata(path).and_then(|file| file.modified()).map_or(u64::MAX, unix_ns)
            }
            (AgeSince::Sealed, sealed_ns) => sealed_ns,
        }
    }

    /// Removes a segment's name; false if that failed, to be tried again later.
    fn unlink(&self, sealed: &Sealed) -> bool {
        let path = self.dir.join(segment::file_name(sealed.extent().base));
        planted::pass(Point::Unlinking);
        match fs::remove_file(&path) {
            Ok(()) => {
                self.shared.stats.segments_retired.add(1);
                true
            }
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}
