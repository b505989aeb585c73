//! A receiver's listener: accepts connections, serves HTTP/1.1 on each, lets none overstay, and
//! ends them gently when the process drains.

use std::convert::Infallible;
use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_log::Clock;
use http::Request;
use http::request::Parts;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::address::PerAddress;
use super::answer::{Answer, HttpDate};
use super::connection::{Connection, Connections, Deadlines, Phase, Watched};
use super::proxy::{Introduced, Proxies, introduce};
use super::usual::{Wire, serve_usual};
use crate::limits::{HEAD_BYTES_MAX, SWEEP_INTERVAL};
use crate::runtime::{self, Duplex, Listener, Socket};

/// Answers requests: the line, or in a measurement something simpler.
pub trait Handler: 'static {
    /// Answers one request of one connection.
    fn answer<B>(
        &self,
        head: &Parts,
        body: B,
        connection: &Connection,
    ) -> impl Future<Output = Answer>
    where
        B: Body<Data = Bytes> + Unpin;

    /// A connection was accepted.
    fn connected(&self) {}

    /// A connection ended.
    fn disconnected(&self) {}

    /// A connection was not taken, since its address has too many.
    fn turned_away(&self) {}

    /// Called a few times a second.
    fn sweep(&self, _now: Instant) {}
}

/// Who stands in front of a receiver, and how much one of them may take.
#[derive(Clone, Debug, Default)]
pub struct Around {
    /// The proxies in front.
    pub proxies: Arc<Proxies>,
    /// Connections that one address may have open; none: any.
    pub connections_per_address: Option<u64>,
}

/// One thread's share of the port.
#[derive(Debug)]
pub struct Receiver<H> {
    handler: Rc<H>,
    connections: Rc<Connections>,
    http: http1::Builder,
    around: Around,
    places: Rc<PerAddress>,
    head_timeout: Duration,
    date: HttpDate,
    clock: Clock,
}

impl<H: Handler> Receiver<H> {
    /// A receiver that answers by `handler`.
    pub fn new(handler: Rc<H>, deadlines: Deadlines, clock: Clock) -> Rc<Self> {
        Self::within(handler, deadlines, clock, Around::default())
    }

    /// The same behind proxies, and with a bound for each address.
    pub fn within(handler: Rc<H>, deadlines: Deadlines, clock: Clock, around: Around) -> Rc<Self> {
        let mut http = http1::Builder::new();
        // Without half_close a sender that shuts its side after the body loses its answer.
        // hyper parses its own hundred header lines at the most: for any number that it is given it
        // writes two tables of so many lines and copies them, request by request.
        http.half_close(true).max_buf_size(HEAD_BYTES_MAX);
        // Deadlines are `Connection`'s.
        http.header_read_timeout(None);
        let connections = Connections::new(deadlines, clock.monotonic());
        let (head_timeout, date) = (deadlines.head, HttpDate::new(clock.wall_ns()));
        let places = PerAddress::new(around.connections_per_address);
        Rc::new(Self { handler, connections, http, around, places, head_timeout, date, clock })
    }

    /// The open connections.
    pub fn connections(&self) -> &Rc<Connections> {
        &self.connections
    }

    /// Accepts until `stop` is ready, then lets requests in flight end, for at most
    /// `drain_timeout`. Returns how many connections were cut.
    pub async fn run(
        self: Rc<Self>,
        listener: Listener,
        stop: impl Future<Output = ()>,
        drain_timeout: Duration,
    ) -> usize {
        let sweeper = Rc::clone(&self);
        runtime::spawn(async move { sweeper.sweep().await });
        {
            let mut accepting = pin!(self.accept(listener));
            let mut stop = pin!(stop);
            // The accept is dropped only here, when the listener goes with it.
            poll_fn(|cx| {
                if stop.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                accepting.as_mut().poll(cx).map(|never| match never {})
            })
            .await;
        }
        self.drain(drain_timeout).await
    }

    async fn accept(self: &Rc<Self>, listener: Listener) -> Infallible {
        loop {
            match listener.accept().await {
                Ok((socket, peer)) => {
                    let receiver = Rc::clone(self);
                    runtime::spawn(async move { receiver.serve(socket, peer).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    // Out of file descriptors, mostly: waiting is the only cure.
                    runtime::sleep(SWEEP_INTERVAL).await;
                }
            }
        }
    }

    async fn drain(&self, timeout: Duration) -> usize {
        self.connections.drain();
        let deadline = self.clock.monotonic() + timeout;
        while self.connections.count() > 0 && self.clock.monotonic() < deadline {
            runtime::sleep(Duration::from_millis(5)).await;
        }
        self.connections.count()
    }

    async fn sweep(&self) {
        loop {
            runtime::sleep(SWEEP_INTERVAL).await;
            let now = self.clock.monotonic();
            self.connections.sweep(now);
            self.date.beat(self.clock.wall_ns());
            self.handler.sweep(now);
        }
    }

    /// Who connected, and what was read to know it. None ends the connection: a proxy that says
    /// nothing sensible about its client, or says it too slowly.
    async fn introduced(
        &self,
        socket: &mut Socket,
        peer: SocketAddr,
    ) -> Option<(SocketAddr, Bytes)> {
        if !self.around.proxies.introduces(peer.ip()) {
            return Some((peer, Bytes::new()));
        }
        match runtime::timeout(self.head_timeout, introduce(socket)).await {
            Some(Ok(Introduced { client, early })) => Some((client.unwrap_or(peer), early)),
            Some(Err(error)) => {
                tracing::debug!(%error, %peer, "no PROXY header");
                None
            }
            None => None,
        }
    }

    async fn serve(&self, mut socket: Socket, peer: SocketAddr) {
        let Some((peer, early)) = self.introduced(&mut socket, peer).await else { return };
        // All clients share a proxy's address, which tells them apart only later.
        let shared = self.around.proxies.vouches(peer.ip());
        let place = if shared { None } else { self.places.place(peer.ip()) };
        if place.is_none() && !shared {
            self.handler.turned_away();
            return;
        }
        self.handler.connected();
        let entered = self.connections.enter(peer);
        let connection = entered.connection();
        if let Some(wire) = self.served_usual(Wire::new(socket, early), peer, connection).await {
            let (socket, early) = wire.into_parts();
            let io = Watched::new(socket.into_stream(), Rc::clone(connection), early);
            self.serve_any(io, peer, connection).await;
        }
        self.handler.disconnected();
    }

    /// Serves usual requests. A connection whose next request is not usual is given back.
    pub(super) async fn served_usual<S: Duplex>(
        &self,
        wire: Wire<S>,
        peer: SocketAddr,
        connection: &Connection,
    ) -> Option<Wire<S>> {
        let mut serving = pin!(serve_usual(&*self.handler, wire, connection, &self.date));
        attended(peer, connection, |cx| match serving.as_mut().poll(cx) {
            Poll::Pending if connection.draining() && connection.phase() == Phase::Idle => {
                Poll::Ready(Ok(None))
            }
            polled => polled,
        })
        .await
    }

    /// Serves requests of every kind, by hyper.
    pub(super) async fn serve_any<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut io: Watched<S>,
        peer: SocketAddr,
        connection: &Rc<Connection>,
    ) {
        while self.awaited(&mut io, connection).await {
            match self.served(io, peer, connection).await {
                Some(rested) => io = rested,
                None => break,
            }
        }
    }

    /// Waits for a request with nothing but the socket and its buffer: of ten thousand connections
    /// most wait. False when none is to come.
    async fn awaited<S>(&self, io: &mut Watched<S>, connection: &Connection) -> bool
    where
        S: AsyncRead + Unpin,
    {
        poll_fn(|cx| {
            connection.attend(cx.waker());
            match io.poll_readable(cx) {
                _ if connection.expired() => Poll::Ready(false),
                Poll::Ready(read) => {
                    connection.awake();
                    Poll::Ready(read.is_ok())
                }
                Poll::Pending if connection.draining() => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Serves requests until the connection ends, or gives it back once it has been idle for a while.
    async fn served<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: Watched<S>,
        peer: SocketAddr,
        connection: &Rc<Connection>,
    ) -> Option<Watched<S>> {
        let handler = &*self.handler;
        // Boxed, since it is large: it would be moved three times on its way to hyper's own place
        // for it.
        let service = service_fn(|request: Request<Incoming>| {
            Box::pin(async {
                let (head, body) = request.into_parts();
                let answer = handler.answer(&head, body, connection).await;
                Ok::<_, Infallible>(answer.map(Full::new))
            })
        });
        let mut http = self.http.serve_connection(TokioIo::new(io), service);
        let mut told = false;
        attended(peer, connection, |cx| {
            loop {
                match Pin::new(&mut http).poll(cx) {
                    // Told earlier, hyper would close without a word where a request has begun.
                    Poll::Pending
                        if connection.draining() && !told && connection.phase() != Phase::Head =>
                    {
                        told = true;
                        Pin::new(&mut http).graceful_shutdown();
                    }
                    // What has come meanwhile was read just now: so it is idle indeed.
                    Poll::Pending if connection.tired() => return Poll::Ready(Ok(Some(()))),
                    polled => return polled.map_ok(|()| None),
                }
            }
        })
        .await?;
        let parts = http.into_parts();
        Some(parts.io.into_inner().returned(parts.read_buf))
    }
}

/// Polls what serves a connection until it has an outcome. None ends the connection: it is over, or
/// late, or an error or a panic has ended it.
async fn attended<T, E: Display>(
    peer: SocketAddr,
    connection: &Connection,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<Result<Option<T>, E>>,
) -> Option<T> {
    poll_fn(|cx| {
        connection.attend(cx.waker());
        let phase = connection.phase();
        if connection.expired() && phase != Phase::Body {
            return Poll::Ready(None);
        }
        // A panic outside a request's own guard ends its connection, never the thread.
        match catch_unwind(AssertUnwindSafe(|| poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(outcome))) => Poll::Ready(outcome),
            Ok(Poll::Ready(Err(error))) => {
                tracing::debug!(%error, %peer, ?phase, "connection ended");
                Poll::Ready(None)
            }
            Err(_) => {
                tracing::error!(%peer, "a panic ended a connection");
                Poll::Ready(None)
            }
        }
    })
    .await
}
