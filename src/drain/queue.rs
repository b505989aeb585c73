//! What goes next: order, batches, waits. No I/O and no clock of its own.
//!
//! ```text
//!                  +-- due again <-- delayed <--+
//!                  v                            |
//! push --> ready of a lane --> batch --> in flight --> settled
//!                  |   ^                            |
//!                  v   +---- the next of its key <--+
//!                parked, while another of its key is under way
//! ```
//!
//! - An event whose order key is under way (in flight, or waiting for its retry) is parked behind
//!   it. So events of one key go one after the other, in the order of their lane, and no other
//!   event waits for them.
//! - For a sequential sink a lane has one batch in flight, and what failed goes first again. The
//!   batch behind it may be taken ahead, to be made ready, and goes back if the one in flight fails.
//! - Of several lanes the one with the highest priority is looked at first.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// An event under way, and what the queue must know of it.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) item: T,
    /// Its place among the events of its lane.
    pub(super) ticket: u64,
    /// Those of one key go one after the other.
    pub(super) key: Option<u64>,
    /// Its payload.
    pub(super) bytes: usize,
    /// When it came here.
    pub(super) since: Instant,
    /// When it was first handed over.
    pub(super) first: Option<Instant>,
    /// How often it was handed over.
    pub(super) attempts: u32,
    /// The largest batch that it may be in: less, once a batch was refused as a whole.
    pub(super) company_max: usize,
    /// Whether it holds its key already.
    pub(super) holds_key: bool,
}

impl<T> Entry<T> {
    /// A new one.
    pub(super) fn new(
        item: T,
        ticket: u64,
        key: Option<u64>,
        bytes: usize,
        since: Instant,
    ) -> Self {
        let (first, attempts, company_max, holds_key) = (None, 0, usize::MAX, false);
        Self { item, ticket, key, bytes, since, first, attempts, company_max, holds_key }
    }
}

/// When a batch is full or waits no longer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) events_max: usize,
    pub(super) bytes_max: usize,
    pub(super) linger: Duration,
    /// One batch of a lane at a time, in order.
    pub(super) sequential: bool,
}

/// Events of one lane that go together.
#[derive(Debug)]
pub(super) struct Batch<T> {
    pub(super) lane: usize,
    pub(super) entries: Vec<Entry<T>>,
}

/// The events that one sink has taken up and that are not in flight.
#[derive(Debug)]
pub(super) struct Queue<T> {
    bounds: Bounds,
    lanes: Vec<Lane<T>>,
    /// Lanes in the order in which they are looked at.
    by_priority: Vec<usize>,
    /// Keys that are under way, by lane.
    busy: HashSet<(usize, u64)>,
    parked: HashMap<(usize, u64), VecDeque<Entry<T>>>,
    delayed: BTreeMap<(Instant, u64), (usize, Entry<T>)>,
    /// Tells those apart that are due at one moment.
    delays: u64,
    /// Events that are here.
    held: usize,
}

#[derive(Debug)]
struct Lane<T> {
    ready: VecDeque<Entry<T>>,
    ready_bytes: usize,
    /// Of a sequential sink: whether a batch is in flight.
    occupied: bool,
    /// Of a sequential sink: the batch behind that one; it is before all that is ready.
    ahead: Vec<Entry<T>>,
    /// Of a sequential sink: nothing goes before this.
    until: Option<Instant>,
}

impl<T> Queue<T> {
    /// Lanes by their priorities; a higher number goes first.
    pub(super) fn new(bounds: Bounds, priorities: &[u8]) -> Self {
        let lane = |_: &u8| Lane {
            ready: VecDeque::new(),
            ready_bytes: 0,
            occupied: false,
            ahead: Vec::new(),
            until: None,
        };
        let mut by_priority: Vec<usize> = (0..priorities.len()).collect();
        by_priority.sort_by_key(|lane| std::cmp::Reverse(priorities.get(*lane).copied()));
        Self {
            bounds,
            lanes: priorities.iter().map(lane).collect(),
            by_priority,
            busy: HashSet::new(),
            parked: HashMap::new(),
            delayed: BTreeMap::new(),
            delays: 0,
            held: 0,
        }
    }

    /// Takes up an event of a lane, behind those that it took up before.
    pub(super) fn push(&mut self, lane: usize, entry: Entry<T>) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            self.held += 1;
            lane.push_back(entry);
        }
    }

    /// The next batch, if one is full, has waited long enough, or holds what was tried before.
    pub(super) fn next(&mut self, now: Instant) -> Option<Batch<T>> {
        self.wake_delayed(now);
        for index in 0..self.by_priority.len() {
            let lane = *self.by_priority.get(index)?;
            while self.is_due(lane, now) {
                let ahead = self.lanes.get_mut(lane).map(|lane| std::mem::take(&mut lane.ahead));
                let entries = ahead.filter(|ahead| !ahead.is_empty());
                let entries = entries.unwrap_or_else(|| self.fill(lane));
                // All that was ready may have been parked.
                if entries.is_empty() {
                    continue;
                }
                if self.bounds.sequential
                    && let Some(lane) = self.lanes.get_mut(lane)
                {
                    lane.occupied = true;
                }
                self.held = self.held.saturating_sub(entries.len());
                return Some(Batch { lane, entries });
            }
        }
        None
    }

    /// Of a sequential sink: takes the batch ahead that follows one in flight, if it is full and was
    /// not yet. It stays here: [`Queue::next`] has it in its turn, unless what is in flight fails.
    pub(super) fn ahead(&mut self) -> Option<(usize, &[Entry<T>])> {
        let fit = |lane: &Lane<T>| {
            let fresh = lane.ready.front().is_some_and(|front| front.attempts == 0);
            let follows = lane.occupied && lane.ahead.is_empty() && lane.until.is_none();
            follows && fresh && lane.is_full(&self.bounds)
        };
        let mut by_priority = self.by_priority.iter().copied();
        let index = by_priority.find(|index| self.lanes.get(*index).is_some_and(fit))?;
        let entries = self.fill(index);
        let lane = self.lanes.get_mut(index)?;
        lane.ahead = entries;
        Some((index, &lane.ahead))
    }

    /// When [`Queue::next`] may have something that it does not have now, without anything new.
    pub(super) fn wake(&self) -> Option<Instant> {
        let delayed = self.delayed.first_key_value().map(|((due, _), _)| *due);
        let of_lane = |lane: &Lane<T>| {
            let front = lane.ahead.first().or_else(|| lane.ready.front());
            let front = front.filter(|_| !lane.occupied)?;
            let linger =
                if lane.lingers(&self.bounds) { self.bounds.linger } else { Duration::ZERO };
            let due = front.since + linger;
            Some(lane.until.map_or(due, |until| until.max(due)))
        };
        self.lanes.iter().filter_map(of_lane).chain(delayed).min()
    }

    /// Events that are here.
    pub(super) const fn len(&self) -> usize {
        self.held
    }

    /// A batch of a lane is no longer in flight. Before its events are given back. True if the batch
    /// behind it was taken ahead.
    pub(super) fn landed(&mut self, lane: usize) -> bool {
        self.lanes.get_mut(lane).is_some_and(|lane| {
            lane.occupied = false;
            !lane.ahead.is_empty()
        })
    }

    /// An event is done with: the next of its key may go.
    pub(super) fn settled(&mut self, lane: usize, key: Option<u64>) {
        let Some(key) = key.filter(|_| !self.bounds.sequential) else { return };
        self.busy.remove(&(lane, key));
        let Some(waiting) = self.parked.get_mut(&(lane, key)) else { return };
        if let Some(next) = waiting.pop_front()
            && let Some(lane) = self.lanes.get_mut(lane)
        {
            lane.push_front(next);
        }
        if waiting.is_empty() {
            self.parked.remove(&(lane, key));
        }
    }

    /// Events of one batch, in its order, that are to be tried again at `due`, each.
    pub(super) fn again(&mut self, lane: usize, entries: Vec<(Instant, Entry<T>)>) {
        self.held += entries.len();
        if !self.bounds.sequential {
            for (due, entry) in entries {
                self.delays += 1;
                self.delayed.insert((due, self.delays), (lane, entry));
            }
            return;
        }
        let Some(lane) = self.lanes.get_mut(lane) else { return };
        lane.until = entries.iter().map(|(due, _)| *due).max().max(lane.until);
        if entries.is_empty() {
            return;
        }
        let ahead = std::mem::take(&mut lane.ahead);
        let entries = entries.into_iter().map(|(_, entry)| entry).chain(ahead);
        for entry in entries.rev() {
            lane.push_front(entry);
        }
    }

    /// The destination is back: nothing waits for its retry any longer.
    pub(super) fn hasten(&mut self, now: Instant) {
        for lane in &mut self.lanes {
            lane.until = None;
        }
        let delayed = std::mem::take(&mut self.delayed);
        for ((due, number), waiting) in delayed {
            self.delayed.insert((due.min(now), number), waiting);
        }
    }

    fn wake_delayed(&mut self, now: Instant) {
        while let Some(first) = self.delayed.first_entry() {
            if first.key().0 > now {
                break;
            }
            let (lane, entry) = first.remove();
            if let Some(lane) = self.lanes.get_mut(lane) {
                lane.push_front(entry);
            }
        }
    }

    fn is_due(&self, lane: usize, now: Instant) -> bool {
        let Some(lane) = self.lanes.get(lane) else { return false };
        if lane.occupied || lane.until.is_some_and(|until| until > now) {
            return false;
        }
        let front = lane.ahead.first().or_else(|| lane.ready.front());
        front.is_some_and(|front| {
            !lane.lingers(&self.bounds) || front.since + self.bounds.linger <= now
        })
    }

    /// As many of what is ready as a batch holds; at least one, unless all were parked.
    fn fill(&mut self, index: usize) -> Vec<Entry<T>> {
        let mut entries: Vec<Entry<T>> = Vec::new();
        let Some(lane) = self.lanes.get_mut(index) else { return entries };
        lane.until = None;
        let (mut bytes, mut company_max) = (0_usize, self.bounds.events_max.max(1));
        while let Some(front) = lane.ready.front() {
            let together = bytes.saturating_add(front.bytes);
            company_max = company_max.min(front.company_max);
            let fits = entries.len() < company_max && together <= self.bounds.bytes_max;
            if !entries.is_empty() && !fits {
                break;
            }
            let Some(mut entry) = lane.pop_front() else { break };
            if let Some(key) = entry.key.filter(|_| !self.bounds.sequential) {
                if !entry.holds_key && !self.busy.insert((index, key)) {
                    self.parked.entry((index, key)).or_default().push_back(entry);
                    continue;
                }
                entry.holds_key = true;
            }
            bytes = together;
            entries.push(entry);
        }
        entries
    }
}

impl<T> Lane<T> {
    fn is_full(&self, bounds: &Bounds) -> bool {
        self.ready.len() >= bounds.events_max || self.ready_bytes >= bounds.bytes_max
    }

    /// Whether what goes next waits for more.
    fn lingers(&self, bounds: &Bounds) -> bool {
        let tried = self.ready.front().is_some_and(|front| front.attempts > 0);
        self.ahead.is_empty() && !tried && !self.is_full(bounds)
    }

    fn push_back(&mut self, entry: Entry<T>) {
        self.ready_bytes += entry.bytes;
        self.ready.push_back(entry);
    }

    fn push_front(&mut self, entry: Entry<T>) {
        self.ready_bytes += entry.bytes;
        self.ready.push_front(entry);
    }

    fn pop_front(&mut self) -> Option<Entry<T>> {
        let entry = self.ready.pop_front()?;
        self.ready_bytes = self.ready_bytes.saturating_sub(entry.bytes);
        Some(entry)
    }
}

#[cfg(test)]
mod tests;
