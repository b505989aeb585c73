//! The log against the ledger: of what was acknowledged nothing is missing, nothing is there
//! twice, and nothing is there that should not be.

use std::io;
use std::path::Path;

use forebay_log::{Kind, Reader, RecordRef, Tag};
use serde::Serialize;

use crate::ledger::Ledger;
use crate::requests::{Signer, prefix};

/// What the log and the ledger say together, in events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Findings {
    /// Genuine events of which at least one request went out.
    pub(crate) sent: u64,
    /// Of these, answered by a 2xx.
    pub(crate) acknowledged: u64,
    /// Acknowledged, and in the log exactly once.
    pub(crate) stored_once: u64,
    /// In the log, although no request for it was answered by a 2xx: allowed.
    pub(crate) stored_unanswered: u64,
    /// Acknowledged, and not in the log.
    pub(crate) lost: u64,
    /// In the log more than once.
    pub(crate) twice: u64,
    /// Records of this run with an id that it never used.
    pub(crate) unknown: u64,
    /// In the log with another body than was sent.
    pub(crate) altered: u64,
    /// Forged, stale or malformed, and in the log or answered by a 2xx all the same.
    pub(crate) wrongly_taken: u64,
    /// Later deliveries that the log remembers: allowed.
    pub(crate) deliveries: u64,
    /// Records of others, and from before this run.
    pub(crate) foreign: u64,
}

impl Findings {
    /// Whether the receiver has kept its word.
    pub(crate) fn sound(&self) -> bool {
        self.lost + self.twice + self.unknown + self.altered + self.wrongly_taken == 0
    }
}

/// Reads a log and holds it against a ledger.
#[derive(Debug)]
pub(crate) struct Auditor<'a> {
    ledger: &'a Ledger,
    signers: &'a [Signer],
    prefix: String,
    stored: Vec<u8>,
    findings: Findings,
}

impl<'a> Auditor<'a> {
    /// An audit of the run whose ids begin as those of `run`.
    pub(crate) fn new(ledger: &'a Ledger, signers: &'a [Signer], run: u64) -> Self {
        let stored = vec![0; ledger.entries().len()];
        Self { ledger, signers, prefix: prefix(run), stored, findings: Findings::default() }
    }

    /// Reads the lane in `dir` from its oldest record to its newest.
    pub(crate) fn read(mut self, dir: &Path) -> io::Result<Findings> {
        let mut reader = Reader::open(dir).map_err(io::Error::other)?;
        while let Some(record) = reader.next().map_err(io::Error::other)? {
            self.see(&record)?;
        }
        Ok(self.finish())
    }

    fn see(&mut self, record: &RecordRef<'_>) -> io::Result<()> {
        let id = record.meta().get(Tag::EventId).unwrap_or_default();
        match record.kind() {
            Kind::Event => match self.number(id).or_else(|| self.number(record.body())) {
                Some(number) => self.stored(number, record.body())?,
                None => self.findings.foreign += 1,
            },
            Kind::Delivery => self.findings.deliveries += 1,
            Kind::Quarantine => {}
        }
        Ok(())
    }

    /// The number of the event whose id stands in these bytes, if it is one of this run.
    fn number(&self, bytes: &[u8]) -> Option<u64> {
        let prefix = self.prefix.as_bytes();
        let start = bytes.windows(prefix.len()).position(|window| window == prefix)?;
        let digits = &bytes[start + prefix.len()..];
        let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
        // No digits, or too many: an id that this run never used.
        Some(std::str::from_utf8(&digits[..end]).ok()?.parse().unwrap_or(u64::MAX))
    }

    fn stored(&mut self, number: u64, body: &[u8]) -> io::Result<()> {
        let entry = u32::try_from(number).ok().and_then(|number| self.ledger.entry(number));
        let signer = entry.and_then(|entry| self.signers.get(usize::from(entry.draft.sender)));
        let (Some(entry), Some(signer)) = (entry, signer) else {
            self.findings.unknown += 1;
            return Ok(());
        };
        let index = usize::try_from(number).map_err(io::Error::other)?;
        self.stored[index] = self.stored[index].saturating_add(1);
        if entry.draft.fault.is_kept() && signer.request(&entry.draft)?.body != body {
            self.findings.altered += 1;
        }
        Ok(())
    }

    fn finish(mut self) -> Findings {
        let findings = &mut self.findings;
        for (entry, stored) in self.ledger.entries().iter().zip(&self.stored) {
            if !entry.draft.fault.is_kept() {
                findings.wrongly_taken += u64::from(*stored > 0 || entry.acknowledged > 0);
                continue;
            }
            let acknowledged = entry.acknowledged > 0;
            findings.sent += u64::from(entry.requests > 0);
            findings.acknowledged += u64::from(acknowledged);
            match (stored, acknowledged, entry.requests > 0) {
                (0, true, _) => findings.lost += 1,
                (0, false, _) => {}
                // What was never sent cannot have been stored.
                (1.., _, false) => findings.unknown += 1,
                (1, true, true) => findings.stored_once += 1,
                (1, false, true) => findings.stored_unanswered += 1,
                (2.., _, true) => findings.twice += 1,
            }
        }
        self.findings
    }
}

#[cfg(test)]
mod tests {
    use forebay_log::{AckLevel, Clock, Key, Lane, LaneOptions, MetaWriter, NewRecord, Retention};

    use super::*;
    use crate::requests::{Draft, Fault, Sender};

    const RUN: u64 = 0xabc;

    /// What happens to a body before it is stored.
    type Change = fn(&mut Vec<u8>);

    /// A ledger of events that were all sent and acknowledged once.
    fn ledger(faults: &[Fault]) -> Ledger {
        let mut ledger = Ledger::default();
        for fault in faults {
            let draft = Draft { fault: *fault, created_ns: 1, signed_ns: 1, ..Draft::default() };
            let draft = ledger.open(draft).expect("few events");
            ledger.sent(draft.number);
            if fault.is_kept() {
                ledger.acknowledged(draft.number);
            }
        }
        ledger
    }

    fn signers() -> Vec<Signer> {
        let sender = Sender::own("livekit").expect("a preset");
        vec![Signer::new(sender, 300, RUN).expect("it can sign")]
    }

    /// The findings about a lane that holds these events of the ledger, in this order.
    fn audit(ledger: &Ledger, kept: &[(u32, Change)]) -> Findings {
        let folder = tempfile::tempdir().expect("a folder");
        let options = LaneOptions {
            segment_bytes: forebay_log::SEGMENT_BYTES_MIN,
            ack: AckLevel::Written,
            retention: Retention { age: None, bytes: None },
            disk_reserve_bytes: Some(0),
            volatile_allowed: true,
            clock: Clock::System,
            ..LaneOptions::default()
        };
        let (lane, _) = Lane::open(folder.path().join("lane"), options).expect("a lane");
        let (signers, mut appender) = (signers(), lane.appender());
        for (number, change) in kept {
            let draft = ledger.entry(*number).map_or(
                Draft { number: *number, created_ns: 1, signed_ns: 1, ..Draft::default() },
                |entry| entry.draft,
            );
            let mut body = signers[0].request(&draft).expect("it can be signed").body;
            change(&mut body);
            let mut meta = MetaWriter::with_capacity(64);
            let id = signers[0].id(*number);
            meta.field(Tag::EventId, id.as_bytes()).expect("short");
            let record = NewRecord {
                kind: Kind::Event,
                key: Key([7; 16]),
                received_ns: 1,
                meta: meta.as_bytes(),
                body: &body,
            };
            appender.append(&record).expect("there is room");
        }
        let findings = Auditor::new(ledger, &signers, RUN).read(lane.dir()).expect("it is read");
        lane.close();
        findings
    }

    fn nothing(_: &mut Vec<u8>) {}

    #[test]
    fn a_log_that_holds_each_event_once_is_sound() {
        let ledger = ledger(&[Fault::None, Fault::Forged, Fault::None]);
        let findings = audit(&ledger, &[(2, nothing), (0, nothing)]);
        assert!(findings.sound(), "{findings:?}");
        assert_eq!((findings.sent, findings.acknowledged, findings.stored_once), (2, 2, 2));
    }

    #[test]
    fn an_event_that_the_log_lacks_is_found() {
        let findings = audit(&ledger(&[Fault::None, Fault::None]), &[(0, nothing)]);
        assert!(!findings.sound());
        assert_eq!((findings.lost, findings.stored_once), (1, 1));
    }

    #[test]
    fn an_event_that_is_there_twice_is_found() {
        let findings = audit(&ledger(&[Fault::None]), &[(0, nothing), (0, nothing)]);
        assert!(!findings.sound());
        assert_eq!((findings.twice, findings.stored_once), (1, 0));
    }

    #[test]
    fn an_event_that_nobody_sent_is_found() {
        let findings = audit(&ledger(&[Fault::None]), &[(0, nothing), (1, nothing)]);
        assert!(!findings.sound());
        assert_eq!(findings.unknown, 1);
    }

    #[test]
    fn a_body_that_changed_and_a_forgery_that_was_taken_are_found() {
        let ledger = ledger(&[Fault::None, Fault::Forged]);
        let changed: Change = |body| body[20] ^= 1;
        let findings = audit(&ledger, &[(0, changed), (1, nothing)]);
        assert!(!findings.sound());
        assert_eq!((findings.altered, findings.wrongly_taken), (1, 1));
    }

    #[test]
    fn an_event_without_an_answer_may_be_there_or_not() {
        let mut ledger = Ledger::default();
        for _ in 0..2 {
            let times = Draft { created_ns: 1, signed_ns: 1, ..Draft::default() };
            let draft = ledger.open(times).expect("few events");
            ledger.sent(draft.number);
        }
        let findings = audit(&ledger, &[(1, nothing)]);
        assert!(findings.sound(), "{findings:?}");
        assert_eq!((findings.stored_unanswered, findings.acknowledged), (1, 0));
    }
}
