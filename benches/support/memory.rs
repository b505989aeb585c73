//! The line without sockets: a connection whose sender waits for each answer, and signed requests
//! that it sends.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::future::Future;
use std::hint::black_box;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use forebay::receive::{Answer, Connection, Connections, Handler, HttpDate, Wire, serve_usual};
use forebay::runtime::Duplex;
use forebay::server::Opened;
use forebay::verify::{self, NamedSecret, SecretText, SignInput, Signer};
use forebay_log::Clock;
use http::request::Parts;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub(crate) const PRESET: &str = "standard-webhooks";
const BODY_BYTES: usize = 1024;
const PEER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 40_000);

/// A connection whose peer sends the next request once it was answered, and takes whatever it gets.
struct Memory {
    unread: VecDeque<Bytes>,
    given: usize,
    answered: usize,
}

impl Memory {
    fn new(unread: VecDeque<Bytes>) -> Self {
        Self { unread, given: 0, answered: 0 }
    }
}

impl Duplex for Memory {
    async fn read(&mut self, mut buffer: BytesMut) -> (std::io::Result<usize>, BytesMut) {
        assert_eq!(self.given, self.answered, "each request is answered before the next");
        let Some(request) = self.unread.pop_front() else { return (Ok(0), buffer) };
        self.given += 1;
        buffer.extend_from_slice(&request);
        (Ok(request.len()), buffer)
    }

    async fn write_all(&mut self, bytes: Vec<u8>) -> (std::io::Result<()>, Vec<u8>) {
        self.answered += usize::from(bytes.starts_with(b"HTTP/1.1 200"));
        (Ok(()), bytes)
    }

    async fn shutdown(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.given > self.answered {
            return Poll::Pending;
        }
        if let Some(request) = self.unread.pop_front() {
            assert!(request.len() <= buffer.remaining(), "a request fits into what hyper reads");
            buffer.put_slice(&request);
            self.given += 1;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Memory {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.answered += usize::from(bytes.starts_with(b"HTTP/1.1 200"));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A body as its sender orders it: type and time before the data.
pub(crate) fn body(number: u64) -> String {
    let body = format!(
        "{{\"type\":\"participant.joined\",\"timestamp\":\"2026-11-21T18:00:00Z\",\
         \"data\":{{\"n\":{number},\"pad\":\"{}\"}}}}",
        "x".repeat(BODY_BYTES)
    );
    format!("{}\"}}}}", &body[..BODY_BYTES - 3])
}

/// The headers by which the sender signs `body`.
pub(crate) fn signed(number: u64, body: &str) -> Vec<(http::HeaderName, http::HeaderValue)> {
    let profile = verify::preset(PRESET).expect("the preset is compiled in");
    let value = SecretText::new(SECRET);
    let secret = NamedSecret { name: "a".to_owned(), value, key_id: None };
    let signer = Signer::new(profile, secret).expect("the secret is a key");
    let input = SignInput {
        id: &format!("00000000-0000-0000-0000-{number:012}"),
        now_ns: Clock::System.wall_ns(),
        event_type: "push",
        target: "/bench",
        body: body.as_bytes(),
    };
    signer.sign(&input).expect("it can sign").into_iter().collect()
}

/// So many requests, with ids that no other call with the same counter has used.
pub(crate) fn requests(next: &mut u64, count: u64) -> VecDeque<Bytes> {
    let mut request = || {
        *next += 1;
        let body = body(*next);
        let mut wire = "POST /bench HTTP/1.1\r\nhost: forebay\r\nuser-agent: Standard-Webhooks\r\n\
                        accept: */*\r\n"
            .to_owned();
        for (name, value) in signed(*next, &body) {
            let value = value.to_str().expect("it is text");
            write!(wire, "{name}: {value}\r\n").expect("a string takes all");
        }
        write!(wire, "content-length: {}\r\n\r\n{body}", body.len()).expect("a string takes all");
        Bytes::from(wire)
    };
    (0..count).map(|_| request()).collect()
}

/// A server's parts over a fresh folder.
pub(crate) fn opened(dir: &std::path::Path) -> Opened {
    let file = dir.join("forebay.toml");
    let config = format!(
        "data_dir = {:?}\n[receive]\nlisten = \"127.0.0.1:0\"\n[[lane]]\nname = \"bench\"\n\
         ack = \"written\"\nretention = {{ size = \"2GiB\" }}\n[[source]]\nname = \"bench\"\n\
         path = \"/bench\"\npreset = \"{PRESET}\"\nsecrets = [{{ name = \"a\", value = \"{SECRET}\" }}]\n",
        dir.display().to_string()
    );
    std::fs::write(&file, config).expect("the folder is there");
    let config = forebay::config::load(&file, std::iter::empty()).expect("the bench's own");
    Opened::open(config, &Clock::System).expect("a fresh folder opens")
}

/// Serves one connection by `handler`, every request as the usual one that it is, and sees that each
/// got its 200.
pub(crate) fn serve<H: Handler>(handler: &H, connections: &Rc<Connections>, wire: VecDeque<Bytes>) {
    let count = wire.len();
    let entered = connections.enter(PEER);
    let date = HttpDate::new(Clock::System.wall_ns());
    let mut memory = Memory::new(wire);
    let wire = Wire::new(&mut memory, Bytes::new());
    let left = finish(serve_usual(handler, wire, entered.connection(), &date));
    assert!(left.expect("the connection ends well").is_none(), "no request is left for hyper");
    assert_eq!(memory.answered, count, "every request is acknowledged");
}

/// Reads the body and answers 200.
pub(crate) struct Bare;

impl Handler for Bare {
    async fn answer<B>(&self, _head: &Parts, body: B, _connection: &Connection) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let Ok(body) = body.collect().await else { panic!("it is whole") };
        black_box(body.to_bytes());
        Answer::default()
    }
}

/// Serves one connection by hyper and [`Bare`], and sees that every request got its 200.
pub(crate) fn serve_hyper(connections: &Rc<Connections>, wire: VecDeque<Bytes>) {
    let count = wire.len();
    let entered = connections.enter(PEER);
    let service = service_fn(|request: http::Request<Incoming>| async {
        let (head, body) = request.into_parts();
        let answer = Bare.answer(&head, body, entered.connection()).await;
        Ok::<_, Infallible>(answer.map(http_body_util::Full::new))
    });
    let io = TokioIo::new(Memory::new(wire));
    let connection = http1::Builder::new().half_close(true).serve_connection(io, service);
    let parts = finish(connection.without_shutdown()).expect("the connection ends well");
    assert_eq!(parts.io.into_inner().answered, count, "every request is acknowledged");
}

/// Drives a future that never waits for long.
fn finish<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
    }
}
