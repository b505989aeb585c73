//! The judge of a campaign: what was sent and acknowledged, as only the senders know it, against
//! what the log holds. It shares nothing with the server, and the ledger lives outside of the
//! data folder.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::support::log::Row;
use crate::support::random::Random;

/// What the senders know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    /// Whether each event that was sent has been acknowledged.
    acknowledged: HashMap<String, bool>,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Finding {
    /// Acknowledged, and not in the log.
    Lost(String),
    /// In the log more than once.
    Twice(String),
    /// In the log, and never sent.
    Unknown(String),
    /// In the log with other bytes than were sent.
    Altered(String),
    /// A record that does not stand behind the one before it.
    Backwards(String),
}

impl Ledger {
    /// Notes that an event is about to be sent; must come before its first byte.
    pub(crate) fn sent(&mut self, id: &str) {
        self.acknowledged.entry(id.to_owned()).or_insert(false);
    }

    /// Notes that an event was answered by 200.
    pub(crate) fn acknowledged(&mut self, id: &str) {
        self.acknowledged.insert(id.to_owned(), true);
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (id, acknowledged) in other.acknowledged {
            *self.acknowledged.entry(id).or_insert(false) |= acknowledged;
        }
    }

    pub(crate) fn sent_count(&self) -> usize {
        self.acknowledged.len()
    }

    pub(crate) fn acknowledged_count(&self) -> usize {
        self.acknowledged.values().filter(|acknowledged| **acknowledged).count()
    }

    /// The events whose sender does not know what became of them, in the order of their ids.
    pub(crate) fn unanswered(&self) -> Vec<String> {
        let unanswered = self.acknowledged.iter().filter(|(_, acknowledged)| !**acknowledged);
        let mut ids: Vec<String> = unanswered.map(|(id, _)| id.clone()).collect();
        ids.sort_unstable();
        ids
    }

    /// Some of the acknowledged events, as chance has it.
    pub(crate) fn some_acknowledged(&self, random: &mut Random, count: usize) -> Vec<String> {
        let acknowledged = self.acknowledged.iter().filter(|(_, acknowledged)| **acknowledged);
        let mut ids: Vec<&String> = acknowledged.map(|(id, _)| id).collect();
        // The map's order differs from run to run; the seed alone is to decide.
        ids.sort_unstable();
        let last = ids.len() as u64;
        let draws = if last == 0 { 0 } else { count };
        let pick = |_| usize::try_from(random.next() % last).unwrap_or_default();
        (0..draws).map(pick).map(|index| ids[index].clone()).collect()
    }

    /// Takes an event out, as if it had never been sent; for the check of the check.
    pub(crate) fn forget(&mut self, id: &str) {
        self.acknowledged.remove(id);
    }
}

/// Everything that is wrong with a log, given what its senders know; empty when nothing is.
pub(crate) fn audit(ledger: &Ledger, rows: &[Row]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut held: HashMap<&str, u64> = HashMap::new();
    let mut before = None;
    for row in rows {
        let at = place(&row.position);
        if before.is_some_and(|before| before >= at) {
            findings.push(Finding::Backwards(row.position.clone()));
        }
        before = Some(at);
        let id = row.id();
        if !ledger.acknowledged.contains_key(id) {
            findings.push(Finding::Unknown(id.to_owned()));
        }
        if !row.is_event() {
            continue;
        }
        if row.body() != payload(id) {
            findings.push(Finding::Altered(id.to_owned()));
        }
        *held.entry(id).or_default() += 1;
    }
    let doubled = held.iter().filter(|(_, count)| **count > 1);
    findings.extend(doubled.map(|(id, _)| Finding::Twice((*id).to_owned())));
    let known = ledger.acknowledged.iter();
    let lost = known.filter(|(id, answered)| **answered && !held.contains_key(id.as_str()));
    findings.extend(lost.map(|(id, _)| Finding::Lost(id.clone())));
    findings.sort_unstable();
    findings
}

/// The body of an event, which its id decides: 60 to 4,000 bytes, few of them alike.
pub(crate) fn payload(id: &str) -> Vec<u8> {
    let seed = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut random = Random::new(seed);
    let mut body = format!("{{\"type\":\"kill.test\",\"id\":\"{id}\",\"pad\":\"");
    for _ in 0..random.between(1, 240) {
        write!(body, "{:016x}", random.next()).expect("a String takes all");
    }
    body.push_str("\"}");
    body.into_bytes()
}

/// Epoch and offset of a position's text.
fn place(position: &str) -> (u32, u64) {
    let parts = position.split_once('-');
    let parsed =
        parts.and_then(|(epoch, offset)| Some((epoch.parse().ok()?, offset.parse().ok()?)));
    parsed.unwrap_or_else(|| panic!("not a position: {position}"))
}
