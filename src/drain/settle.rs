//! How far a cursor may go: behind everything that has settled, before the first that has not.
//!
//! Events settle in any order; a [`Settlement`] remembers only those that have not, so that its
//! size follows what is held for the sink, and neither the backlog nor how long one event takes.

use std::collections::{BTreeMap, VecDeque};

use forebay_log::Place;

/// So many events that have settled may stand among those that have not, beside as many as those
/// are.
const GAPS_MAX: usize = if cfg!(test) { 4 } else { 1024 };

/// The events of one lane that a sink has taken up and not settled. Tickets grow by one, in the
/// order of the lane.
#[derive(Debug, Default)]
pub(super) struct Settlement {
    /// Those that others have left far behind.
    late: BTreeMap<u64, Outstanding>,
    /// The others, from the ticket `first` on; nothing in the place of one that has settled. The
    /// first of them has not.
    recent: VecDeque<Option<Outstanding>>,
    first: u64,
    /// Of the recent ones, those that have not settled.
    open: usize,
    /// Everything before this was taken up, or stepped over.
    read: Place,
}

#[derive(Clone, Copy, Debug)]
struct Outstanding {
    /// Where a reader must stand to see the event.
    before: Place,
    received_ns: u64,
}

impl Settlement {
    /// Begins where the cursor stands.
    pub(super) fn at(place: Place) -> Self {
        Self { read: place, ..Self::default() }
    }

    /// An event was taken up that a reader at `before` sees next. Its ticket is the one behind that
    /// of the event before.
    pub(super) fn taken(&mut self, ticket: u64, before: Place, received_ns: u64) {
        if self.recent.is_empty() {
            self.first = ticket;
        }
        debug_assert_eq!(ticket, self.first + self.recent.len() as u64, "tickets grow by one");
        self.recent.push_back(Some(Outstanding { before, received_ns }));
        self.open += 1;
    }

    /// Everything before `place` was taken up, or is nothing for the sink.
    pub(super) fn passed(&mut self, place: Place) {
        self.read = place;
    }

    /// An event is done with. False if it was already, or never taken up.
    pub(super) fn settled(&mut self, ticket: u64) -> bool {
        let Some(index) = ticket.checked_sub(self.first) else {
            return self.late.remove(&ticket).is_some();
        };
        let place = usize::try_from(index).ok().and_then(|index| self.recent.get_mut(index));
        if place.and_then(Option::take).is_none() {
            return false;
        }
        self.open -= 1;
        self.forget();
        true
    }

    /// Lets go of what has settled in front, and, where too much of it stands behind one that has
    /// not, of that.
    fn forget(&mut self) {
        while let Some(front) = self.recent.front().copied() {
            if let Some(late) = front {
                if self.recent.len() <= 2 * self.open + GAPS_MAX {
                    return;
                }
                self.late.insert(self.first, late);
                self.open -= 1;
            }
            self.recent.pop_front();
            self.first += 1;
        }
    }

    fn oldest(&self) -> Option<&Outstanding> {
        let late = self.late.first_key_value().map(|(_, late)| late);
        late.or_else(|| self.recent.front()?.as_ref())
    }

    /// Where the cursor may stand.
    pub(super) fn place(&self) -> Place {
        self.oldest().map_or(self.read, |oldest| oldest.before)
    }

    /// When the oldest event arrived that has not settled; unix nanoseconds.
    pub(super) fn oldest_ns(&self) -> Option<u64> {
        self.oldest().map(|oldest| oldest.received_ns)
    }

    /// Whether everything that was taken up has settled.
    pub(super) fn is_done(&self) -> bool {
        self.late.is_empty() && self.open == 0
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use forebay_log::{
        AckLevel, Key, Kind, Lane, LaneOptions, NewRecord, Reader, SEGMENT_BYTES_MIN,
    };
    use proptest::prelude::*;

    use super::*;

    /// So many records, and the place before each and behind the last.
    fn places(dir: &Path, count: usize) -> Vec<Place> {
        let options = LaneOptions {
            segment_bytes: SEGMENT_BYTES_MIN,
            ack: AckLevel::Written,
            disk_reserve_bytes: Some(0),
            ..LaneOptions::default()
        };
        let (lane, _) = Lane::open(dir, options).expect("a lane");
        let mut appender = lane.appender();
        for index in 0..count {
            let body = vec![b'x'; 900];
            let received_ns = index as u64 + 1;
            let key = Key([1; 16]);
            let record = NewRecord { kind: Kind::Event, key, received_ns, meta: b"", body: &body };
            while appender.append(&record).is_err() {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        lane.close();
        let mut reader = Reader::open(dir).expect("a reader");
        let mut places = vec![reader.place()];
        while reader.next().expect("it reads").is_some() {
            places.push(reader.place());
        }
        assert_eq!(places.len(), count + 1);
        places
    }

    #[test]
    fn a_cursor_never_passes_what_has_not_settled() {
        const COUNT: usize = 200;
        let dir = tempfile::tempdir().expect("a directory");
        let places = places(dir.path(), COUNT);
        // What happens: the next event is taken up, or one of those that were is settled.
        let runner = |steps: Vec<(bool, prop::sample::Index)>| {
            let mut settlement = Settlement::at(places[0]);
            let (mut taken, mut open): (usize, Vec<usize>) = (0, Vec::new());
            for (take, which) in steps {
                if take && taken < COUNT {
                    settlement.taken(taken as u64, places[taken], taken as u64 + 1);
                    settlement.passed(places[taken + 1]);
                    open.push(taken);
                    taken += 1;
                } else if !open.is_empty() {
                    let ticket = open.remove(which.index(open.len()));
                    assert!(settlement.settled(ticket as u64));
                    assert!(!settlement.settled(ticket as u64), "only once");
                }
                // The oracle: the first that is open, or else all that was taken.
                let first = open.iter().min().copied();
                assert_eq!(settlement.place(), places[first.unwrap_or(taken)]);
                assert_eq!(settlement.oldest_ns(), first.map(|first| first as u64 + 1));
                assert_eq!(settlement.is_done(), open.is_empty());
                let (recent, late) = (settlement.recent.len(), settlement.late.len());
                assert!(recent <= 2 * open.len() + GAPS_MAX, "{recent} are remembered");
                assert_eq!(settlement.open + late, open.len());
            }
        };
        let steps = prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..600);
        proptest!(ProptestConfig::with_cases(200), |(steps in steps)| runner(steps));
    }
}
