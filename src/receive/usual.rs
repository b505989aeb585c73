//! The usual request, which is nearly every one, served without hyper: a POST with a length, its
//! head in one piece.
//!
//! hyper takes more instructions for a webhook than verify, identify, dedupe and append together,
//! most of them for what a webhook does not use. So the usual one is parsed where it lies, by hyper's
//! own parser, and its body goes into the line as a slice of what was read. The first request of a connection that is anything else, and
//! whatever looks wrong, goes to hyper with every byte of it, and the connection with it.

use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use forebay_log::planted::{self, Bug};
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use http::header;
use hyper::body::{Body, Frame, SizeHint};

use super::answer::{HttpDate, write_answer};
use super::connection::Connection;
use super::head::{LastHead, Seen};
use super::serve::Handler;
use crate::limits::{LINGER_BYTES_MAX, READ_BYTES};
use crate::runtime::{self, Duplex};

/// In how many reads a usual head arrives at most.
const HEAD_READS_MAX: usize = 4;
/// What one read of a long body takes at most.
const BODY_READ_BYTES: usize = 64 * 1024;
/// How many requests are answered in a row before other connections get their turn.
const TURN: usize = 16;

/// A connection as it is read: the socket, and what has been read of it and not been used.
#[derive(Debug)]
pub struct Wire<S> {
    socket: S,
    unread: BytesMut,
    /// There is more memory behind `unread` than a usual request needs.
    grown: bool,
}

impl<S: Duplex> Wire<S> {
    /// A connection of which `early` has been read already.
    pub fn new(socket: S, early: Bytes) -> Self {
        Self { socket, unread: early.into(), grown: false }
    }

    /// The socket, and what has been read of it and not been used.
    pub(super) fn into_parts(self) -> (S, Bytes) {
        (self.socket, self.unread.freeze())
    }

    /// Reads on, as much as there is room for, which is `room` at least. Zero is the end.
    async fn read(&mut self, room: usize) -> io::Result<usize> {
        let mut buffer = mem::take(&mut self.unread);
        buffer.reserve(room);
        let (read, buffer) = self.socket.read(buffer).await;
        self.unread = buffer;
        read
    }

    /// Gives back what only a long body needed.
    fn shrink(&mut self) {
        if self.grown && self.unread.is_empty() {
            (self.unread, self.grown) = (BytesMut::new(), false);
        }
    }

    /// Ends the connection behind its last answer; `awaited` bytes of its request are still to
    /// come. They are read away for a while: closing a socket with unread bytes resets it, and the
    /// peer would lose the answer that says why.
    async fn end(mut self, awaited: u64) -> io::Result<()> {
        self.socket.shutdown().await?;
        let mut left = awaited.min(LINGER_BYTES_MAX);
        while left > 0 {
            self.unread.clear();
            match self.read(READ_BYTES).await? {
                0 => break,
                read => left = left.saturating_sub(read as u64),
            }
        }
        Ok(())
    }
}

/// Serves usual requests until the connection ends, and gives it back before the first that is not
/// usual.
pub async fn serve_usual<H: Handler, S: Duplex>(
    handler: &H,
    mut wire: Wire<S>,
    connection: &Connection,
    date: &HttpDate,
) -> io::Result<Option<Wire<S>>> {
    let mut head = LastHead::none();
    let mut answered = Vec::new();
    for turn in 1_usize.. {
        let (head_bytes, body_bytes) = match next(&mut head, &mut wire, connection).await? {
            Next::Request { head_bytes, body_bytes } => (head_bytes, body_bytes),
            Next::Unusual => return Ok(Some(wire)),
            Next::End => return Ok(None),
        };
        drop(wire.unread.split_to(head_bytes));
        let (answer, left) = {
            let mut body = Sent::new(&mut wire, body_bytes);
            (handler.answer(head.parts(), &mut body, connection).await, body.left)
        };
        runtime::gather().await;
        let closing = left > 0
            || connection.draining()
            || answer.headers().get(header::CONNECTION).is_some_and(|value| value == "close");
        answered.clear();
        write_answer(answer, closing, date, &mut answered);
        let written;
        (written, answered) = wire.socket.write_all(mem::take(&mut answered)).await;
        written?;
        if closing {
            let awaited = left.saturating_sub(wire.unread.len() as u64);
            return wire.end(awaited).await.map(|()| None);
        }
        connection.flushed();
        wire.shrink();
        if turn.is_multiple_of(TURN) {
            runtime::pass().await;
        } else {
            runtime::gather().await;
        }
    }
    Ok(None)
}

/// What comes next on a connection.
enum Next {
    /// A request with a head and a body of so many bytes, the head being there.
    Request { head_bytes: usize, body_bytes: u64 },
    /// Something that hyper is to judge.
    Unusual,
    /// Nothing more.
    End,
}

async fn next<S: Duplex>(
    head: &mut LastHead,
    wire: &mut Wire<S>,
    connection: &Connection,
) -> io::Result<Next> {
    let mut reads = 0;
    loop {
        if !wire.unread.is_empty() {
            connection.received_bytes();
            match head.see(&wire.unread) {
                Seen::Usual { head_bytes, body_bytes } => {
                    return Ok(Next::Request { head_bytes, body_bytes });
                }
                Seen::Unusual => return Ok(Next::Unusual),
                // No more is read than a usual head may have: hyper refuses one that is too long.
                Seen::Part if reads == HEAD_READS_MAX || wire.unread.len() >= READ_BYTES => {
                    return Ok(Next::Unusual);
                }
                Seen::Part => {}
            }
        }
        reads += 1;
        if wire.read(READ_BYTES).await? == 0 {
            // hyper does not answer half a head either.
            return Ok(Next::End);
        }
    }
}

/// The body of a usual request, as far as it has come, and then as it comes.
struct Sent<'c, S> {
    rest: Rest<'c, S>,
    left: u64,
}

/// Where the rest of a body comes from.
enum Rest<'c, S> {
    Wire(&'c mut Wire<S>),
    Reading(LocalBoxFuture<'c, (io::Result<usize>, &'c mut Wire<S>)>),
    /// Reading it failed.
    Nowhere,
}

impl<'c, S: Duplex> Sent<'c, S> {
    fn new(wire: &'c mut Wire<S>, bytes: u64) -> Self {
        Self { rest: Rest::Wire(wire), left: bytes }
    }
}

impl<S: Duplex> Body for Sent<'_, S> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        if left == 0 {
            return Poll::Ready(None);
        }
        loop {
            match mem::replace(&mut self.rest, Rest::Nowhere) {
                Rest::Nowhere => return Poll::Ready(Some(Err(io::ErrorKind::BrokenPipe.into()))),
                Rest::Wire(wire) if wire.unread.is_empty() => {
                    wire.grown = true;
                    self.rest = Rest::Reading(Box::pin(async move {
                        (wire.read(left.min(BODY_READ_BYTES)).await, wire)
                    }));
                }
                Rest::Wire(wire) => {
                    let bytes = if planted::has(Bug::BodyOverread) {
                        wire.unread.len()
                    } else {
                        wire.unread.len().min(left)
                    };
                    let data = wire.unread.split_to(bytes).freeze();
                    self.rest = Rest::Wire(wire);
                    self.left -= bytes.min(left) as u64;
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Rest::Reading(mut reading) => {
                    let Poll::Ready((read, wire)) = reading.poll_unpin(cx) else {
                        self.rest = Rest::Reading(reading);
                        return Poll::Pending;
                    };
                    if read? == 0 {
                        return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
                    }
                    self.rest = Rest::Wire(wire);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
