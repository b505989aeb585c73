//! A record's bytes into the lane: claim, copy, publish.
//!
//! Many producers, no lock, no wait, no syscall. The claim is one compare-and-swap on `claimed`;
//! between it and the commit word there is nothing but copying: no allocation, no await, and no
//! panic that a guard would not turn into a filler record. A segment that is full is left by one
//! compare-and-swap too, whose winner fills the rest; if the next segment is not there yet,
//! nothing is claimed and the lane is full.

use std::sync::Arc;

use crate::format::{RECORD_SIGNED_KEY, RecordHeader, payload_crc, record_bytes, signed_key_crc};
use crate::meta::Meta;
use crate::planted::{self, Point};
use crate::position::{Key, Kind, Position};
use crate::segment::Segment;
use crate::shared::{LaneState, Shared};
use crate::watermark::{Claim, Claimed, Rolled};

/// One record in so many is timed: asking for the time costs a tenth of an append.
const TIMED_EVERY: u32 = 16;

/// How much of the next record's place is fetched ahead: what the first-level cache spares.
const FETCH_BYTES_MAX: u32 = 4096;

/// A record to be appended.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// What it is.
    pub kind: Kind,
    /// The fingerprint of the event key.
    pub key: Key,
    /// When the request arrived, nanoseconds since the unix epoch.
    pub received_ns: u64,
    /// The meta section, as [`MetaWriter`](crate::MetaWriter) wrote it.
    pub meta: &'a [u8],
    /// The body, byte-exact.
    pub body: &'a [u8],
}

impl NewRecord<'_> {
    /// Bytes that it takes in a lane, header and alignment included; none: more than any lane holds.
    pub fn bytes(&self) -> Option<u32> {
        record_bytes(self.meta.len(), self.body.len())
    }
}

/// Where a record was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Where it starts.
    pub start: Position,
    /// The offset that [`Lane::acked`](crate::Lane::acked) must reach.
    pub end: u64,
}

/// Why a record was not appended. Nothing of it is in the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// No space, or no segment yet: none is made while the medium is further behind than 256 MiB or
    /// two segments. Passes by itself.
    #[error("the lane is full")]
    Full,
    /// The lane has failed.
    #[error("the lane has failed and takes no more records")]
    Failed,
    /// The record can never fit into a segment of this lane.
    #[error("a record of {bytes} bytes does not fit into a segment, which holds {bytes_max}")]
    TooLarge {
        /// Meta and body together.
        bytes: u64,
        /// What a segment holds, a record's header included.
        bytes_max: u64,
    },
    /// The lane was closed.
    #[error("the lane is closed")]
    Closed,
}

/// Appends records to a lane; one for each thread that does.
#[derive(Debug)]
pub struct Appender {
    shared: Arc<Shared>,
    /// Where this appender's last claim was.
    tail: Option<Arc<Segment>>,
    /// Where the last walk of `published` was.
    walked: Option<Arc<Segment>>,
    appended: u32,
}

/// A claim, and the segment in which it lies. Dropped before it was published, by a panic, it
/// becomes a filler record, so that it does not hold back what is claimed behind it.
pub(crate) struct Held<'a> {
    segment: &'a Segment,
    claim: Option<Claim>,
}

impl<'a> Held<'a> {
    pub(crate) fn new(segment: &'a Segment, claim: Claim) -> Self {
        Self { segment, claim: Some(claim) }
    }

    /// Stores the parts of a record and publishes it.
    pub(crate) fn publish(mut self, parts: [&[u8]; 3]) {
        if let Some(claim) = self.claim.as_mut() {
            let at = claim.from() - self.segment.extent().base;
            self.segment.map.store(claim, at, parts);
        }
        planted::pass(Point::Stored);
        if let Some(claim) = self.claim.take() {
            let at = claim.from() - self.segment.extent().base;
            self.segment.map.publish(claim, at);
        }
        planted::pass(Point::Committed);
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            pad(self.segment, claim);
        }
    }
}

/// Publishes a filler over a claim.
pub(crate) fn pad(segment: &Segment, mut claim: Claim) {
    let header = RecordHeader::pad(claim.from(), claim.commit_word());
    let header = header.sealed_bytes(segment.identity.seed);
    let at = claim.from() - segment.extent().base;
    segment.map.store(&mut claim, at, [&header, &[], &[]]);
    segment.map.publish(claim, at);
}

impl Appender {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, tail: None, walked: None, appended: 0 }
    }

    /// Appends a record. It counts once [`Lane::acked`](crate::Lane::acked) reaches its end.
    pub fn append(&mut self, record: &NewRecord<'_>) -> Result<Appended, AppendError> {
        let whole = self.admit(record).inspect_err(|error| self.refused(*error))?;
        self.appended = self.appended.wrapping_add(1);
        let timed = self.appended.is_multiple_of(TIMED_EVERY);
        let began = timed.then(|| self.shared.clock.monotonic());

        let placed = self.place(record, whole);
        let appended = placed.inspect_err(|error| self.refused(*error))?;
        if self.shared.publish(&mut self.walked) {
            self.shared.published_moved();
        }
        planted::pass(Point::Published);
        if let Some(began) = began {
            let took = self.shared.clock.monotonic().saturating_duration_since(began);
            self.shared.stats.stores.record(took);
        }
        Ok(appended)
    }

    /// The length that the record would take, if the lane takes it now.
    fn admit(&self, record: &NewRecord<'_>) -> Result<u32, AppendError> {
        let bytes_max = self.shared.record_bytes_max;
        match self.shared.state() {
            LaneState::Open => {}
            LaneState::Full => return Err(AppendError::Full),
            LaneState::Failed => return Err(AppendError::Failed),
            LaneState::Closed => return Err(AppendError::Closed),
        }
        let bytes = record.meta.len().saturating_add(record.body.len()) as u64;
        record
            .bytes()
            .filter(|whole| u64::from(*whole) <= bytes_max)
            .ok_or(AppendError::TooLarge { bytes, bytes_max })
    }

    /// Claims a place for the record and stores it there.
    fn place(&mut self, record: &NewRecord<'_>, whole: u32) -> Result<Appended, AppendError> {
        let shared = Arc::as_ref(&self.shared);
        let mut checked: Option<(u32, u32)> = None;
        loop {
            let Claimed::At(from) = shared.watermarks.next_claim() else {
                return Err(AppendError::Closed);
            };
            if !self.tail.as_ref().is_some_and(|tail| tail.extent().holds(from)) {
                self.tail = shared.segment_at(from);
            }
            let segment = self.tail.as_deref().ok_or(AppendError::Full)?;
            let to = from + u64::from(whole);
            if to > segment.extent().record_end() {
                roll(shared, segment, from)?;
                continue;
            }
            // Everything that can be computed is, before the claim: what is claimed and not yet
            // published holds back every other producer's acknowledgement.
            let seed = segment.identity.seed;
            let crc = match checked {
                Some((of, crc)) if of == seed => crc,
                _ => payload_crc(seed, record.meta, record.body),
            };
            checked = Some((seed, crc));
            let header = header_of(record, from, seed, crc).sealed_bytes(seed);
            let Some(claim) = shared.watermarks.claim(from, to) else { continue };
            planted::pass(Point::Claimed);
            Held::new(segment, claim).publish([&header, record.meta, record.body]);
            // The next record will be much like this one, and lie behind it.
            segment.map.fetch(to - segment.extent().base, u64::from(whole.min(FETCH_BYTES_MAX)));
            let start = Position::new(segment.identity.epoch, from);
            return Ok(Appended { start, end: to });
        }
    }

    fn refused(&self, error: AppendError) {
        if error == AppendError::Full {
            self.shared.stats.full_refusals.add(1);
            self.shared.wake_keeper();
        }
    }
}

/// Leaves a segment whose rest is too small. Done by whoever comes first; the others go on.
pub(crate) fn roll(shared: &Shared, segment: &Segment, from: u64) -> Result<(), AppendError> {
    let extent = segment.extent();
    let next = shared.segment_from(extent.end()).ok_or(AppendError::Full)?;
    match shared.watermarks.roll(from, extent.record_end(), next.extent().first()) {
        Rolled::Rest(claim) => {
            planted::pass(Point::Rolled);
            pad(segment, claim);
        }
        Rolled::Full | Rolled::Lost => {}
    }
    Ok(())
}

/// The header of a record, its own checksum not in place yet.
pub(crate) fn header_of(
    record: &NewRecord<'_>,
    position: u64,
    seed: u32,
    payload_crc: u32,
) -> RecordHeader {
    // A start need not look at the meta sections of records without one.
    let (flags, signed_key_crc) = match Meta::new(record.meta).signed_key() {
        Some((_, field)) => (RECORD_SIGNED_KEY, signed_key_crc(seed, field)),
        None => (0, 0),
    };
    RecordHeader {
        commit: 0.into(),
        header_crc: 0.into(),
        position: position.into(),
        received_ns: record.received_ns.into(),
        key: record.key.0,
        // Both fit: `record_bytes` has summed them into 32 bits.
        meta_bytes: u32::try_from(record.meta.len()).unwrap_or(u32::MAX).into(),
        body_bytes: u32::try_from(record.body.len()).unwrap_or(u32::MAX).into(),
        payload_crc: payload_crc.into(),
        kind: record.kind as u8,
        flags,
        reserved: 0.into(),
        signed_key_crc: signed_key_crc.into(),
        reserved_wide: 0.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{KIND_PAD, SEGMENT_BYTES_MIN, seed_of};
    use crate::segment::{Extent, Identity};
    use crate::watermark::Watermarks;

    #[test]
    fn an_abandoned_claim_becomes_a_pad_and_holds_nobody_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let identity = Identity {
            lane_id: [1; 16],
            sequence: 0,
            epoch: 1,
            extent: Extent { base: 0, bytes: SEGMENT_BYTES_MIN },
            salt: 1,
            seed: seed_of(1),
            created_ns: 0,
            ack: 1,
        };
        let segment = Segment::create(dir.path(), identity, false).expect("a segment");
        let watermarks = Watermarks::new(4096);
        let claim = watermarks.claim(4096, 4096 + 640).expect("free");
        assert!(!watermarks.publish(|offset| segment.committed_end(offset)));
        let abandoned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _held = Held::new(&segment, claim);
            panic!("a producer dies");
        }));
        assert!(abandoned.is_err());
        assert!(watermarks.publish(|offset| segment.committed_end(offset)));
        assert_eq!(watermarks.published(), 4096 + 640);
        let header = segment.map.header(4096).expect("committed");
        let header = RecordHeader::read(header, identity.seed, 4096).expect("it holds");
        assert_eq!(header.kind, KIND_PAD);
    }

    #[test]
    fn an_appender_can_move_to_its_thread() {
        fn sends<T: Send>() {}
        sends::<Appender>();
        sends::<crate::Reader>();
    }
}
