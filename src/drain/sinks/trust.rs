//! Whether a connection may serve another batch. One on which a batch has not come to its end may
//! not: what became of that batch is open, also where its future was dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::drain::sink::{Class, Failure};

/// The trust in a connection, once lost never found.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    lost: Arc<AtomicBool>,
}

/// A batch that has begun on a connection; dropped before it was settled, it costs the trust.
#[derive(Debug)]
pub struct Begun {
    trust: Trust,
    settled: bool,
}

impl Trust {
    /// Whether every batch so far has come to its end.
    pub fn holds(&self) -> bool {
        // Relaxed: nothing else is read by it.
        !self.lost.load(Ordering::Relaxed)
    }

    /// A batch begins.
    pub fn begin(&self) -> Begun {
        Begun { trust: self.clone(), settled: false }
    }
}

impl Begun {
    /// It has come to its end, or it has not, by what became of its events.
    pub fn end(mut self, verdicts: &[Result<(), Failure>]) {
        let may_pass = |verdict: &Result<(), Failure>| {
            verdict.as_ref().is_err_and(|failure| failure.class != Class::Permanent)
        };
        self.settled = !verdicts.iter().any(may_pass);
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.settled {
            self.trust.lost.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_trusted_until_a_batch_on_it_does_not_end_well() {
        let trust = Trust::default();
        trust.begin().end(&[Ok(()), Err(Failure::permanent("too large"))]);
        assert!(trust.holds());
        trust.begin().end(&[Err(Failure::temporary("lost"))]);
        assert!(!trust.holds());
        let trust = Trust::default();
        drop(trust.begin());
        assert!(!trust.holds());
    }
}
