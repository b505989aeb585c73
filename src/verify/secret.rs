//! Secrets as configured: text that never prints itself, and the names they go by.
//!
//! Nothing here decodes or judges a secret; `keys` turns it into a key once, at load.

use std::fmt;

use serde::Deserialize;

/// The text of a secret. Its `Debug` says nothing and its bytes are overwritten on drop.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct SecretText(String);

impl SecretText {
    /// Takes the text over.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself; the name is long so that each use is noticed in review.
    pub fn expose_secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

impl Drop for SecretText {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        bytes.fill(0);
        // Keeps the compiler from dropping the stores as dead. Copies that a reallocation left
        // behind are out of reach of safe code; this shortens exposure, it does not end it.
        std::hint::black_box(&bytes);
    }
}

/// A secret with the name that operators see and, where the sender names its keys, its key id.
#[derive(Clone, Debug)]
pub struct NamedSecret {
    /// What metrics, records and messages call it.
    pub name: String,
    /// The secret.
    pub value: SecretText,
    /// The id under which the sender knows it, such as `LiveKit`'s API key.
    pub key_id: Option<String>,
}

/// Which of a source's secrets matched, in the order of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretIndex(u8);

impl SecretIndex {
    /// None of them: the scheme verifies nothing.
    pub(super) const NONE: Self = Self(u8::MAX);

    pub(super) fn new(index: usize) -> Self {
        // SECRETS_MAX keeps it far below 255; a source with more does not load.
        Self(u8::try_from(index).unwrap_or(u8::MAX))
    }

    /// As an index into the configured list.
    pub fn as_usize(self) -> usize {
        usize::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_says_nothing_about_itself() {
        let named = NamedSecret {
            name: "current".into(),
            value: SecretText::new("hunter2-hunter2-hunter2"),
            key_id: Some("APIkey".into()),
        };
        for text in [format!("{named:?}"), format!("{named:#?}"), format!("{:?}", named.value)] {
            assert!(!text.contains("hunter2"), "{text}");
            assert!(text.contains("SecretText(..)"), "{text}");
        }
    }
}
