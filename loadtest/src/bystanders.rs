//! Clients that cost a server something and give it nothing: those that only stay connected,
//! those whose request trickles in, and those that stop in the middle of one.

use std::io;
use std::time::Duration;

use serde::Serialize;

use crate::wire::{Connections, Remote};

/// Bytes of a trickling request at each beat.
const TRICKLE_BYTES: usize = 2;
/// What is missing from a request that stops in the middle.
const MISSING_BYTES: usize = 16;

/// How many of each kind there are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Crowd {
    pub(crate) idle: usize,
    pub(crate) slow: usize,
    pub(crate) half_open: usize,
}

/// What has become of them.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Fates {
    /// Connections of this kind at the same time.
    pub(crate) connections: u64,
    /// Ended by the server with an answer, which was no 2xx.
    pub(crate) refused: u64,
    /// Ended by the server without an answer.
    pub(crate) cut_off: u64,
    /// Answered by a 2xx, which none of them deserves.
    pub(crate) accepted: u64,
}

/// All of them.
pub(crate) struct Bystanders {
    connections: Connections,
    crowd: Crowd,
    /// How much of the request each has sent.
    sent: Vec<usize>,
    request: Vec<u8>,
    ready: Vec<usize>,
    /// Idle, slow, half open.
    pub(crate) fates: [Fates; 3],
}

impl Bystanders {
    /// Opens their connections. `request` is one that would be taken if it were whole.
    pub(crate) fn open(remote: Remote, crowd: Crowd, request: Vec<u8>) -> io::Result<Option<Self>> {
        let Crowd { idle, slow, half_open } = crowd;
        let count = idle + slow + half_open;
        if count == 0 {
            return Ok(None);
        }
        let connections = Connections::open(remote, count)?;
        let fates = [idle, slow, half_open]
            .map(|connections| Fates { connections: connections as u64, ..Fates::default() });
        let (sent, ready) = (vec![0; count], Vec::with_capacity(count));
        Ok(Some(Self { connections, crowd, sent, request, ready, fates }))
    }

    /// Sends the next bytes of each, and sees which the server has had enough of.
    pub(crate) fn beat(&mut self) -> io::Result<()> {
        let mut ready = std::mem::take(&mut self.ready);
        self.connections.wait(Duration::ZERO, &mut ready)?;
        for &index in &ready {
            let ended = match self.connections.all[index].receive() {
                Ok(None) => continue,
                Ok(Some(answer)) => Some(answer.status),
                Err(_) => None,
            };
            self.ended(index, ended);
        }
        self.ready = ready;
        for index in self.crowd.idle..self.sent.len() {
            self.go_on(index);
        }
        Ok(())
    }

    fn go_on(&mut self, index: usize) {
        let whole = self.request.len().saturating_sub(MISSING_BYTES);
        let step = if self.kind(index) == 1 { TRICKLE_BYTES } else { whole };
        let (from, to) = (self.sent[index], (self.sent[index] + step).min(whole));
        if from < to && self.connections.all[index].send(&self.request[from..to]).is_err() {
            self.ended(index, None);
            return;
        }
        self.sent[index] = to;
    }

    fn ended(&mut self, index: usize, status: Option<u16>) {
        let fates = &mut self.fates[self.kind(index)];
        match status {
            Some(200..300) => fates.accepted += 1,
            Some(_) => fates.refused += 1,
            None => fates.cut_off += 1,
        }
        self.sent[index] = 0;
        // If there is no server now, the next beat finds the connection ended again.
        let _ = self.connections.reopen(index);
    }

    fn kind(&self, index: usize) -> usize {
        let Crowd { idle, slow, .. } = self.crowd;
        usize::from(index >= idle) + usize::from(index >= idle + slow)
    }
}
