//! A request's body, read whole within its bounds: length, time, rate and the receiver's budget.
//!
//! The usual webhook arrives in one piece, and its body is then one frame, a slice of what was read.
//! Only a body in several frames is gathered.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use hyper::body::Body;

use super::admitted::Received;
use crate::reject::Reject;

/// The body bytes that one receiver may hold at once.
#[derive(Debug)]
pub struct Budget {
    held: Cell<u64>,
    bytes_max: u64,
}

impl Budget {
    /// An empty budget.
    pub fn new(bytes_max: u64) -> Rc<Self> {
        Rc::new(Self { held: Cell::new(0), bytes_max })
    }

    /// The bytes held now.
    pub fn held(&self) -> u64 {
        self.held.get()
    }

    /// Takes `bytes` whether they are there or not.
    pub(super) fn overdraw(self: &Rc<Self>, bytes: u64) -> Share {
        self.held.set(self.held.get().saturating_add(bytes));
        Share { budget: Rc::clone(self), bytes }
    }

    /// Takes `bytes` until the share is dropped.
    pub fn share(self: &Rc<Self>, bytes: u64) -> Result<Share, Reject> {
        let mut share = Share { budget: Rc::clone(self), bytes: 0 };
        share.grow_to(bytes)?;
        Ok(share)
    }
}

/// A part of a budget.
#[derive(Debug)]
pub struct Share {
    budget: Rc<Budget>,
    bytes: u64,
}

impl Share {
    fn grow_to(&mut self, bytes: u64) -> Result<(), Reject> {
        let more = bytes.saturating_sub(self.bytes);
        let held = self.budget.held.get().saturating_add(more);
        if more > 0 && held > self.budget.bytes_max {
            return Err(Reject::BudgetSpent);
        }
        self.budget.held.set(held);
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.held.set(self.budget.held.get().saturating_sub(self.bytes));
    }
}

/// Reads `body` to its end, or says why not. `share` grows with what has come.
pub(super) async fn read<B>(
    mut body: B,
    bytes_max: u64,
    share: &mut Share,
    received: &Received<'_>,
) -> Result<Bytes, Reject>
where
    B: Body<Data = Bytes> + Unpin,
{
    let connection = received.connection;
    let started = connection.now();
    let mut whole = Gathered::Nothing;
    loop {
        let next = poll_fn(|cx| match Pin::new(&mut body).poll_frame(cx) {
            Poll::Pending if connection.expired() => Poll::Ready(Err(Reject::BodyTimeout)),
            Poll::Pending => {
                connection.awaiting_body(started, whole.bytes());
                Poll::Pending
            }
            Poll::Ready(frame) => Poll::Ready(Ok(frame)),
        })
        .await?;
        let Some(frame) = next else { break };
        let Ok(data) = frame.map_err(|_| Reject::BodyBroken)?.into_data() else { continue };
        let bytes = whole.bytes().saturating_add(data.len() as u64);
        if bytes > bytes_max {
            return Err(Reject::BodyTooLarge);
        }
        share.grow_to(bytes)?;
        whole.add(data, body.size_hint().exact());
    }
    connection.answering();
    Ok(whole.finish())
}

/// The frames of a body so far.
enum Gathered {
    Nothing,
    One(Bytes),
    Many(BytesMut),
}

impl Gathered {
    fn bytes(&self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::One(frame) => frame.len() as u64,
            Self::Many(frames) => frames.len() as u64,
        }
    }

    fn add(&mut self, frame: Bytes, rest: Option<u64>) {
        *self = match std::mem::replace(self, Self::Nothing) {
            Self::Nothing => Self::One(frame),
            Self::One(first) => {
                let rest = rest.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
                let mut frames = BytesMut::with_capacity(first.len() + frame.len() + rest);
                frames.extend_from_slice(&first);
                frames.extend_from_slice(&frame);
                Self::Many(frames)
            }
            Self::Many(mut frames) => {
                frames.extend_from_slice(&frame);
                Self::Many(frames)
            }
        };
    }

    fn finish(self) -> Bytes {
        match self {
            Self::Nothing => Bytes::new(),
            Self::One(frame) => frame,
            Self::Many(frames) => frames.freeze(),
        }
    }
}
