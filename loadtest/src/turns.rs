//! A server that is sent to in many short turns, over the same connections: nothing is set up for a
//! turn but its moments, and the log is held against all of them at the end.

use std::io;

use forebay_log::Clock;

use crate::habits::Habits;
use crate::ledger::Ledger;
use crate::open::{Outcome, Run};
use crate::outbox::Outbox;
use crate::schedule::Schedule;
use crate::session::Session;
use crate::traffic::Traffic;
use crate::wire::Connections;

/// A server, who sends to it, and what they have sent.
pub(crate) struct Turns {
    pub(crate) session: Session,
    connections: Connections,
    traffic: Traffic,
    habits: Vec<Habits>,
    ledger: Ledger,
    run: u64,
}

impl Turns {
    /// Opens the connections.
    pub(crate) fn new(session: Session) -> io::Result<Self> {
        let run = Clock::System.wall_ns();
        let (traffic, habits) = session.traffic(run)?;
        let connections = session.connections()?;
        Ok(Self { session, connections, traffic, habits, ledger: Ledger::default(), run })
    }

    /// Sends what a schedule says. Its ledger is not in the outcome: it goes on with the next.
    pub(crate) fn send(&mut self, schedule: Schedule) -> io::Result<Outcome> {
        let (bounds, outbox) = (self.session.bounds(), Outbox::new(self.habits.clone()));
        let run = Run::new(&mut self.connections, &mut self.traffic, outbox, schedule, bounds)?;
        let mut outcome = run.behind(std::mem::take(&mut self.ledger)).drive(|_| Ok(()))?;
        self.ledger = std::mem::take(&mut outcome.ledger);
        Ok(outcome)
    }

    /// How many events were sent in all; fails where the log does not hold each of them once.
    pub(crate) fn audit(mut self) -> io::Result<u64> {
        let signers = &self.traffic.signers;
        let findings = self.session.hold_against(&self.ledger, signers, self.run)?;
        match findings {
            Some(findings) if findings.sound() && findings.stored_once == findings.sent => {
                Ok(findings.sent)
            }
            Some(findings) => {
                Err(io::Error::other(format!("the log is not what was sent: {findings:?}")))
            }
            None => Err(io::Error::other("there is no log to read")),
        }
    }
}
