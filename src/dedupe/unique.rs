//! Identified -> Unique, or a delivery of an event that is known: the only place that makes a
//! [`Unique`].

use forebay_log::Key;

use super::{Fingerprinter, Outcome, Reservation, Steady, Table};
use crate::append::Appended;
use crate::identify::Identified;
use crate::reject::Reject;

/// What the table says of a delivery, which it borrows: there is one answer at a time.
#[derive(Debug)]
pub enum Delivery<'i> {
    /// The first of its event: to be appended.
    Unique(Unique<'i>),
    /// One more of an event in the log.
    Duplicate(Duplicate<'i>),
    /// One more of an event that is between reservation and append: its outcome decides, so ask
    /// again in a moment.
    Pending,
}

/// The first delivery of an event, its key reserved until it is appended or given up.
#[derive(Debug)]
pub struct Unique<'i> {
    identified: &'i Identified<'i>,
    key: Key,
    reservation: Reservation,
    /// The key of its signed bytes, where its id is not among them; reserved unless they came before.
    /// It goes into the record too: a start has both from there, and a purge what belongs together.
    signed: Option<(Key, Option<Reservation>)>,
}

/// A delivery of a known event.
#[derive(Debug)]
pub struct Duplicate<'i> {
    /// The delivery.
    pub identified: &'i Identified<'i>,
    /// The key of its event.
    pub key: Key,
    /// The key of its signed bytes, where they came before under another id; for its record as well.
    pub signed_key: Option<Key>,
    /// Its record: `acked` must reach its end before this may be acknowledged too.
    pub twin: Appended,
}

impl<'i> Delivery<'i> {
    /// Looks the event up and reserves its key if it is new.
    pub fn dedupe(
        identified: &'i mut Identified<'_>,
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
            Outcome::Seen { first, end } => {
                let (signed_key, twin) = (None, Appended::between(first, end));
                return Ok(Self::Duplicate(Duplicate { identified, key, signed_key, twin }));
            }
            Outcome::Pending => return Ok(Self::Pending),
            Outcome::Full => return Err(Reject::DedupeFull),
        };
        let signed = match signed.map(|key| (key, table.reserve(key, at))) {
            Some((signed, Outcome::Reserved(reservation))) => Some((signed, Some(reservation))),
            Some((signed, Outcome::Seen { first, end })) => {
                identified.suspect();
                if source.drops_replays {
                    let (signed_key, twin) = (Some(signed), Appended::between(first, end));
                    return Ok(Self::Duplicate(Duplicate { identified, key, signed_key, twin }));
                }
                Some((signed, None))
            }
            Some((_, Outcome::Pending)) => return Ok(Self::Pending),
            // The event itself found room, and this one only watches over it.
            Some((_, Outcome::Full)) | None => None,
        };
        Ok(Self::Unique(Unique { identified, key, reservation, signed }))
    }
}

impl<'i> Unique<'i> {
    /// The delivery.
    pub fn identified(&self) -> &'i Identified<'i> {
        self.identified
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
        if let Some((_, Some(signed))) = self.signed {
            signed.appended(end);
        }
    }
}
