//! How far a cursor may go: behind everything that has settled, before the first that has not.
//!
//! Events settle in any order; a [`Settlement`] remembers only those that have not, so that its
//! size follows what is held for the sink, and neither the backlog nor how long one event takes.

use std::collections::BTreeMap;

use forebay_log::Place;

/// The events of one lane that a sink has taken up and not settled. Tickets grow in the order of
/// the lane.
#[derive(Debug, Default)]
pub(super) struct Settlement {
    outstanding: BTreeMap<u64, Outstanding>,
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
        Self { outstanding: BTreeMap::new(), read: place }
    }

    /// An event was taken up that a reader at `before` sees next.
    pub(super) fn taken(&mut self, ticket: u64, before: Place, received_ns: u64) {
        self.outstanding.insert(ticket, Outstanding { before, received_ns });
    }

    /// Everything before `place` was taken up, or is nothing for the sink.
    pub(super) fn passed(&mut self, place: Place) {
        self.read = place;
    }

    /// An event is done with. False if it was already, or never taken up.
    pub(super) fn settled(&mut self, ticket: u64) -> bool {
        self.outstanding.remove(&ticket).is_some()
    }

    /// Where the cursor may stand.
    pub(super) fn place(&self) -> Place {
        self.outstanding.first_key_value().map_or(self.read, |(_, first)| first.before)
    }

    /// When the oldest event arrived that has not settled; unix nanoseconds.
    pub(super) fn oldest_ns(&self) -> Option<u64> {
        self.outstanding.first_key_value().map(|(_, first)| first.received_ns)
    }

    /// Whether everything that was taken up has settled.
    pub(super) fn is_done(&self) -> bool {
        self.outstanding.is_empty()
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
            }
        };
        let steps = prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..600);
        proptest!(ProptestConfig::with_cases(200), |(steps in steps)| runner(steps));
    }
}
