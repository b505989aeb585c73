//! A destination that is away is left alone, but for one question now and then.
//!
//! ```text
//! closed --failures in a row--> open --its wait is over--> probing --answered--> half open
//!    ^                            ^                           |                     |
//!    |                            +---------- failed ---------+<------ failed ------+
//!    +------------------------------------------------------------ answered --------+
//! ```
//!
//! A probe changes nothing at the destination. Half open, one batch is tried. Nothing is told to
//! fail while the circuit is open: events wait where they are, in the log.

use std::time::{Duration, Instant};

use super::retry::Jitter;

/// Whole batches that fail in a row until the circuit opens.
const FAILURES: u32 = 5;
/// The wait before the first probe, and the longest; it doubles with every probe that fails.
const WAIT_FIRST: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(30);

/// The circuit of one sink.
#[derive(Debug)]
pub(super) struct Circuit {
    state: State,
    failures: u32,
    /// Probes and trials that failed since it opened.
    opened: u32,
}

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// All of it.
    Closed,
    /// Nothing before this moment; then a probe.
    Open(Instant),
    /// Nothing: a probe is under way.
    Probing,
    /// One batch.
    HalfOpen,
}

impl State {
    /// The value of the label `state`.
    pub(super) const fn label(self) -> u64 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open(_) | Self::Probing => 2,
        }
    }
}

impl Circuit {
    /// Closed.
    pub(super) const fn new() -> Self {
        Self { state: State::Closed, failures: 0, opened: 0 }
    }

    /// What may be done now.
    pub(super) const fn state(&self) -> State {
        self.state
    }

    /// Whether a probe is due; it is then under way.
    pub(super) fn begins_probe(&mut self, now: Instant) -> bool {
        let due = matches!(self.state, State::Open(until) if until <= now);
        if due {
            self.state = State::Probing;
        }
        due
    }

    /// The destination has answered the probe.
    pub(super) fn probed(&mut self, answered: bool, now: Instant, jitter: &mut Jitter) {
        if answered {
            self.state = State::HalfOpen;
        } else {
            self.open(now, jitter);
        }
    }

    /// The destination took a batch, or refused events for what they are. True if the circuit
    /// closes by it.
    pub(super) fn answered(&mut self) -> bool {
        let closes = self.state == State::HalfOpen;
        self.failures = 0;
        // What was sent before it opened may still be answered: then it is not away.
        self.state = State::Closed;
        self.opened = 0;
        closes
    }

    /// A whole batch failed.
    pub(super) fn failed(&mut self, now: Instant, jitter: &mut Jitter) {
        self.failures += 1;
        match self.state {
            State::Closed if self.failures < FAILURES => {}
            State::Closed | State::HalfOpen => self.open(now, jitter),
            State::Open(_) | State::Probing => {}
        }
    }

    fn open(&mut self, now: Instant, jitter: &mut Jitter) {
        let bound = WAIT_FIRST.saturating_mul(1 << self.opened.min(16)).min(WAIT_MAX);
        self.opened += 1;
        // Never at once: half of it is fixed.
        self.state = State::Open(now + bound / 2 + jitter.up_to(bound / 2));
    }
}

#[cfg(test)]
mod tests {
    use forebay_log::Clock;

    use super::*;

    fn opened(now: Instant, jitter: &mut Jitter) -> Circuit {
        let mut circuit = Circuit::new();
        for failure in 1..=FAILURES {
            assert_eq!(circuit.state(), State::Closed);
            circuit.failed(now, jitter);
            let is_open = matches!(circuit.state(), State::Open(_));
            assert_eq!(is_open, failure == FAILURES);
        }
        circuit
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_by_probe_and_trial() {
        let (now, mut jitter) = (Clock::System.monotonic(), Jitter::seeded());
        let mut circuit = opened(now, &mut jitter);
        assert!(!circuit.begins_probe(now), "not at once");
        let later = now + WAIT_FIRST;
        assert!(circuit.begins_probe(later));
        assert!(!circuit.begins_probe(later), "one at a time");
        circuit.probed(true, later, &mut jitter);
        assert_eq!(circuit.state(), State::HalfOpen);
        assert!(circuit.answered());
        assert_eq!(circuit.state(), State::Closed);
    }

    #[test]
    fn an_answer_between_failures_keeps_it_closed() {
        let (now, mut jitter) = (Clock::System.monotonic(), Jitter::seeded());
        let mut circuit = Circuit::new();
        for _ in 0..100 {
            for _ in 1..FAILURES {
                circuit.failed(now, &mut jitter);
                assert_eq!(circuit.state(), State::Closed);
            }
            assert!(!circuit.answered());
        }
        assert_eq!(circuit.state(), State::Closed);
    }

    #[test]
    fn a_trial_that_fails_opens_it_again_and_waits_grow_up_to_their_maximum() {
        let (mut now, mut jitter) = (Clock::System.monotonic(), Jitter::seeded());
        let mut circuit = opened(now, &mut jitter);
        for round in 0..40 {
            let State::Open(until) = circuit.state() else { panic!("open") };
            assert!(until - now <= WAIT_MAX && until > now, "{round}");
            if round > 10 {
                assert!(until - now >= WAIT_MAX / 2, "{round}");
            }
            now = until;
            assert!(circuit.begins_probe(now));
            circuit.probed(round % 2 == 0, now, &mut jitter);
            if round % 2 == 0 {
                circuit.failed(now, &mut jitter);
            }
        }
    }
}
