//! The event key: the parts by which two deliveries are known to be of one event.

use super::Identity;
use crate::reject::Reject;
use crate::verify::DigestOf;

/// What an event key is made from. The number is part of the key, so that keys of different kinds
/// never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum KeyKind {
    /// An id within the signed bytes.
    Id = 1,
    /// An id that anyone could change on the way, or that does not tell events apart, and the
    /// digest of what was signed but for the time of the attempt.
    IdAndSigned = 2,
    /// No id at all: the digest of everything that was signed.
    Signed = 3,
}

/// The kind of the key that is made of signed bytes alone, beside an event's own.
const SIGNED_ALONE: u8 = 4;

/// The parts of an event key, before they are hashed with their source and tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventKey<'i> {
    kind: [u8; 1],
    id: &'i str,
    ends: &'i [u16],
    digest: Option<[u8; 32]>,
    item: Option<[u8; 4]>,
}

impl Identity<'_> {
    /// What the event key is made from.
    pub fn key_kind(&self) -> KeyKind {
        self.kind
    }

    /// The event key. `digest` is called only if the key needs it: it is
    /// [`Verifier::digest`](crate::verify::Verifier::digest) of the same request. A key that
    /// needs a digest is never made without one: it would be one key for many events.
    pub fn key(
        &self,
        digest: impl FnOnce(DigestOf) -> Result<[u8; 32], Reject>,
    ) -> Result<EventKey<'_>, Reject> {
        let digest = match self.kind {
            KeyKind::Id => None,
            KeyKind::IdAndSigned => Some(digest(DigestOf::SignedButTime)?),
            KeyKind::Signed => Some(digest(DigestOf::Signed)?),
        };
        // The digest is of the whole request: of a batch it also takes the number of the item.
        let item = self.item.filter(|_| digest.is_some()).map(u32::to_le_bytes);
        let count = self.ends.iter().take_while(|end| **end != 0).count();
        Ok(EventKey {
            kind: [self.kind as u8],
            id: self.event_key.as_deref().or(self.event_id.as_deref()).unwrap_or_default(),
            ends: self.ends.get(..count).unwrap_or_default(),
            digest,
            item,
        })
    }
}

impl EventKey<'_> {
    /// The key of the signed bytes alone, where the id that goes with them is not signed.
    pub(super) fn without_id(&self) -> Self {
        Self { kind: [SIGNED_ALONE], id: "", ends: &[], ..*self }
    }

    /// What to hash, in order, each with its length before it.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        let id = self.ends.iter().filter_map(move |end| {
            let end = usize::from(*end);
            let part = self.id.as_bytes().get(start..end);
            // Past the colon that joins the parts.
            start = end + 1;
            part
        });
        let digest = self.digest.as_ref().map(|digest| &digest[..]);
        let item = self.item.as_ref().map(|item| &item[..]);
        std::iter::once(&self.kind[..]).chain(id).chain(digest).chain(item)
    }
}
