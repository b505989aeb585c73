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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    /// The fates of a slow and a half-open client at a server that reads a little and says this.
    fn fates(last_words: &'static [u8]) -> [Fates; 3] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("it is bound");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let read = stream.read(&mut [0; 8]).unwrap_or(0);
                    let said = if read > 0 { stream.write(last_words) } else { Ok(0) };
                    said.unwrap_or(0)
                });
            }
        });
        let remote = Remote { address, tls: None };
        let crowd = Crowd { idle: 1, slow: 1, half_open: 1 };
        let request = vec![b'x'; 100];
        let opened = Bystanders::open(remote, crowd, request).expect("the server listens");
        let mut bystanders = opened.expect("there are some");
        let over = |fates: &Fates| fates.refused + fates.cut_off + fates.accepted > 0;
        // As long as it takes: each has to meet its end.
        while !bystanders.fates[1..].iter().all(over) {
            bystanders.beat().expect("the sockets can be waited for");
            std::thread::sleep(Duration::from_millis(1));
        }
        bystanders.fates
    }

    #[test]
    fn who_is_refused_is_told_from_who_is_cut_off_and_who_is_taken() {
        let [idle, slow, half_open] = fates(b"HTTP/1.1 408 Late\r\ncontent-length: 0\r\n\r\n");
        assert!(slow.refused > 0 && half_open.refused > 0);
        assert_eq!((slow.accepted, half_open.accepted), (0, 0));
        assert_eq!((idle.connections, idle.refused + idle.cut_off), (1, 0));
        let [_, slow, half_open] = fates(b"");
        assert!(slow.cut_off > 0 && half_open.cut_off > 0);
        let [_, slow, _] = fates(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        assert!(slow.accepted > 0);
    }
}
