//! What a lane holds against what the ledger says: conservation, exactly once, integrity, nothing
//! unknown, and every record where it was acknowledged.

use std::collections::HashMap;
use std::fmt;

use crate::ledger::{Fact, Ledger, epoch_of, offset_of};

/// How many examples of each kind a report names.
const EXAMPLES: usize = 3;

/// What is wrong with a lane. Nothing, if all are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Acknowledged, and not there.
    pub(crate) lost: Vec<u64>,
    /// Shown by a lane that had been recovered, never acknowledged, and not there any more.
    pub(crate) vanished: Vec<u64>,
    /// There more than once.
    pub(crate) twice: Vec<u64>,
    /// Places of records that no id makes.
    pub(crate) wrong: Vec<u64>,
    /// There, and never sent.
    pub(crate) unknown: Vec<u64>,
    /// Owed at one place, and there at another.
    pub(crate) moved: Vec<u64>,
    /// Whatever else broke a promise, in words.
    pub(crate) other: Vec<String>,
}

impl Findings {
    pub(crate) fn is_clean(&self) -> bool {
        *self == Self::default()
    }

    /// Findings with one thing in words.
    pub(crate) fn other(text: impl Into<String>) -> Self {
        Self { other: vec![text.into()], ..Self::default() }
    }

    /// Adds what another check has found.
    pub(crate) fn join(&mut self, more: Self) {
        self.lost.extend(more.lost);
        self.vanished.extend(more.vanished);
        self.twice.extend(more.twice);
        self.wrong.extend(more.wrong);
        self.unknown.extend(more.unknown);
        self.moved.extend(more.moved);
        self.other.extend(more.other);
        for ids in [&mut self.lost, &mut self.vanished, &mut self.wrong, &mut self.unknown] {
            ids.sort_unstable();
            ids.dedup();
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            ("lost", &self.lost),
            ("vanished after recovery had shown them", &self.vanished),
            ("twice", &self.twice),
            ("wrong bytes at", &self.wrong),
            ("unknown", &self.unknown),
            ("moved", &self.moved),
        ];
        let mut parts = Vec::new();
        for (name, ids) in kinds.into_iter().filter(|(_, ids)| !ids.is_empty()) {
            let few: Vec<_> = ids.iter().take(EXAMPLES).map(|id| format!("{id:x}")).collect();
            let more = if ids.len() > EXAMPLES { ", .." } else { "" };
            parts.push(format!("{} {name} ({}{more})", ids.len(), few.join(", ")));
        }
        parts.extend(self.other.iter().cloned());
        formatter.write_str(&parts.join("; "))
    }
}

/// Which owed records may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MayMiss {
    /// None.
    Nothing,
    /// Any of them: nothing was promised. What is there must be right all the same.
    Anything,
    /// Those before the oldest that is still there, if so many bytes are kept: retention removes
    /// from the front, and not more than it was told.
    Oldest { kept_bytes: u64 },
}

/// Judges what a reader has delivered.
pub(crate) fn check(ledger: &Ledger, delivered: &[Fact], may_miss: MayMiss) -> Findings {
    let mut findings = Findings::default();
    let mut places: HashMap<u64, u64> = HashMap::new();
    let mut last_place = None;
    for fact in delivered {
        match *fact {
            Fact::Shown { id, place } => {
                if last_place.is_some_and(|last| last >= place) {
                    findings.other.push(format!("place {place:x} came after a later one"));
                }
                last_place = Some(place);
                if !ledger.knows(id) {
                    findings.unknown.push(id);
                }
                if places.insert(id, place).is_some() {
                    findings.twice.push(id);
                }
            }
            Fact::Wrong { place, .. } => findings.wrong.push(place),
            Fact::CursorAt { place } if place < ledger.cursor() => {
                let text = format!("a cursor is at {place:x}, committed at {:x}", ledger.cursor());
                findings.other.push(text);
            }
            Fact::Unopened => findings.other.push("the lane did not open or read".to_owned()),
            Fact::Stalled { id } => findings.other.push(format!("stalled at {id:x}")),
            Fact::Refused { id } => findings.other.push(format!("append refused {id:x}")),
            Fact::MovedAfterFailure => {
                findings.other.push("acked moved after the lane had failed".to_owned());
            }
            _ => {}
        }
    }
    if delivered.contains(&Fact::Unopened) {
        // Nothing was read, which says nothing about what is there.
        return findings;
    }
    let oldest = oldest_kept(&places, may_miss);
    for (id, owed) in ledger.owed() {
        match places.get(id) {
            Some(place) if *place == owed.place => {}
            Some(_) => findings.moved.push(*id),
            None if may_miss == MayMiss::Anything => {}
            None if oldest.is_some_and(|oldest| owed.place < oldest) => {}
            None if owed.acked => findings.lost.push(*id),
            None => findings.vanished.push(*id),
        }
    }
    findings.lost.sort_unstable();
    findings.vanished.sort_unstable();
    findings.moved.sort_unstable();
    findings
}

/// A writer that starts has an epoch of its own, higher than that of every record that is owed: a
/// position must never mean two records.
pub(crate) fn check_epoch(ledger: &Ledger, told: &[Fact]) -> Findings {
    let highest = ledger.owed().values().map(|owed| epoch_of(owed.place)).max().unwrap_or(0);
    let again = told.iter().find_map(|fact| match fact {
        Fact::Acked { place, .. } if epoch_of(*place) <= highest => Some(epoch_of(*place)),
        _ => None,
    });
    let text = |epoch| format!("epoch {epoch} was given again, {highest} was there before");
    Findings { other: again.map(text).into_iter().collect(), ..Findings::default() }
}

/// The place before which records may be missing, if any may.
fn oldest_kept(places: &HashMap<u64, u64>, may_miss: MayMiss) -> Option<u64> {
    let MayMiss::Oldest { kept_bytes } = may_miss else { return None };
    let (oldest, newest) = (places.values().min()?, places.values().max()?);
    (offset_of(*newest) - offset_of(*oldest) >= kept_bytes).then_some(*oldest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.take(Fact::Claimed { first: 1, count: 9 });
        for id in 1..=3 {
            ledger.take(Fact::Acked { id, place: id * 64 });
        }
        ledger
    }

    fn shown(ids: &[(u64, u64)]) -> Vec<Fact> {
        ids.iter().map(|(id, place)| Fact::Shown { id: *id, place: *place }).collect()
    }

    #[test]
    fn a_lane_that_holds_what_it_owes_and_some_more_is_clean() {
        let delivered = shown(&[(1, 64), (2, 128), (3, 192), (9, 256)]);
        assert!(check(&ledger(), &delivered, MayMiss::Nothing).is_clean());
    }

    #[test]
    fn every_broken_promise_has_its_name() {
        let found = |ids: &[(u64, u64)]| check(&ledger(), &shown(ids), MayMiss::Nothing);
        assert_eq!(found(&[(1, 64), (3, 192)]).lost, [2]);
        assert_eq!(found(&[(1, 64), (2, 128), (3, 192), (2, 256)]).twice, [2]);
        assert_eq!(found(&[(1, 64), (2, 128), (3, 192), (10, 256)]).unknown, [10]);
        assert_eq!(found(&[(1, 64), (2, 130), (3, 192)]).moved, [2]);
        assert_eq!(found(&[(2, 128), (1, 64), (3, 192)]).other.len(), 1);
        let mut ledger = ledger();
        ledger.take(Fact::Shown { id: 4, place: 256 });
        let delivered = shown(&[(1, 64), (2, 128), (3, 192)]);
        assert_eq!(check(&ledger, &delivered, MayMiss::Nothing).vanished, [4]);
    }

    #[test]
    fn a_cursor_that_went_back_is_told() {
        let mut ledger = Ledger::default();
        ledger.take(Fact::CursorPut { place: 128 });
        let found = |place| check(&ledger, &[Fact::CursorAt { place }], MayMiss::Nothing).other;
        assert_eq!((found(64).len(), found(128).len(), found(192).len()), (1, 0, 0));
    }

    #[test]
    fn a_lane_that_does_not_open_is_not_said_to_have_lost_anything() {
        let findings = check(&ledger(), &[Fact::Unopened], MayMiss::Nothing);
        assert_eq!((findings.lost.len(), findings.other.len()), (0, 1));
    }

    #[test]
    fn an_epoch_that_was_there_before_is_told() {
        let acked = |epoch: u64| [Fact::Acked { id: 9, place: (epoch << 40) + 64 }];
        let mut ledger = Ledger::default();
        ledger.take_all(&acked(3));
        assert!(check_epoch(&ledger, &acked(4)).is_clean());
        assert_eq!(check_epoch(&ledger, &acked(3)).other.len(), 1);
    }

    #[test]
    fn where_anything_may_be_missing_nothing_else_may() {
        let found = |ids: &[(u64, u64)]| check(&ledger(), &shown(ids), MayMiss::Anything);
        assert!(found(&[(2, 128)]).is_clean());
        assert_eq!(found(&[(2, 130)]).moved, [2]);
    }

    #[test]
    fn retention_may_take_the_oldest_and_nothing_in_between() {
        let found =
            |ids: &[(u64, u64)]| check(&ledger(), &shown(ids), MayMiss::Oldest { kept_bytes: 64 });
        assert!(found(&[(2, 128), (3, 192)]).is_clean());
        assert_eq!(found(&[(1, 64), (3, 192)]).lost, [2]);
        assert_eq!(found(&[(3, 192)]).lost, [1, 2], "too little was kept");
    }
}
