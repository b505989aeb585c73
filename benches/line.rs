//! The whole line without sockets: hyper parses requests out of memory, the line verifies,
//! deduplicates and appends them, and its answers go into memory.
//!
//! Beside it the same bytes through hyper with a handler that reads the body and answers 200, so
//! that what the line adds can be read off as a difference.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::future::Future;
use std::hint::black_box;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use forebay::receive::{Answer, Connections};
use forebay::server::Opened;
use forebay::verify::{self, NamedSecret, SecretText, SignInput, Signer};
use forebay_log::Clock;
use http_body_util::BodyExt;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const PRESET: &str = "standard-webhooks";
const BODY_BYTES: usize = 1024;
const REQUESTS: u64 = 64;
const PEER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 40_000);

/// A connection whose peer has sent all it will, and takes whatever it gets.
struct Memory {
    unread: Bytes,
    answered: usize,
}

impl AsyncRead for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let count = buffer.remaining().min(self.unread.len());
        buffer.put_slice(&self.unread.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Memory {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.answered += bytes.windows(3).filter(|window| window == b"200").count();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Requests with ids that no other call has used.
fn requests(next: &mut u64) -> Bytes {
    let profile = verify::preset(PRESET).expect("the preset is compiled in");
    let value = SecretText::new(SECRET);
    let secret = NamedSecret { name: "a".to_owned(), value, key_id: None };
    let signer = Signer::new(profile, secret).expect("the secret is a key");
    let mut wire = String::new();
    for _ in 0..REQUESTS {
        *next += 1;
        let id = format!("00000000-0000-0000-0000-{next:012}");
        // As the sender orders it: type and time before the data.
        let body = format!(
            "{{\"type\":\"participant.joined\",\"timestamp\":\"2026-11-21T18:00:00Z\",\
             \"data\":{{\"n\":{next},\"pad\":\"{}\"}}}}",
            "x".repeat(BODY_BYTES)
        );
        let body = format!("{}\"}}}}", &body[..BODY_BYTES - 3]);
        let now_ns = Clock::System.wall_ns();
        let input = SignInput {
            id: &id,
            now_ns,
            event_type: "push",
            target: "/bench",
            body: body.as_bytes(),
        };
        wire.push_str("POST /bench HTTP/1.1\r\nhost: forebay\r\nuser-agent: Standard-Webhooks\r\n");
        wire.push_str("accept: */*\r\n");
        for (name, value) in signer.sign(&input).expect("it can sign") {
            let value = value.to_str().expect("it is text");
            write!(wire, "{name}: {value}\r\n").expect("a string takes all");
        }
        write!(wire, "content-length: {}\r\n\r\n{body}", body.len()).expect("a string takes all");
    }
    Bytes::from(wire)
}

/// Drives a future that has no reason to wait.
fn finish<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
    }
}

fn opened(dir: &std::path::Path) -> Opened {
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

fn line(c: &mut Criterion) {
    // Beside the build, not in /tmp: that may be memory, and a lane wants a file system.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let opened = opened(dir.path());
    let line = Rc::new(opened.line(0));
    let connections = Connections::new(opened.deadlines(), Clock::System.monotonic());
    let mut next = 0;
    let mut group = c.benchmark_group("line, 1 KiB");
    group.throughput(Throughput::Elements(REQUESTS));
    group.bench_function("parse to ack, written", |b| {
        let setup = || requests(&mut next);
        let routine = |unread| {
            let entered = connections.enter(PEER);
            let service = service_fn(|request| {
                let (line, connection) = (Rc::clone(&line), Rc::clone(entered.connection()));
                async move { Ok::<_, Infallible>(line.answer_to(request, connection).await) }
            });
            serve(unread, service);
        };
        b.iter_batched(setup, routine, BatchSize::SmallInput);
    });
    group.bench_function("bare hyper, body read, 200", |b| {
        let mut next = 0;
        let routine = |unread| {
            let service = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                let body = request.into_body().collect().await.expect("it is whole");
                black_box(body.to_bytes());
                Ok::<_, Infallible>(Answer::default())
            });
            serve(unread, service);
        };
        b.iter_batched(|| requests(&mut next), routine, BatchSize::SmallInput);
    });
    group.finish();
}

/// Serves one connection to its end and sees that every request got its 200.
fn serve<S>(unread: Bytes, service: S)
where
    S: hyper::service::Service<
            http::Request<hyper::body::Incoming>,
            Response = Answer,
            Error = Infallible,
        >,
{
    let io = TokioIo::new(Memory { unread, answered: 0 });
    let connection = http1::Builder::new().half_close(true).serve_connection(io, service);
    let parts = finish(connection.without_shutdown()).expect("the connection ends well");
    assert_eq!(parts.io.into_inner().answered as u64, REQUESTS, "every request is acknowledged");
}

criterion_group!(benches, line);
criterion_main!(benches);
