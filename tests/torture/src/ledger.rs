//! What the outside knows: which ids exist, which were acknowledged, and what each must hold.
//!
//! The ledger is kept by the campaign, never on the disk under test. An event's every byte follows
//! from its id, so that a record can be judged without having been remembered.

use std::collections::HashMap;

use forebay_log::{FieldTooLong, Key, MetaWriter, Position, Tag};

use crate::dice::mix;

/// Bytes of a fact on the way from an agent to its campaign.
pub(crate) const FACT_BYTES: usize = 16;
/// Ids above this bit number name the class of sizes that the event belongs to.
const CLASS_SHIFT: u32 = 48;

/// Bits of a place below the epoch: more than the offsets of any lane here.
const OFFSET_BITS: u32 = 40;

/// A position as one number, in the same order: the epoch above, the offset below.
pub(crate) fn place_of(position: Position) -> u64 {
    (u64::from(position.epoch()) << OFFSET_BITS) | position.offset()
}

/// The epoch of a place.
pub(crate) fn epoch_of(place: u64) -> u64 {
    place >> OFFSET_BITS
}

/// The offset of a place.
pub(crate) fn offset_of(place: u64) -> u64 {
    place & ((1 << OFFSET_BITS) - 1)
}

/// Something that an agent tells its campaign. `place` is a position, see [`place_of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    /// These ids may turn up in the lane from now on.
    Claimed { first: u64, count: u64 },
    /// The record is acknowledged.
    Acked { id: u64, place: u64 },
    /// A reader has delivered the record, byte-exact.
    Shown { id: u64, place: u64 },
    /// A reader has delivered a record that no id makes.
    Wrong { id: u64, place: u64 },
    /// A reader has told that something is missing: so many records or ranges.
    Gap { count: u64 },
    /// The lane has opened; what recovery has counted.
    Opened { damaged: u64, notes: u64 },
    /// The lane could not be opened, or not be read; the text is on standard error.
    Unopened,
    /// An append was refused because the lane is full, and the call took so long.
    Full { id: u64, took_us: u64 },
    /// The lane has stayed full for too long to wait any more.
    GaveUp,
    /// The lane has failed.
    Failed,
    /// A lane that has failed has moved its acknowledged end all the same.
    MovedAfterFailure,
    /// Nothing was acknowledged, refused or failed for far too long.
    Stalled { id: u64 },
    /// An append was refused for a reason that it should not have.
    Refused { id: u64 },
    /// From here on the lane is read once more, after it was closed in order.
    Again,
    /// So many segments were saved into another file after a failed sync.
    Salvaged { count: u64 },
    /// A consumer has found its cursor there.
    CursorAt { place: u64 },
    /// A consumer has committed its cursor there.
    CursorPut { place: u64 },
    /// The agent has done all it was to do, and the lane is closed.
    Done,
}

impl Fact {
    /// The fact as bytes.
    pub(crate) fn to_bytes(self) -> [u8; FACT_BYTES] {
        let (tag, id, place) = match self {
            Self::Claimed { first, count } => (1, first, count),
            Self::Acked { id, place } => (2, id, place),
            Self::Shown { id, place } => (3, id, place),
            Self::Wrong { id, place } => (4, id, place),
            Self::Gap { count } => (5, 0, count),
            Self::Opened { damaged, notes } => (6, damaged, notes),
            Self::Unopened => (7, 0, 0),
            Self::Full { id, took_us } => (8, id, took_us),
            Self::Failed => (9, 0, 0),
            Self::MovedAfterFailure => (10, 0, 0),
            Self::Stalled { id } => (11, id, 0),
            Self::Refused { id } => (12, id, 0),
            Self::Done => (13, 0, 0),
            Self::Again => (14, 0, 0),
            Self::GaveUp => (15, 0, 0),
            Self::Salvaged { count } => (16, 0, count),
            Self::CursorAt { place } => (17, 0, place),
            Self::CursorPut { place } => (18, 0, place),
        };
        let mut bytes = [0; FACT_BYTES];
        let head = (id << 8) | tag;
        let halves = head.to_le_bytes().into_iter().chain(place.to_le_bytes());
        bytes.iter_mut().zip(halves).for_each(|(into, byte)| *into = byte);
        bytes
    }

    /// The fact in these bytes.
    pub(crate) fn from_bytes(bytes: [u8; FACT_BYTES]) -> Option<Self> {
        let (head, place) = bytes.split_first_chunk::<8>()?;
        let head = u64::from_le_bytes(*head);
        let place = u64::from_le_bytes(*place.first_chunk::<8>()?);
        let id = head >> 8;
        Some(match head & 0xff {
            1 => Self::Claimed { first: id, count: place },
            2 => Self::Acked { id, place },
            3 => Self::Shown { id, place },
            4 => Self::Wrong { id, place },
            5 => Self::Gap { count: place },
            6 => Self::Opened { damaged: id, notes: place },
            7 => Self::Unopened,
            8 => Self::Full { id, took_us: place },
            9 => Self::Failed,
            10 => Self::MovedAfterFailure,
            11 => Self::Stalled { id },
            12 => Self::Refused { id },
            13 => Self::Done,
            14 => Self::Again,
            15 => Self::GaveUp,
            16 => Self::Salvaged { count: place },
            17 => Self::CursorAt { place },
            18 => Self::CursorPut { place },
            _ => return None,
        })
    }
}

/// How large events are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sizes {
    /// Mostly some kilobytes, now and then nothing or tens of kilobytes: tears well.
    Mixed,
    /// A few hundred bytes: many of them.
    Small,
}

impl Sizes {
    /// The first id of the numbered run of ids with these sizes.
    pub(crate) fn first_id(self, run: u64) -> u64 {
        let class: u64 = match self {
            Self::Mixed => 1,
            Self::Small => 2,
        };
        (class << CLASS_SHIFT) | (run << 24)
    }
}

/// An event: everything about it follows from its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) key: Key,
    pub(crate) received_ns: u64,
    pub(crate) meta: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl Event {
    /// The event with this id.
    pub(crate) fn of(id: u64) -> Result<Self, FieldTooLong> {
        let mut key = [0; 16];
        let halves = id.to_le_bytes().into_iter().chain(mix(id).to_le_bytes());
        key.iter_mut().zip(halves).for_each(|(into, byte)| *into = byte);
        let mut meta = MetaWriter::with_capacity(256);
        meta.field(Tag::Source, b"torture")?;
        meta.field(Tag::EventId, id.to_string().as_bytes())?;
        meta.header(b"content-type", b"application/octet-stream")?;
        let trace = bytes_of(mix(id ^ 1), usize::try_from(mix(id ^ 2) % 90).unwrap_or(0));
        meta.header(b"x-trace", &trace)?;
        Ok(Self {
            key: Key(key),
            received_ns: 1_700_000_000_000_000_000 + (id & 0xff_ffff) * 1000,
            meta: meta.as_bytes().to_vec(),
            body: bytes_of(mix(id ^ 3), body_bytes(id)),
        })
    }
}

/// The id that a key names, if a key of ours it is.
pub(crate) fn id_of(key: Key) -> Option<u64> {
    let (id, rest) = key.0.split_first_chunk::<8>()?;
    let id = u64::from_le_bytes(*id);
    (rest == mix(id).to_le_bytes()).then_some(id)
}

fn body_bytes(id: u64) -> usize {
    let draw = mix(id ^ 4);
    let bytes = match (id >> CLASS_SHIFT, draw % 32) {
        (1, 0) => 0,
        (1, 1) => draw % 40_000,
        (1, _) => draw % 3_000,
        _ => draw % 500,
    };
    usize::try_from(bytes).unwrap_or(0)
}

fn bytes_of(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

/// What must hold for a lane, by what is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    claimed: Vec<(u64, u64)>,
    owed: HashMap<u64, Owed>,
    acked: u64,
    /// Where the consumer's cursor stands at the least.
    cursor: u64,
}

/// A record that must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owed {
    /// Where it must be.
    pub(crate) place: u64,
    /// It was acknowledged, and not only shown.
    pub(crate) acked: bool,
}

impl Ledger {
    /// Takes note of a fact.
    pub(crate) fn take(&mut self, fact: Fact) {
        match fact {
            Fact::Claimed { first, count } => self.claimed.push((first, count)),
            Fact::Acked { id, place } => {
                self.acked += 1;
                self.owed.insert(id, Owed { place, acked: true });
            }
            // What a lane has shown after recovery is a duplicate from then on, and owed like an
            // acknowledged record: the sender will be told so.
            Fact::Shown { id, place } => {
                self.owed.entry(id).or_insert(Owed { place, acked: false });
            }
            Fact::CursorPut { place } => self.cursor = self.cursor.max(place),
            _ => {}
        }
    }

    /// Takes note of facts.
    pub(crate) fn take_all(&mut self, facts: &[Fact]) {
        for fact in facts {
            self.take(*fact);
        }
    }

    /// What must be there, by id.
    pub(crate) fn owed(&self) -> &HashMap<u64, Owed> {
        &self.owed
    }

    /// How many acknowledgements there were.
    pub(crate) fn acked(&self) -> u64 {
        self.acked
    }

    /// Where the consumer's cursor stands at the least; 0 if none was committed.
    pub(crate) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Whether the id may turn up at all.
    pub(crate) fn knows(&self, id: u64) -> bool {
        self.claimed.iter().any(|(first, count)| (*first..first + count).contains(&id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_survive_the_pipe() {
        let (id, place) = ((1 << 56) - 1, u64::MAX);
        let facts = [
            Fact::Claimed { first: id, count: 7 },
            Fact::Acked { id, place },
            Fact::Shown { id, place },
            Fact::Wrong { id: 0, place },
            Fact::Gap { count: 3 },
            Fact::Opened { damaged: 3, notes: 4 },
            Fact::Unopened,
            Fact::Full { id, took_us: 7 },
            Fact::Failed,
            Fact::MovedAfterFailure,
            Fact::Stalled { id },
            Fact::Refused { id },
            Fact::Again,
            Fact::GaveUp,
            Fact::Salvaged { count: 5 },
            Fact::CursorAt { place },
            Fact::CursorPut { place },
            Fact::Done,
        ];
        for fact in facts {
            assert_eq!(Fact::from_bytes(fact.to_bytes()), Some(fact));
        }
        assert_eq!(Fact::from_bytes([0; FACT_BYTES]), None);
    }

    #[test]
    fn a_place_keeps_epoch_and_offset_and_their_order() {
        let place = place_of(Position::new(7, 4096));
        assert_eq!((epoch_of(place), offset_of(place)), (7, 4096));
        assert!(place < place_of(Position::new(8, 64)));
    }

    #[test]
    fn an_event_follows_from_its_id_and_its_key_names_the_id() {
        let id = Sizes::Mixed.first_id(3) + 17;
        assert_eq!(Event::of(id), Event::of(id));
        assert_ne!(Event::of(id), Event::of(id + 1));
        let event = Event::of(id).expect("short fields");
        assert_eq!(id_of(event.key), Some(id));
        let mut other = event.key;
        other.0[9] ^= 1;
        assert_eq!(id_of(other), None);
    }

    #[test]
    fn only_claimed_ids_are_known_and_shown_ones_are_owed() {
        let mut ledger = Ledger::default();
        ledger
            .take_all(&[Fact::Claimed { first: 10, count: 5 }, Fact::Acked { id: 11, place: 64 }]);
        ledger.take(Fact::Shown { id: 12, place: 128 });
        assert!(ledger.knows(10) && ledger.knows(14) && !ledger.knows(15) && !ledger.knows(9));
        assert_eq!((ledger.owed().len(), ledger.acked()), (2, 1));
    }
}
