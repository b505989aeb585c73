//! Verified -> Identified: the only place that makes an [`Identified`].

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use super::{EventKey, Identity, Item, Items};
use crate::reject::Reject;
use crate::verify::{DigestOf, Verified};

/// A verified request, or an item of its batch, of which we know which event it carries.
#[derive(Debug)]
pub struct Identified<'v> {
    verified: Verified<'v>,
    identity: Identity<'v>,
    item: Option<(Range<usize>, Rc<Digests>)>,
    suspect_replay: bool,
}

/// The digests of a batch's request, each made once: every item's key may need them.
#[derive(Debug, Default)]
struct Digests {
    signed: Cell<Option<[u8; 32]>>,
    but_time: Cell<Option<[u8; 32]>>,
}

/// The events that a request carries, in its order, one at a time. Each is lent: a copy of it for
/// every hand that it goes through would cost more than to identify it.
#[derive(Debug)]
pub struct Events<'v> {
    current: Option<Identified<'v>>,
    /// Whether that was lent.
    lent: bool,
    /// Where the others come from. Boxed: few requests have any.
    batch: Option<Box<OfBatch<'v>>>,
}

#[derive(Debug)]
struct OfBatch<'v> {
    verified: Verified<'v>,
    items: Items<'v>,
    digests: Rc<Digests>,
}

impl<'v> OfBatch<'v> {
    fn next(&mut self) -> Option<Identified<'v>> {
        let Item { bytes, identity } = self.items.next()?;
        let item = Some((bytes, Rc::clone(&self.digests)));
        Some(Identified { verified: self.verified, identity, item, suspect_replay: false })
    }
}

impl<'v> Events<'v> {
    /// The next one.
    pub fn lend(&mut self) -> Option<&mut Identified<'v>> {
        if self.lent {
            self.current = self.batch.as_mut()?.next();
        }
        self.lent = true;
        self.current.as_mut()
    }
}

impl<'v> Identified<'v> {
    /// Reads the identity by the source's rules, of each event that the request carries.
    pub fn identify(verified: Verified<'v>) -> Events<'v> {
        let admitted = verified.admitted();
        let rules = &admitted.source().identity;
        if let Some(items) = rules.items(admitted.headers(), admitted.body()) {
            let digests = Rc::default();
            let mut batch = Box::new(OfBatch { verified, items, digests });
            return Events { current: batch.next(), lent: false, batch: Some(batch) };
        }
        let identity = rules.extract(admitted.headers(), admitted.body());
        let one = Self { verified, identity, item: None, suspect_replay: false };
        Events { current: Some(one), lent: false, batch: None }
    }

    /// The request.
    pub fn verified(&self) -> &Verified<'v> {
        &self.verified
    }

    /// Which event it carries.
    pub fn identity(&self) -> &Identity<'v> {
        &self.identity
    }

    /// The bytes of the event: the body, or its part of a batch's body.
    pub fn body(&self) -> &'v [u8] {
        let body = self.verified.admitted().body();
        match &self.item {
            Some((bytes, _)) => body.get(bytes.clone()).unwrap_or_default(),
            None => body,
        }
    }

    /// The event key; what was signed is digested only if the id alone does not make it.
    pub fn key(&self) -> Result<EventKey<'_>, Reject> {
        self.identity.key(|over| {
            let Some((_, digests)) = &self.item else { return self.digest(over) };
            let known = match over {
                DigestOf::Signed => &digests.signed,
                DigestOf::SignedButTime => &digests.but_time,
            };
            let digest = known.get().map_or_else(|| self.digest(over), Ok)?;
            known.set(Some(digest));
            Ok(digest)
        })
    }

    /// The key of the signed bytes alone, of an event whose id is not among them: `key` is its
    /// own.
    pub fn signed_key<'k>(&self, key: &EventKey<'k>) -> Option<EventKey<'k>> {
        self.identity.unsigned.then(|| key.without_id())
    }

    /// Its signed bytes came before under another id.
    pub fn suspect_replay(&self) -> bool {
        self.suspect_replay
    }

    /// Marks it so.
    pub(crate) fn suspect(&mut self) {
        self.suspect_replay = true;
    }

    fn digest(&self, over: DigestOf) -> Result<[u8; 32], Reject> {
        let admitted = self.verified.admitted();
        admitted.source().verifier.digest(over, admitted.claim(), admitted.body())
    }

    /// Whose event it is: as the source says, else as the event does.
    pub fn tenant(&self) -> Option<&str> {
        let fixed = self.verified.admitted().source().tenant.as_deref();
        fixed.or(self.identity.tenant.as_deref())
    }
}
