//! Verified -> Identified: the only place that makes an [`Identified`].

use super::{EventKey, Identity};
use crate::reject::Reject;
use crate::verify::Verified;

/// A verified request of which we know which event it carries.
#[derive(Debug)]
pub struct Identified<'v> {
    verified: Verified<'v>,
    identity: Identity<'v>,
}

impl<'v> Identified<'v> {
    /// Reads the identity by the source's rules.
    pub fn identify(verified: Verified<'v>) -> Self {
        let admitted = verified.admitted();
        let rules = &admitted.source().identity;
        let identity = rules.extract(admitted.headers(), admitted.body());
        Self { verified, identity }
    }

    /// The request.
    pub fn verified(&self) -> &Verified<'v> {
        &self.verified
    }

    /// Which event it carries.
    pub fn identity(&self) -> &Identity<'v> {
        &self.identity
    }

    /// The event key; what was signed is digested only if the id alone does not make it.
    pub fn key(&self) -> Result<EventKey<'_>, Reject> {
        let admitted = self.verified.admitted();
        let verifier = &admitted.source().verifier;
        self.identity.key(|over| verifier.digest(over, admitted.claim(), admitted.body()))
    }

    /// Whose event it is: as the source says, else as the event does.
    pub fn tenant(&self) -> Option<&str> {
        let fixed = self.verified.admitted().source().tenant.as_deref();
        fixed.or(self.identity.tenant.as_deref())
    }
}
