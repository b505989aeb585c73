//! Steady senders in the background: each event once, its answer counted.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Scope;

use super::http::Connection;
use super::sign;

/// What the senders share. All orderings are relaxed: the scope's join is what makes the counts
/// complete, and stopping a moment late is harmless.
#[derive(Debug, Default)]
pub(crate) struct Load {
    stop: AtomicBool,
    /// Odd while the senders sign with their next secret.
    turn: AtomicU64,
    /// Answers to the first request that a sender signed in a new turn.
    turned: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
}

impl Load {
    /// Starts `senders` threads of which each keeps one connection and sends until [`Load::stop`].
    pub(crate) fn start<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        address: SocketAddr,
        senders: usize,
    ) {
        for sender in 0..senders {
            scope.spawn(move || self.send(address, sender));
        }
    }

    fn send(&self, address: SocketAddr, sender: usize) {
        let mut connection = None;
        let (mut count, mut last_turn) = (0, 0);
        while !self.stop.load(Ordering::Relaxed) {
            let turn = self.turn.load(Ordering::Relaxed);
            let secrets = [sign::STANDARD_SECRET, sign::STANDARD_SECRET_NEXT];
            let secret = secrets[usize::from(turn % 2 == 1)];
            let id = format!("msg_{sender}_{count}");
            let request =
                sign::standard_at(&id, b"{\"type\":\"load\"}", sign::now_seconds(), secret);
            count += 1;
            let open = connection.take().map_or_else(|| Connection::open(address), Ok);
            let answered =
                open.and_then(|mut open| open.send(&request).map(|answer| (open, answer)));
            match answered {
                Ok((open, answer)) => {
                    let counter = if answer.status == 200 { &self.accepted } else { &self.refused };
                    counter.fetch_add(1, Ordering::Relaxed);
                    self.turned.fetch_add(u64::from(turn != last_turn), Ordering::Relaxed);
                    last_turn = turn;
                    connection = (!answer.closes()).then_some(open);
                }
                Err(_) => {
                    self.broken.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Lets the senders sign with their other secret from now on.
    pub(crate) fn turn(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
    }

    /// How often a sender has been answered for the first time after a turn.
    pub(crate) fn turned(&self) -> u64 {
        self.turned.load(Ordering::Relaxed)
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Answers other than 200.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Connections that could not be made or ended without an answer.
    pub(crate) fn broken(&self) -> u64 {
        self.broken.load(Ordering::Relaxed)
    }
}

/// Stops the load when the test ends, also by a failure, so that the scope can end.
#[derive(Debug)]
pub(crate) struct StopOnDrop<'load>(pub(crate) &'load Load);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}
