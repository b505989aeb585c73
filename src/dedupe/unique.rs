//! Identified -> Unique, or a delivery of an event that is known: the only place that makes a
//! [`Unique`].

use forebay_log::Key;

use super::{Fingerprinter, Outcome, Reservation, Steady, Table};
use crate::identify::Identified;
use crate::reject::Reject;

/// What the table says of a delivery.
#[derive(Debug)]
pub enum Delivery<'v> {
    /// The first of its event: to be appended.
    Unique(Unique<'v>),
    /// One more of an event in the log.
    Duplicate(Duplicate<'v>),
    /// One more of an event that is between reservation and append: its outcome decides, so ask
    /// again in a moment.
    Pending,
}

/// The first delivery of an event, its key reserved until it is appended or given up.
#[derive(Debug)]
pub struct Unique<'v> {
    identified: Identified<'v>,
    key: Key,
    reservation: Reservation,
    /// The key of its signed bytes, where its id is not among them and they did not come before. It
    /// goes into the record too, from which a start has both.
    signed: Option<(Key, Reservation)>,
}

/// A delivery of a known event.
#[derive(Debug)]
pub struct Duplicate<'v> {
    /// The delivery.
    pub identified: Identified<'v>,
    /// The key of its event.
    pub key: Key,
    /// The offset that the lane's `acked` must reach before this may be acknowledged too.
    pub end: u64,
}

impl<'v> Delivery<'v> {
    /// Looks the event up and reserves its key if it is new.
    pub fn dedupe(
        mut identified: Identified<'v>,
        table: &Table,
        fingerprinter: &Fingerprinter,
        steady: Steady,
    ) -> Result<Self, Reject> {
        let admitted = identified.verified().admitted();
        let source = admitted.source();
        let at = steady.at(admitted.received().started);
        let (key, signed) = {
            let key = identified.key()?;
            // Of a tenant that may not be signed this key knows nothing.
            let signed = identified.signed_key(&key);
            let signed =
                signed.map(|key| fingerprinter.fingerprint(&source.name, None, key.parts()));
            let own = fingerprinter.fingerprint(&source.name, identified.tenant(), key.parts());
            (own, signed)
        };
        let reservation = match table.reserve(key, at) {
            Outcome::Reserved(reservation) => reservation,
            Outcome::Seen { end } => {
                return Ok(Self::Duplicate(Duplicate { identified, key, end }));
            }
            Outcome::Pending => return Ok(Self::Pending),
            Outcome::Full => return Err(Reject::DedupeFull),
        };
        let signed = match signed.map(|key| (key, table.reserve(key, at))) {
            Some((key, Outcome::Reserved(signed))) => Some((key, signed)),
            Some((_, Outcome::Seen { end })) => {
                identified.suspect();
                if source.drops_replays {
                    return Ok(Self::Duplicate(Duplicate { identified, key, end }));
                }
                // The record of those that came first has it, for as long as it counts.
                None
            }
            Some((_, Outcome::Pending)) => return Ok(Self::Pending),
            // The event itself found room, and this one only watches over it.
            Some((_, Outcome::Full)) | None => None,
        };
        Ok(Self::Unique(Unique { identified, key, reservation, signed }))
    }
}

impl<'v> Unique<'v> {
    /// The delivery.
    pub fn identified(&self) -> &Identified<'v> {
        &self.identified
    }

    /// The key of its event.
    pub fn key(&self) -> Key {
        self.key
    }

    /// The key of its signed bytes, which its record is to carry too.
    pub fn signed_key(&self) -> Option<Key> {
        self.signed.as_ref().map(|(key, _)| *key)
    }

    /// The event is in the log up to `end`: from now on it is known.
    pub fn appended(self, end: u64) {
        self.reservation.appended(end);
        if let Some((_, signed)) = self.signed {
            signed.appended(end);
        }
    }
}
