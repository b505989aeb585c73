//! One connection and its deadlines.
//!
//! hyper on monoio closes nothing by itself: not an idle connection, not a head that never ends,
//! not a stalled body. So every connection says here which phase it is in and until when, and one
//! sweep a receiver, a few times a second, wakes those that are late. A request costs a few
//! stores into cells, never a timer.
//!
//! ```text
//! Idle --first byte--> Head --request--> Answer <--> Body
//!   ^                                       |
//!   +------------- flushed ---- Write <-----+
//! ```

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use slab::Slab;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::unparsed;
use crate::limits::LINGER_BYTES_MAX;

/// How long each phase may last.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From the first byte of a request to the end of its head.
    pub head: Duration,
    /// For a whole body, plus the time that its bytes need at `body_rate_min`.
    pub body: Duration,
    /// Bytes a second below which a body is too slow.
    pub body_rate_min: u64,
    /// Between two requests.
    pub idle: Duration,
    /// From an answer's first byte until the peer took its last.
    pub write: Duration,
}

/// What a connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// For the first byte of a request.
    Idle,
    /// For the rest of a head.
    Head,
    /// For the next bytes of a body.
    Body,
    /// For the line: bounded by `limits::ACK_WAIT_MAX`, not by the peer.
    Answer,
    /// For the peer to take the answer.
    Write,
}

/// The state of one connection, shared by its I/O, its request and the sweep of its receiver.
#[derive(Debug)]
pub struct Connection {
    peer: String,
    address: IpAddr,
    pulse: Rc<Pulse>,
    phase: Cell<Phase>,
    until: Cell<Option<Instant>>,
    expired: Cell<bool>,
    unread: Cell<bool>,
    task: RefCell<Option<Waker>>,
}

impl Connection {
    /// Who is at the other end, as text: written into every record of the connection.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// The address of who is at the other end; behind a proxy of TCP, of its client.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The phase it is in.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Whether the sweep found it late.
    pub fn expired(&self) -> bool {
        self.expired.get()
    }

    /// Remembers whom the sweep wakes. hyper polls requests within the connection's own task, so
    /// one waker serves every phase.
    pub fn attend(&self, waker: &Waker) {
        let mut task = self.task.borrow_mut();
        match task.as_mut() {
            Some(known) => known.clone_from(waker),
            None => *task = Some(waker.clone()),
        }
    }

    /// A head is complete; the line has it.
    pub fn answering(&self) {
        self.enter(Phase::Answer, None);
    }

    /// The body's next bytes are awaited, `bytes` of it having come since `started`.
    pub fn awaiting_body(&self, started: Instant, bytes: u64) {
        let deadlines = &self.pulse.deadlines;
        let earned = Duration::from_secs(bytes / deadlines.body_rate_min.max(1));
        self.enter(Phase::Body, started.checked_add(deadlines.body + earned));
    }

    /// The answer is being written. `unread` says that the request's body was not read to its
    /// end: such a connection is closed, and closed gently.
    pub fn writing(&self, unread: bool) {
        self.unread.set(unread);
        self.enter(Phase::Write, self.pulse.after(self.pulse.deadlines.write));
    }

    /// Whether the last answer left a part of its request unread.
    pub fn left_unread(&self) -> bool {
        self.unread.get()
    }

    fn enter(&self, phase: Phase, until: Option<Instant>) {
        self.phase.set(phase);
        self.until.set(until);
        self.expired.set(false);
    }

    fn received_bytes(&self) {
        if self.phase.get() == Phase::Idle {
            self.enter(Phase::Head, self.pulse.after(self.pulse.deadlines.head));
        }
    }

    fn flushed(&self) {
        if self.phase.get() == Phase::Write {
            self.enter(Phase::Idle, self.pulse.after(self.pulse.deadlines.idle));
        }
    }
}

/// A receiver's coarse clock and its deadlines.
#[derive(Debug)]
pub struct Pulse {
    now: Cell<Instant>,
    deadlines: Deadlines,
}

impl Pulse {
    /// Moves the coarse clock.
    pub fn beat(&self, now: Instant) {
        self.now.set(now);
    }

    fn after(&self, duration: Duration) -> Option<Instant> {
        self.now.get().checked_add(duration)
    }
}

/// All connections of one receiver.
#[derive(Debug)]
pub struct Connections {
    pulse: Rc<Pulse>,
    open: RefCell<Slab<Rc<Connection>>>,
}

impl Connections {
    /// None yet.
    pub fn new(deadlines: Deadlines, now: Instant) -> Rc<Self> {
        let pulse = Rc::new(Pulse { now: Cell::new(now), deadlines });
        Rc::new(Self { pulse, open: RefCell::new(Slab::new()) })
    }

    /// The receiver's coarse clock.
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.open.borrow().len()
    }

    /// Adds a connection until its guard is dropped.
    pub fn enter(self: &Rc<Self>, peer: SocketAddr) -> Entered {
        let connection = Rc::new(Connection {
            peer: peer.to_string(),
            address: peer.ip().to_canonical(),
            pulse: Rc::clone(&self.pulse),
            phase: Cell::new(Phase::Idle),
            until: Cell::new(self.pulse.after(self.pulse.deadlines.idle)),
            expired: Cell::new(false),
            unread: Cell::new(false),
            task: RefCell::new(None),
        });
        let slot = self.open.borrow_mut().insert(Rc::clone(&connection));
        Entered { connections: Rc::clone(self), connection, slot }
    }

    /// Wakes every connection that is late.
    pub fn sweep(&self, now: Instant) {
        self.pulse.beat(now);
        for (_, connection) in self.open.borrow().iter() {
            if connection.until.get().is_some_and(|until| until <= now) {
                connection.expired.set(true);
                wake(connection);
            }
        }
    }

    /// Wakes every connection, so that it sees that the receiver is draining.
    pub fn wake_all(&self) {
        for (_, connection) in self.open.borrow().iter() {
            wake(connection);
        }
    }
}

fn wake(connection: &Connection) {
    if let Some(waker) = connection.task.borrow().as_ref() {
        waker.wake_by_ref();
    }
}

/// A connection that counts as open while this lives.
#[derive(Debug)]
pub struct Entered {
    connections: Rc<Connections>,
    connection: Rc<Connection>,
    slot: usize,
}

impl Entered {
    /// The connection's state.
    pub fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.connections.open.borrow_mut().remove(self.slot);
    }
}

/// A stream that tells its connection when bytes arrive and when an answer is flushed.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    connection: Rc<Connection>,
    /// What was read before the stream was watched.
    early: Bytes,
    /// What is left to write of a problem, in the place of an answer of hyper's own.
    problem: Option<Bytes>,
    lingered: u64,
}

impl<S> Watched<S> {
    /// Watches `stream`, of which `early` has been read already.
    pub(super) fn new(stream: S, connection: Rc<Connection>, early: Bytes) -> Self {
        Self { stream, connection, early, problem: None, lingered: 0 }
    }
}

impl<S: AsyncRead + Unpin> Watched<S> {
    /// Reads away, for a while, what the peer still sends: closing a socket with unread bytes
    /// resets it, and the peer would lose the answer that says why.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let mut scratch = [0; 4096];
        while self.lingered < LINGER_BYTES_MAX {
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
            self.lingered += buffer.filled().len() as u64;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if !self.early.is_empty() {
            let count = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early.split_to(count));
            self.connection.received_bytes();
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.connection.received_bytes();
        }
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        // While no request has been handed over, only hyper itself has something to say.
        if self.problem.is_none() && matches!(self.connection.phase(), Phase::Idle | Phase::Head) {
            self.problem = unparsed::problem(bytes);
        }
        let Self { stream, problem, .. } = &mut *self;
        let Some(left) = problem else { return Pin::new(stream).poll_write(cx, bytes) };
        while !left.is_empty() {
            let count = ready!(Pin::new(&mut *stream).poll_write(cx, left))?;
            if count == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            left.advance(count);
        }
        *problem = None;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        if polled.is_ready() {
            self.connection.flushed();
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        if self.connection.left_unread() { self.linger(cx) } else { Poll::Ready(Ok(())) }
    }
}
