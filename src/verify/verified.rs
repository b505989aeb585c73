//! Admitted -> Verified: the only place that makes a [`Verified`].

use ring::hmac;

use super::SecretIndex;
use crate::receive::Admitted;
use crate::reject::Reject;

/// A request that one of its source's secrets has signed.
#[derive(Clone, Copy, Debug)]
pub struct Verified<'r> {
    admitted: &'r Admitted<'r>,
    secret: SecretIndex,
}

impl<'r> Verified<'r> {
    /// Checks the signature over the body as it was received.
    pub fn verify(admitted: &'r Admitted<'r>) -> Result<Self, Reject> {
        let verifier = &admitted.source().verifier;
        let secret = verifier.check(admitted.claim(), admitted.body())?;
        Ok(Self { admitted, secret })
    }

    /// The request.
    pub fn admitted(&self) -> &'r Admitted<'r> {
        self.admitted
    }

    /// The MAC of `text` under the secret that matched; none if that is a public key. For
    /// handshakes alone, which see to it that no such MAC is a signature.
    pub(crate) fn mac(&self, text: &[u8]) -> Option<hmac::Tag> {
        self.admitted.source().verifier.mac(self.secret, text)
    }

    /// The secret that matched.
    pub fn secret(&self) -> SecretIndex {
        self.secret
    }

    /// The name of the secret that matched.
    pub fn secret_name(&self) -> &str {
        self.admitted.source().verifier.secret_name(self.secret)
    }
}
