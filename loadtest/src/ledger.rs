//! What this tool has sent and what it was told: the account that the log is held against.

use std::io;

use crate::requests::{Draft, Fault};

/// For how many events memory is touched ahead; further ones take theirs as they come.
const ROOM_MAX: f64 = 16e6;

/// What became of one event.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry {
    /// As it was sent first; makes its bytes again.
    pub(crate) draft: Draft,
    /// Requests that left this machine, duplicates included.
    pub(crate) requests: u32,
    /// Of these, how many were answered by a 2xx.
    pub(crate) acknowledged: u32,
    /// Its own sender has dropped a request of it.
    pub(crate) dropped: bool,
}

/// Every event of a run, by its number.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: Vec<Entry>,
}

impl Ledger {
    /// Makes room for about so many events more and touches it, so that opening one waits for no
    /// memory: what the kernel needs for a huge page would count as latency of the server.
    pub(crate) fn make_room(&mut self, events: f64) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded")]
        let events = events.clamp(0.0, ROOM_MAX) as usize;
        let known = self.entries.len();
        self.entries.resize(known + events, Entry::default());
        self.entries.truncate(known);
    }

    /// Opens an event and numbers it.
    pub(crate) fn open(&mut self, draft: Draft) -> io::Result<Draft> {
        let number = u32::try_from(self.entries.len()).map_err(io::Error::other)?;
        let draft = Draft { number, ..draft };
        self.entries.push(Entry { draft, ..Entry::default() });
        Ok(draft)
    }

    /// A request of the event goes out.
    pub(crate) fn sent(&mut self, number: u32) {
        if let Some(entry) = self.entry_mut(number) {
            entry.requests += 1;
        }
    }

    /// A request of the event was answered by a 2xx.
    pub(crate) fn acknowledged(&mut self, number: u32) {
        if let Some(entry) = self.entry_mut(number) {
            entry.acknowledged += 1;
        }
    }

    /// Its own sender has dropped a request of the event.
    pub(crate) fn dropped(&mut self, number: u32) {
        if let Some(entry) = self.entry_mut(number) {
            entry.dropped = true;
        }
    }

    /// One event.
    pub(crate) fn entry(&self, number: u32) -> Option<&Entry> {
        self.entries.get(usize::try_from(number).ok()?)
    }

    /// All events, by number.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Events that a receiver has to keep.
    pub(crate) fn genuine(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.draft.fault == Fault::None)
    }

    fn entry_mut(&mut self, number: u32) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(number).ok()?)
    }
}
