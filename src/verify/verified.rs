//! Admitted -> Verified: the only place that makes a [`Verified`].

use super::SecretIndex;
use crate::receive::Admitted;
use crate::reject::Reject;

/// A request that one of its source's secrets has signed.
#[derive(Debug)]
pub struct Verified<'s> {
    admitted: Admitted<'s>,
    secret: SecretIndex,
}

impl<'s> Verified<'s> {
    /// Checks the signature over the body as it was received.
    pub fn verify(admitted: Admitted<'s>) -> Result<Self, Reject> {
        let headers = &admitted.head().headers;
        let secret =
            admitted.source().verifier.check(admitted.claim(), headers, admitted.body())?;
        Ok(Self { admitted, secret })
    }

    /// The request.
    pub fn admitted(&self) -> &Admitted<'s> {
        &self.admitted
    }

    /// The name of the secret that matched.
    pub fn secret_name(&self) -> &str {
        self.admitted.source().verifier.secret_name(self.secret)
    }
}
