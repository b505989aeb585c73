//! HTTP/1.1 on the side of a sender, by hand: bytes out, a status in, nothing allocated for each
//! request, so that the generator leaves the machine to the server.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{Timespec, epoll};

/// An answer longer than this is not the answer of a webhook receiver.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// One connection that never blocks.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// What is still to be written of the current request.
    unwritten: Vec<u8>,
    answer: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, unwritten: Vec::new(), answer: Vec::with_capacity(1024) })
    }

    /// Starts a request; what the socket does not take now goes out by [`Connection::resume`].
    pub(crate) fn send(&mut self, request: &[u8]) -> io::Result<()> {
        let written = write_some(&mut self.stream, request)?;
        self.unwritten.extend_from_slice(&request[written..]);
        Ok(())
    }

    /// Goes on writing after the socket was full.
    pub(crate) fn resume(&mut self) -> io::Result<()> {
        if !self.unwritten.is_empty() {
            let written = write_some(&mut self.stream, &self.unwritten)?;
            self.unwritten.drain(..written);
        }
        Ok(())
    }

    /// The status of the answer, once it is whole.
    pub(crate) fn receive(&mut self) -> io::Result<Option<u16>> {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.answer.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
            if let Some((status, bytes)) = answer(&self.answer) {
                self.answer.drain(..bytes);
                return Ok(Some(status));
            }
            if self.answer.len() > ANSWER_BYTES_MAX {
                return Err(io::Error::other("an answer without an end"));
            }
        }
    }
}

fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        outcome => outcome,
    }
}

/// Status and length of the answer at the start of `bytes`, if it is whole.
fn answer(bytes: &[u8]) -> Option<(u16, usize)> {
    let head_bytes = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let status = std::str::from_utf8(bytes.get(9..12)?).ok()?.parse().ok()?;
    let body_bytes = content_length(&bytes[..head_bytes]);
    (bytes.len() >= head_bytes + body_bytes).then_some((status, head_bytes + body_bytes))
}

fn content_length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"content-length:";
    head.split(|byte| *byte == b'\n')
        .find(|line| line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME))
        .and_then(|line| std::str::from_utf8(&line[NAME.len()..]).ok())
        .and_then(|digits| digits.trim().parse().ok())
        .unwrap_or(0)
}

/// Many connections and the wait for any of them.
pub(crate) struct Connections {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    pub(crate) all: Vec<Connection>,
}

impl Connections {
    /// Opens `count` connections.
    pub(crate) fn open(address: SocketAddr, count: usize) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut all = Vec::with_capacity(count);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        for index in 0..count {
            let connection = Connection::open(address)?;
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&epoll, &connection.stream, data, flags)?;
            all.push(connection);
        }
        Ok(Self { epoll, events: Vec::with_capacity(count), all })
    }

    /// Waits for sockets, at most `limit`, and puts the indexes of those that are ready into
    /// `ready`.
    pub(crate) fn wait(&mut self, limit: Duration, ready: &mut Vec<usize>) -> io::Result<()> {
        self.events.clear();
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        let spare = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, spare, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        ready.clear();
        let indexes = self.events.iter().map(|event| event.data.u64());
        ready.extend(indexes.filter_map(|index| usize::try_from(index).ok()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_length_says() {
        let empty = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\ndate: now\r\n\r\n";
        assert_eq!(answer(empty), Some((200, empty.len())));
        assert_eq!(answer(&empty[..empty.len() - 1]), None);
        let problem = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\n{}HTTP";
        assert_eq!(answer(problem), Some((401, problem.len() - 4)));
        assert_eq!(answer(&problem[..problem.len() - 5]), None);
        assert_eq!(answer(b"HTTP/1.1 204 No Content\r\n\r\n"), Some((204, 27)));
        assert_eq!(answer(b"\r\n\r\n"), None);
    }
}
