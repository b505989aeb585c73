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
//!
//! Deadlines are for the peer, so the time that this receiver itself stood still is not counted: a
//! virtual machine that was paused, a process that was stopped. Of a longer gap between two sweeps
//! only [`BEAT_MAX`] counts.
//!
//! The sweep also finds those that have been idle for a while: where hyper serves them they rest,
//! which means that they have a socket and its buffer, and no hyper.

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
use crate::limits::{BEAT_MAX, LINGER_BYTES_MAX, REST_AFTER, RESTS_MAX};

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
    /// The sweep found it idle for so long that it may rest.
    tired: Cell<bool>,
    /// Its last answer was its last: it is being shut down.
    ending: Cell<bool>,
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

    /// Whether its next answer is to be its last.
    pub(super) fn draining(&self) -> bool {
        self.pulse.draining.get()
    }

    /// Whether it may rest: nothing was begun for a while, and nothing is being ended.
    pub fn tired(&self) -> bool {
        self.tired.get() && self.phase.get() == Phase::Idle && !self.ending.get()
    }

    /// It rests no more, whatever there is to be read: bytes, or the end.
    pub(super) fn awake(&self) {
        self.tired.set(false);
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

    /// The receiver's coarse clock, which deadlines count by.
    pub(super) fn now(&self) -> Instant {
        self.pulse.now.get()
    }

    /// The body's next bytes are awaited, `bytes` of it having come since `started` by the
    /// receiver's coarse clock.
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
        self.tired.set(false);
    }

    /// Whether it has been idle for long enough to rest, and was not told so yet.
    fn tires(&self, now: Instant) -> bool {
        let since = |until: Instant| until.checked_sub(self.pulse.deadlines.idle);
        let rests_at = |since: Instant| since.checked_add(REST_AFTER);
        self.phase.get() == Phase::Idle
            && !self.tired.get()
            && self.until.get().and_then(since).and_then(rests_at).is_some_and(|at| at <= now)
    }

    /// The first bytes of a request have come, or more of it.
    pub(super) fn received_bytes(&self) {
        if self.phase.get() == Phase::Idle {
            self.enter(Phase::Head, self.pulse.after(self.pulse.deadlines.head));
        }
    }

    /// The peer has taken an answer.
    pub(super) fn flushed(&self) {
        if self.phase.get() == Phase::Write {
            self.enter(Phase::Idle, self.pulse.after(self.pulse.deadlines.idle));
        }
    }
}

/// A receiver's coarse clock and its deadlines.
#[derive(Debug)]
struct Pulse {
    /// The moment of the last beat, less the time that the receiver stood still.
    now: Cell<Instant>,
    /// The same moment by the machine's clock.
    beaten: Cell<Instant>,
    deadlines: Deadlines,
    draining: Cell<bool>,
}

impl Pulse {
    fn new(deadlines: Deadlines, now: Instant) -> Self {
        let moment = || Cell::new(now);
        Self { now: moment(), beaten: moment(), deadlines, draining: Cell::new(false) }
    }

    /// Moves the coarse clock, and says what it is.
    fn beat(&self, now: Instant) -> Instant {
        let passed = now.saturating_duration_since(self.beaten.replace(now)).min(BEAT_MAX);
        self.now.update(|before| before.checked_add(passed).unwrap_or(before));
        self.now.get()
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
        let pulse = Rc::new(Pulse::new(deadlines, now));
        Rc::new(Self { pulse, open: RefCell::new(Slab::new()) })
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
            tired: Cell::new(false),
            ending: Cell::new(false),
            task: RefCell::new(None),
        });
        let slot = self.open.borrow_mut().insert(Rc::clone(&connection));
        Entered { connections: Rc::clone(self), connection, slot }
    }

    /// Wakes every connection that is late, and once each that may rest, a few at a time.
    pub fn sweep(&self, now: Instant) {
        let now = self.pulse.beat(now);
        let mut places = RESTS_MAX;
        for (_, connection) in self.open.borrow().iter() {
            if connection.until.get().is_some_and(|until| until <= now) {
                connection.expired.set(true);
                wake(connection);
            } else if places > 0 && connection.tires(now) {
                places -= 1;
                connection.tired.set(true);
                wake(connection);
            }
        }
    }

    /// Tells every connection that the receiver is draining: that no further request is taken.
    pub fn drain(&self) {
        self.pulse.draining.set(true);
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

    /// The same stream, of which `early` has been read and not been used.
    pub(super) fn returned(self, early: Bytes) -> Self {
        debug_assert!(self.early.is_empty(), "who read on had it first");
        // Bytes without a byte may hold the buffer that they were in.
        let early = if early.is_empty() { Bytes::new() } else { early };
        Self { early, ..self }
    }
}

impl<S: AsyncRead + Unpin> Watched<S> {
    /// Waits until there is something to read, be it the end, and leaves it where it is.
    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if !self.early.is_empty() {
            return Poll::Ready(Ok(()));
        }
        // The stream reads into a buffer of its own, and this one has no room to take from it.
        Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut []))
    }

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
        self.connection.ending.set(true);
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        if self.connection.left_unread() { self.linger(cx) } else { Poll::Ready(Ok(())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(15);

    fn deadlines() -> Deadlines {
        let span = Duration::from_secs(5);
        Deadlines { head: span, body: span, body_rate_min: 1, idle: IDLE, write: span }
    }

    fn scene() -> (Instant, Rc<Connections>) {
        let start = forebay_log::Clock::System.monotonic();
        (start, Connections::new(deadlines(), start))
    }

    /// Sweeps as a receiver does that never stands still.
    fn sweep_until(connections: &Connections, from: Instant, to: Instant) {
        let mut now = from;
        while now < to {
            now = (now + BEAT_MAX).min(to);
            connections.sweep(now);
        }
    }

    #[test]
    fn who_is_idle_for_a_while_tires_and_nobody_else() {
        let (start, connections) = scene();
        let entered = connections.enter(([127, 0, 0, 1], 9).into());
        let connection = entered.connection();
        let at = |tenths| start + REST_AFTER * tenths / 10;
        sweep_until(&connections, start, at(9));
        assert!(!connection.tired(), "too early");
        sweep_until(&connections, at(9), at(10));
        assert!(connection.tired() && !connection.expired());
        connection.received_bytes();
        assert!(!connection.tired(), "a request has begun");
        sweep_until(&connections, at(10), at(20));
        assert!(!connection.tired(), "it is not idle");
        connection.writing(false);
        connection.flushed();
        sweep_until(&connections, at(20), at(30));
        assert!(connection.tired(), "it is idle again");
        connection.ending.set(true);
        assert!(!connection.tired(), "it lingers, and its buffers with it");
        sweep_until(&connections, at(30), at(30) + IDLE);
        assert!(connection.expired(), "none is kept for resting");
    }

    #[test]
    fn the_time_that_a_receiver_stood_still_is_not_the_peers() {
        let (start, connections) = scene();
        let entered = connections.enter(([127, 0, 0, 1], 9).into());
        let connection = entered.connection();
        connection.received_bytes();
        let later = start + 10 * IDLE;
        connections.sweep(later);
        assert!(!connection.expired(), "one sweep after a long while");
        connection.awaiting_body(connection.now(), 0);
        sweep_until(&connections, later, later + Duration::from_secs(4));
        assert!(!connection.expired(), "a second before it is late");
        sweep_until(&connections, later + Duration::from_secs(4), later + Duration::from_secs(5));
        assert!(connection.expired(), "it is late");
    }

    #[test]
    fn a_crowd_goes_to_rest_a_few_at_a_time() {
        let (start, connections) = scene();
        let enter = |_| connections.enter(([127, 0, 0, 1], 9).into());
        let crowd: Vec<Entered> = (0..=2 * RESTS_MAX).map(enter).collect();
        let tired = || crowd.iter().filter(|entered| entered.connection().tired()).count();
        sweep_until(&connections, start, start + REST_AFTER);
        for expected in [RESTS_MAX, 2 * RESTS_MAX, 2 * RESTS_MAX + 1] {
            assert_eq!(tired(), expected);
            connections.sweep(start + REST_AFTER);
        }
    }
}
