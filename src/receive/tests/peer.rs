//! A peer without a socket: it sends a script, chunk by chunk, and keeps what it is told.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::runtime::Duplex;

/// What a peer sends, and how.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    /// What each read gets at most.
    pub(super) chunks: VecDeque<Bytes>,
    /// It ends its side behind the last chunk; otherwise it is silent.
    pub(super) ends: bool,
    /// Each chunk comes a while after the one before.
    pub(super) slow: bool,
}

/// One end of a connection, and the view of it that a test keeps.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer(Rc<RefCell<State>>);

#[derive(Debug, Default)]
struct State {
    script: Script,
    waited: bool,
    room: usize,
    told: Vec<u8>,
    shut: bool,
}

impl Peer {
    pub(super) fn new(script: Script) -> Self {
        Self(Rc::new(RefCell::new(State { script, ..State::default() })))
    }

    /// What it was told.
    pub(super) fn told(&self) -> Vec<u8> {
        self.0.borrow().told.clone()
    }

    /// Whether it was told that nothing more will follow.
    pub(super) fn is_shut(&self) -> bool {
        self.0.borrow().shut
    }

    /// How many bytes of it nobody has read.
    pub(super) fn unread(&self) -> usize {
        self.0.borrow().script.chunks.iter().map(Bytes::len).sum()
    }

    /// How much room it was offered when it was last read from.
    pub(super) fn room(&self) -> usize {
        self.0.borrow().room
    }

    /// Sends more.
    pub(super) fn send(&self, chunk: &[u8]) {
        self.0.borrow_mut().script.chunks.push_back(Bytes::copy_from_slice(chunk));
    }

    /// Ready when there is something to read, be it the end.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let state = &mut *self.0.borrow_mut();
        if state.script.chunks.is_empty() {
            return if state.script.ends { Poll::Ready(()) } else { Poll::Pending };
        }
        if state.script.slow && !state.waited {
            state.waited = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn poll_chunk(&self, bytes_max: usize, cx: &mut Context<'_>) -> Poll<Bytes> {
        ready!(self.poll_readable(cx));
        let state = &mut *self.0.borrow_mut();
        let Some(chunk) = state.script.chunks.front_mut() else { return Poll::Ready(Bytes::new()) };
        let part = chunk.split_to(bytes_max.min(chunk.len()));
        if !chunk.has_remaining() {
            state.script.chunks.pop_front();
            state.waited = false;
        }
        Poll::Ready(part)
    }

    fn tell(&self, bytes: &[u8]) {
        let state = &mut *self.0.borrow_mut();
        assert!(!state.shut, "nothing follows the end");
        state.told.extend_from_slice(bytes);
    }
}

impl Duplex for Peer {
    async fn read(&mut self, mut buffer: BytesMut) -> (io::Result<usize>, BytesMut) {
        let room = buffer.capacity() - buffer.len();
        assert!(room > 0, "a read without room would look like the end");
        self.0.borrow_mut().room = room;
        let part = poll_fn(|cx| self.poll_chunk(room, cx)).await;
        buffer.extend_from_slice(&part);
        (Ok(part.len()), buffer)
    }

    async fn write_all(&mut self, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        self.tell(&bytes);
        (Ok(()), bytes)
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        self.0.borrow_mut().shut = true;
        Ok(())
    }
}

impl AsyncRead for Peer {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return self.poll_readable(cx).map(Ok);
        }
        let part = ready!(self.poll_chunk(buffer.remaining(), cx));
        buffer.put_slice(&part);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.tell(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().shut = true;
        Poll::Ready(Ok(()))
    }
}
