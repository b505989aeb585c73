//! The two ways to serve a connection, over a peer in memory: the usual one and hyper's.

mod answer;
mod conversation;
mod differ;
mod head;
mod peer;
mod usual;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use forebay_log::Clock;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use hyper::body::Body;

use super::answer::Answer;
use super::connection::{Connection, Deadlines, Watched};
use super::serve::{Handler, Receiver};
use super::usual::Wire;
use crate::runtime;
use peer::{Peer, Script};

const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 40_000);
/// Longer than any test.
const DEADLINES: Deadlines = {
    let span = Duration::from_secs(3600);
    Deadlines { head: span, body: span, body_rate_min: 1, idle: span, write: span }
};

/// Who serves a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The usual way for as long as requests are usual, and hyper from then on.
    Usual,
    /// hyper alone.
    Hyper,
}

/// A request as the handler was told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Told {
    /// Method, target, version and each header line, in order.
    head: Vec<u8>,
    /// As much of the body as was read.
    body: Vec<u8>,
    /// Whether that was all of it; none: it broke off.
    whole: Option<bool>,
    /// In how many parts it came.
    parts: usize,
}

/// Answers with what it was told. A line `x-do` asks for something else.
#[derive(Debug, Default)]
struct Echo {
    told: RefCell<Vec<Told>>,
}

impl Echo {
    async fn read<B>(&self, request: &mut Told, mut body: B, connection: &Connection, all: bool)
    where
        B: Body<Data = Bytes> + Unpin,
    {
        request.whole = Some(true);
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            match frame.map(hyper::body::Frame::into_data) {
                Ok(Ok(data)) => {
                    request.parts += 1;
                    request.body.extend_from_slice(&data);
                }
                Ok(Err(_trailers)) => {}
                Err(_) => request.whole = None,
            }
            if request.whole.is_none() || !all {
                break;
            }
        }
        if !all {
            // How much of it comes at once is nobody's promise.
            *request = Told { head: request.head.clone(), whole: Some(false), ..Told::default() };
        }
        connection.answering();
    }
}

impl Handler for Echo {
    async fn answer<B>(&self, head: &Parts, body: B, connection: &Connection) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        connection.answering();
        let mut request = Told { head: written(head), whole: Some(false), ..Told::default() };
        // Now, since its body may never come.
        self.told.borrow_mut().push(request.clone());
        let asked = head.headers.get("x-do").map_or(&b""[..], HeaderValue::as_bytes);
        if asked == b"wait" {
            runtime::pass().await;
        }
        if asked != b"refuse" {
            self.read(&mut request, body, connection, asked != b"stop").await;
        }
        let all = request.whole == Some(true);
        // As in the line: who leaves a part of a request unread says that the connection ends.
        connection.writing(!all);
        let mut answer = Answer::new([&request.head[..], b"\n", &request.body].concat().into());
        let status = if all { asked } else { b"400" };
        *answer.status_mut() = StatusCode::from_bytes(status)
            .ok()
            .filter(|status| status.as_u16() >= 200 && status.as_u16() != 304)
            .unwrap_or(StatusCode::OK);
        if asked == b"nothing" {
            *answer.body_mut() = Bytes::new();
        }
        let headers = answer.headers_mut();
        if !all || asked == b"close" {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if head.method == Method::HEAD {
            headers.insert("x-without-body", HeaderValue::from_static("1"));
        }
        if let Some(handed_over) = self.told.borrow_mut().last_mut() {
            *handed_over = request;
        }
        answer
    }
}

/// A head, one line for each of its parts.
fn written(head: &Parts) -> Vec<u8> {
    let mut text = format!("{} {} {:?}\n", head.method, head.uri, head.version).into_bytes();
    for (name, value) in &head.headers {
        text.extend_from_slice(
            &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat(),
        );
    }
    text
}

/// What became of a conversation.
#[derive(Debug)]
struct Outcome {
    /// The requests that were handed over.
    told: Vec<Told>,
    /// What the peer was told.
    wire: Vec<u8>,
    /// Whether the server ended it, be it that it only waits for the peer to see that.
    ended: bool,
    /// How many requests were served the usual way.
    usual: usize,
    /// Whether hyper was asked.
    handed_over: bool,
}

/// Serves what a peer sends until nothing more happens; `early` was read before.
fn served(script: Script, early: Bytes, way: Way) -> Outcome {
    let peer = Peer::new(script);
    let echo = Rc::new(Echo::default());
    let receiver = Receiver::new(Rc::clone(&echo), DEADLINES, Clock::System);
    let entered = receiver.connections().enter(PEER);
    let connection = entered.connection();
    let (usual, handed_over) = (Cell::new(0), Cell::new(false));
    let serving = async {
        let (stream, early) = match way {
            Way::Hyper => (peer.clone(), early),
            Way::Usual => {
                let wire = Wire::new(peer.clone(), early);
                let left = receiver.served_usual(wire, PEER, connection).await;
                usual.set(echo.told.borrow().len());
                let Some(wire) = left else { return };
                wire.into_parts()
            }
        };
        handed_over.set(true);
        let io = Watched::new(stream, Rc::clone(connection), early);
        receiver.serve_any(io, PEER, connection).await;
    };
    let over = until_still(pin!(serving)).is_ready();
    let usual = if way == Way::Usual && !handed_over.get() {
        echo.told.borrow().len()
    } else {
        usual.get()
    };
    let told = echo.told.take();
    let (ended, handed_over) = (over || peer.is_shut(), handed_over.get());
    Outcome { told, wire: peer.told(), ended, usual, handed_over }
}

/// Notes that somebody was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        // Relaxed: one thread.
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Polls a future until it is ready, or waits for something that does not come by itself.
fn until_still<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    loop {
        woken.0.store(false, Ordering::Relaxed);
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return Poll::Ready(output);
        }
        if !woken.0.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
    }
}
