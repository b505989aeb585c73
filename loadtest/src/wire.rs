//! HTTP/1.1 on the side of a sender, by hand: bytes out, a status in, nothing allocated for each
//! request, so that the generator leaves the machine to the server.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustls::{ClientConnection, StreamOwned};
use socket2::{Domain, Protocol, Socket, Type};

use crate::tls::Tls;

/// An answer longer than this is not the answer of a webhook receiver.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Where connections go.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Tls>,
}

/// What a server answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The server ends the connection behind it.
    pub(crate) closes: bool,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn socket(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.sock.as_fd(),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }

    /// As many bytes as the socket takes now.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        };
        or_nothing(written)
    }

    /// Brings out what TLS has taken and not yet written.
    fn push(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => or_nothing(stream.flush()),
        }
    }
}

fn or_nothing<T: Default>(outcome: io::Result<T>) -> io::Result<T> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(T::default()),
        outcome => outcome,
    }
}

/// One connection that never blocks.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    /// What is still to be written of the current request.
    unwritten: Vec<u8>,
    answer: Vec<u8>,
}

impl Connection {
    /// Waits until the connection stands.
    fn open(remote: &Remote) -> io::Result<Self> {
        let stream = TcpStream::connect(remote.address)?;
        stream.set_nonblocking(true)?;
        Self::over(stream, remote)
    }

    /// Does not wait: what is sent goes out when the connection stands.
    fn begin(remote: &Remote) -> io::Result<Self> {
        let domain = Domain::for_address(remote.address);
        let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        match socket.connect(&remote.address.into()) {
            Err(error) if error.raw_os_error() != Some(IN_PROGRESS) => return Err(error),
            _ => {}
        }
        Self::over(socket.into(), remote)
    }

    fn over(stream: TcpStream, remote: &Remote) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let stream = match &remote.tls {
            None => Stream::Plain(stream),
            Some(tls) => Stream::Tls(Box::new(StreamOwned::new(tls.session()?, stream))),
        };
        Ok(Self { stream, unwritten: Vec::new(), answer: Vec::with_capacity(1024) })
    }

    /// Starts a request; what the socket does not take now goes out by [`Connection::resume`].
    pub(crate) fn send(&mut self, request: &[u8]) -> io::Result<()> {
        let written = self.stream.write(request)?;
        self.unwritten.extend_from_slice(&request[written..]);
        Ok(())
    }

    /// Goes on writing after the socket was full.
    pub(crate) fn resume(&mut self) -> io::Result<()> {
        if !self.unwritten.is_empty() {
            let written = self.stream.write(&self.unwritten)?;
            self.unwritten.drain(..written);
        }
        self.stream.push()
    }

    /// The answer, once it is whole.
    pub(crate) fn receive(&mut self) -> io::Result<Option<Answer>> {
        self.receive_by(answer)
    }

    /// The same where the answer is not HTTP: `parse` says where it ends.
    pub(crate) fn receive_by(
        &mut self,
        parse: fn(&[u8]) -> Option<(Answer, usize)>,
    ) -> io::Result<Option<Answer>> {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.answer.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
            if let Some((answer, bytes)) = parse(&self.answer) {
                self.answer.drain(..bytes);
                return Ok(Some(answer));
            }
            if self.answer.len() > ANSWER_BYTES_MAX {
                return Err(io::Error::other("an answer without an end"));
            }
        }
    }
}

/// `EINPROGRESS`: the connection is on its way.
const IN_PROGRESS: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();

/// The answer at the start of `bytes` and its length, if it is whole.
pub(crate) fn answer(bytes: &[u8]) -> Option<(Answer, usize)> {
    let head_bytes = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let status = std::str::from_utf8(bytes.get(9..12)?).ok()?.parse().ok()?;
    let head = &bytes[..head_bytes];
    let length = header(head, b"content-length:").and_then(|digits| digits.parse().ok());
    let end = head_bytes + length.unwrap_or(0_usize);
    let closes = header(head, b"connection:").is_some_and(|text| text.contains("close"));
    (bytes.len() >= end).then_some((Answer { status, closes }, end))
}

fn header<'h>(head: &'h [u8], name: &[u8]) -> Option<&'h str> {
    head.split(|byte| *byte == b'\n')
        .find(|line| line.len() > name.len() && line[..name.len()].eq_ignore_ascii_case(name))
        .and_then(|line| std::str::from_utf8(&line[name.len()..]).ok())
        .map(str::trim)
}

/// Many connections and the wait for any of them.
pub(crate) struct Connections {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    remote: Remote,
    pub(crate) all: Vec<Connection>,
}

impl Connections {
    /// Opens `count` connections.
    pub(crate) fn open(remote: Remote, count: usize) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let (events, all) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut made = Self { epoll, events, remote, all };
        for index in 0..count {
            let connection = Connection::open(&made.remote)
                .map_err(|error| io::Error::other(format!("{}: {error}", made.remote.address)))?;
            made.watch(&connection, index)?;
            made.all.push(connection);
        }
        Ok(made)
    }

    /// Puts a new connection in the place of an old one.
    pub(crate) fn reopen(&mut self, index: usize) -> io::Result<()> {
        let connection = Connection::begin(&self.remote)?;
        self.watch(&connection, index)?;
        // The kernel forgets the old socket when it is closed.
        self.all[index] = connection;
        Ok(())
    }

    fn watch(&self, connection: &Connection, index: usize) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        let data = epoll::EventData::new_u64(index as u64);
        Ok(epoll::add(&self.epoll, connection.stream.socket(), data, flags)?)
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
        let of = |status, closes| Answer { status, closes };
        let empty = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\ndate: now\r\n\r\n";
        assert_eq!(answer(empty), Some((of(200, false), empty.len())));
        assert_eq!(answer(&empty[..empty.len() - 1]), None);
        let problem = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\n{}HTTP";
        assert_eq!(answer(problem), Some((of(401, false), problem.len() - 4)));
        assert_eq!(answer(&problem[..problem.len() - 5]), None);
        assert_eq!(answer(b"HTTP/1.1 204 No Content\r\n\r\n"), Some((of(204, false), 27)));
        let last = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n";
        assert_eq!(answer(last), Some((of(400, true), last.len())));
        assert_eq!(answer(b"\r\n\r\n"), None);
    }
}
