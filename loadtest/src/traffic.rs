//! What is sent at each moment that the schedule names: by which sender, for which room, and with
//! what wrong with it. Even and repeatable: shares are kept by counting, not by chance.

use std::io;

use crate::ledger::Ledger;
use crate::requests::{Draft, Fault, Signer};
use crate::schedule::Due;

/// What of all requests is not a new, genuine event.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shares {
    pub(crate) duplicates: f64,
    pub(crate) forgeries: f64,
    pub(crate) stale: f64,
    pub(crate) malformed: f64,
}

/// Comes true for a share of all times that it is asked, as evenly as can be.
#[derive(Clone, Copy, Debug)]
struct Every {
    share: f64,
    sum: f64,
}

impl Every {
    fn new(share: f64) -> Self {
        // Half a step on, so that the first is not always one.
        Self { share, sum: 0.5 }
    }

    /// One more time; true from when it is its turn until it is taken.
    fn step(&mut self) -> bool {
        self.sum += self.share;
        self.sum >= 1.0
    }

    fn take(&mut self) {
        self.sum -= 1.0;
    }
}

/// Makes one request after the other.
#[derive(Debug)]
pub(crate) struct Traffic {
    pub(crate) signers: Vec<Signer>,
    /// The weight of each sender, and how much it is behind the others.
    weights: Vec<(f64, f64)>,
    faults: Vec<(Fault, Every)>,
    rooms: u32,
    next_room: u32,
    /// The last genuine event of each sender.
    last: Vec<Option<Draft>>,
}

impl Traffic {
    /// Senders with their weights, whose events are about so many rooms.
    pub(crate) fn new(senders: Vec<(Signer, f64)>, shares: Shares, rooms: u32) -> Self {
        let Shares { duplicates, forgeries, stale, malformed } = shares;
        let faults = [
            (Fault::Duplicate, duplicates),
            (Fault::Forged, forgeries),
            (Fault::Stale, stale),
            (Fault::Malformed, malformed),
        ];
        let last = vec![None; senders.len()];
        let (signers, weights) =
            senders.into_iter().map(|(signer, weight)| (signer, (weight, 0.0))).unzip();
        Self {
            signers,
            weights,
            faults: faults.map(|(fault, share)| (fault, Every::new(share))).to_vec(),
            rooms: rooms.max(1),
            next_room: 0,
            last,
        }
    }

    /// The request for a moment of the schedule, entered in the ledger unless it is there already.
    pub(crate) fn draft(
        &mut self,
        due: Due,
        now_ns: u64,
        ledger: &mut Ledger,
    ) -> io::Result<Draft> {
        let sender = self.next_sender();
        let fault = if due.room.is_some() { Fault::None } else { self.next_fault(sender) };
        if let (Fault::Duplicate, Some(Some(last))) = (fault, self.last.get(sender)) {
            return Ok(Draft { fault, signed_ns: now_ns, ..*last });
        }
        // There is no duplicate of nothing.
        let fault = if fault == Fault::Duplicate { Fault::None } else { fault };
        let room = due.room.unwrap_or_else(|| {
            self.next_room = (self.next_room + 1) % self.rooms;
            self.next_room
        });
        let draft = ledger.open(Draft {
            number: 0,
            sender: u8::try_from(sender).map_err(io::Error::other)?,
            room,
            happening: due.happening,
            fault,
            created_ns: now_ns,
            signed_ns: now_ns,
        })?;
        if let (Fault::None, Some(last)) = (fault, self.last.get_mut(sender)) {
            *last = Some(draft);
        }
        Ok(draft)
    }

    /// The bytes of a request.
    pub(crate) fn write(&self, into: &mut Vec<u8>, draft: &Draft) -> io::Result<()> {
        into.clear();
        match self.signers.get(usize::from(draft.sender)) {
            Some(signer) => signer.write(into, draft),
            None => Ok(()),
        }
    }

    /// Whoever is furthest behind what his weight gives him.
    fn next_sender(&mut self) -> usize {
        let whole: f64 = self.weights.iter().map(|(weight, _)| weight).sum();
        let mut most = (0, f64::NEG_INFINITY);
        for (index, (weight, behind)) in self.weights.iter_mut().enumerate() {
            *behind += *weight;
            if *behind > most.1 {
                most = (index, *behind);
            }
        }
        if let Some((_, behind)) = self.weights.get_mut(most.0) {
            *behind -= whole;
        }
        most.0
    }

    fn next_fault(&mut self, sender: usize) -> Fault {
        let Some(signer) = self.signers.get(sender) else { return Fault::None };
        let mut chosen = Fault::None;
        for (fault, every) in &mut self.faults {
            let possible = match fault {
                Fault::Forged => signer.covers_body(),
                Fault::Stale => signer.tells_time(),
                _ => true,
            };
            // Of two whose turn it is the second waits for the next request.
            if possible && every.step() && chosen == Fault::None {
                every.take();
                chosen = *fault;
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::requests::Sender;
    use crate::schedule::Happening;

    fn traffic(presets: &[(&str, f64)], shares: Shares) -> Traffic {
        let signer = |preset| Signer::new(Sender::own(preset).expect("a preset"), 300, 1);
        let senders =
            presets.iter().map(|(preset, weight)| (signer(preset).expect("it can sign"), *weight));
        Traffic::new(senders.collect(), shares, 10)
    }

    fn drafts(traffic: &mut Traffic, ledger: &mut Ledger, count: u32) -> Vec<Draft> {
        let due = Due { at: Duration::ZERO, happening: Happening::Joined, room: None };
        let draft = |number| traffic.draft(due, 1_000 + u64::from(number), ledger);
        (0..count).map(draft).collect::<io::Result<_>>().expect("few events")
    }

    #[test]
    fn a_mix_is_even_at_every_moment() {
        let mut traffic = traffic(&[("livekit", 3.0), ("stripe", 1.0)], Shares::default());
        let drafts = drafts(&mut traffic, &mut Ledger::default(), 400);
        for four in drafts.chunks(4) {
            assert_eq!(four.iter().filter(|draft| draft.sender == 1).count(), 1);
        }
    }

    #[test]
    fn shares_are_kept_to_the_request() {
        let shares = Shares { duplicates: 0.1, forgeries: 0.05, stale: 0.02, malformed: 0.01 };
        let mut traffic = traffic(&[("stripe", 1.0)], shares);
        let mut ledger = Ledger::default();
        let drafts = drafts(&mut traffic, &mut ledger, 10_000);
        let count = |fault| drafts.iter().filter(|draft| draft.fault == fault).count();
        assert!((980..=1000).contains(&count(Fault::Duplicate)), "{}", count(Fault::Duplicate));
        assert!((480..=500).contains(&count(Fault::Forged)));
        assert!((190..=200).contains(&count(Fault::Stale)));
        assert!((98..=100).contains(&count(Fault::Malformed)));
        assert_eq!(ledger.entries().len(), 10_000 - count(Fault::Duplicate));
        let twin = drafts.iter().find(|draft| draft.fault == Fault::Duplicate).expect("many");
        let first = ledger.entry(twin.number).expect("a known event").draft;
        assert_eq!((first.fault, first.created_ns), (Fault::None, twin.created_ns));
        assert!(twin.signed_ns > first.signed_ns);
    }

    #[test]
    fn what_a_sender_cannot_show_is_not_asked_of_it() {
        let shares = Shares { stale: 0.5, forgeries: 0.5, ..Shares::default() };
        let mut wave = traffic(&[("wave", 1.0)], shares);
        let drafts = drafts(&mut wave, &mut Ledger::default(), 100);
        assert!(drafts.iter().all(|draft| draft.fault != Fault::Stale), "it signs no time");
        assert!(drafts.iter().any(|draft| draft.fault == Fault::Forged));
    }
}
