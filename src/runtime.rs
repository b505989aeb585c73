//! The only file that names monoio: which driver runs a receiver, on which core, and the pieces of
//! its runtime that the line needs (sockets, tasks, sleep).
//!
//! Two rules keep monoio 0.2.4 safe here. A runtime on `io_uring` is never dropped while
//! operations may be in flight (its buffers would be freed under the kernel), so [`block_on`]
//! leaks it when the receiver ends; and no task or join handle ever crosses threads, so other
//! threads reach a receiver only through `tokio::sync` types.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::mem::{self, ManuallyDrop};
use std::net::SocketAddr;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use monoio::buf::SliceMut;
use monoio::io::{AsyncReadRent as _, AsyncWriteRent as _, AsyncWriteRentExt as _};
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};
use monoio_compat::StreamWrapper;
use socket2::{Domain, Protocol, Type};

use crate::limits::READ_BYTES;

/// A connection as hyper takes it, over completion I/O.
pub type Stream = StreamWrapper<monoio::net::TcpStream>;

/// Entries of one receiver's submission ring: the most operations between two submits.
const RING_ENTRIES: u32 = 4096;
/// What one write gives at most. Answers are smaller: a status, or a problem of a few hundred bytes.
const WRITE_BYTES: usize = 1024;
/// Connections that the kernel holds for one listener until they are accepted.
const BACKLOG: i32 = 4096;

/// How a receiver waits for its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Completions by `io_uring`.
    IoUring,
    /// Readiness by epoll.
    Epoll,
}

impl Driver {
    /// The name in the configuration, in logs and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }

    /// `io_uring` where this kernel and its seccomp filter allow a ring, epoll otherwise.
    pub fn detect() -> Self {
        if probe_ring().is_ok() { Self::IoUring } else { Self::Epoll }
    }
}

/// The flags with which `io_uring` costs no more than epoll (`benches/README.md`): without
/// cooperative task running the kernel interrupts the receiver for each completion.
/// Kernels before 6.0 know neither flag and get a plain ring.
fn ring_flags() -> io_uring::Builder {
    if matches!(probe_ring(), Ok(true)) { cooperative() } else { io_uring::IoUring::builder() }
}

fn cooperative() -> io_uring::Builder {
    let mut flags = io_uring::IoUring::builder();
    flags.setup_coop_taskrun().setup_single_issuer();
    flags
}

/// Whether this kernel and its seccomp filter allow a ring, and if so, whether with the flags that
/// make it cheap.
pub fn probe_ring() -> io::Result<bool> {
    if cooperative().build(8).is_ok() {
        return Ok(true);
    }
    io_uring::IoUring::builder().build(8).map(|_: io_uring::IoUring| false)
}

/// Runs `future` to its end on a runtime of this thread.
pub fn block_on<F: Future>(driver: Driver, future: F) -> io::Result<F::Output> {
    DRIVER.set(Some(driver));
    let output = run(driver, future);
    DRIVER.set(None);
    // A task that waits there outlives its runtime, and is not to be dropped without one.
    let _ = ManuallyDrop::new(PASSED.take());
    output
}

fn run<F: Future>(driver: Driver, future: F) -> io::Result<F::Output> {
    match driver {
        Driver::IoUring => {
            let runtime = RuntimeBuilder::<IoUringDriver>::new()
                .with_entries(RING_ENTRIES)
                .uring_builder(ring_flags())
                .enable_timer()
                .build()?;
            // Never dropped: see the module's first rule.
            Ok(ManuallyDrop::new(runtime).block_on(future))
        }
        Driver::Epoll => {
            let mut runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
            Ok(runtime.block_on(future))
        }
    }
}

/// Pins this thread to one core of those the process may use.
pub fn pin(core: usize) -> io::Result<()> {
    monoio::utils::bind_to_cpu_set([core]).map_err(io::Error::other)
}

/// The cores that this process may run on, which inside a container are fewer than the machine's.
pub fn cores() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return vec![0] };
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect()
}

/// Binds one of the listeners that share `address`, before any thread starts, so that a taken
/// port is an error at start and port 0 is resolved once.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket =
        socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What an address should be in the place of one that cannot be bound.
pub fn bind_cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "one with a port from 1024 on, or run with CAP_NET_BIND_SERVICE as in \
             tuning/forebay.service"
        }
        io::ErrorKind::AddrNotAvailable => {
            "one of this machine, such as 0.0.0.0 for all of its own"
        }
        _ => "one that is free",
    }
}

/// A receiver's listener.
#[derive(Debug)]
pub struct Listener(monoio::net::TcpListener);

impl Listener {
    /// Takes over a bound listener on a receiver's thread.
    pub fn new(bound: std::net::TcpListener) -> io::Result<Self> {
        monoio::net::TcpListener::from_std(bound).map(Self)
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        stream.set_nodelay(true)?;
        Ok((Socket(stream), peer))
    }
}

/// Both directions of a connection. A buffer is lent to the kernel while it is read into or
/// written from, and comes back with the outcome.
pub trait Duplex {
    /// Reads behind what is in `buffer`, as much as there is room for. Zero bytes are the end.
    fn read(&mut self, buffer: BytesMut) -> impl Future<Output = (io::Result<usize>, BytesMut)>;

    /// Writes all of `bytes`.
    fn write_all(&mut self, bytes: Vec<u8>) -> impl Future<Output = (io::Result<()>, Vec<u8>)>;

    /// Says that nothing more will be written.
    fn shutdown(&mut self) -> impl Future<Output = io::Result<()>>;
}

impl<D: Duplex> Duplex for &mut D {
    fn read(&mut self, buffer: BytesMut) -> impl Future<Output = (io::Result<usize>, BytesMut)> {
        (**self).read(buffer)
    }

    fn write_all(&mut self, bytes: Vec<u8>) -> impl Future<Output = (io::Result<()>, Vec<u8>)> {
        (**self).write_all(bytes)
    }

    fn shutdown(&mut self) -> impl Future<Output = io::Result<()>> {
        (**self).shutdown()
    }
}

/// A connection of TCP.
#[derive(Debug)]
pub struct Socket(monoio::net::TcpStream);

impl Socket {
    /// The connection as hyper takes it.
    pub fn into_stream(self) -> Stream {
        StreamWrapper::new_with_buffer_size(self.0, READ_BYTES, WRITE_BYTES)
    }
}

impl Duplex for Socket {
    async fn read(&mut self, buffer: BytesMut) -> (io::Result<usize>, BytesMut) {
        let (from, to) = (buffer.len(), buffer.capacity());
        let (read, slice) = self.0.read(SliceMut::new(buffer, from, to)).await;
        (read, slice.into_inner())
    }

    async fn write_all(&mut self, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let (written, bytes) = self.0.write_all(bytes).await;
        (written.map(drop), bytes)
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }
}

/// Starts a task on this thread's runtime. It is never joined.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    drop(monoio::spawn(task));
}

thread_local! {
    /// Who has let the others go first.
    static PASSED: RefCell<Vec<Waker>> = const { RefCell::new(Vec::new()) };
    /// What runs the tasks of this thread, if [`block_on`] does.
    static DRIVER: Cell<Option<Driver>> = const { Cell::new(None) };
}

/// Lets the other tasks of this thread have their turn.
pub async fn pass() {
    let mut passed = false;
    poll_fn(|cx| {
        if mem::replace(&mut passed, true) {
            return Poll::Ready(());
        }
        if DRIVER.get().is_none() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // monoio runs a task that wakes itself before all others. So it is woken by one that comes
        // behind whoever is ready now.
        let is_first = PASSED.with_borrow_mut(|passed| {
            passed.push(cx.waker().clone());
            passed.len() == 1
        });
        if is_first {
            spawn(async {
                PASSED.with_borrow_mut(|passed| passed.drain(..).for_each(Waker::wake));
            });
        }
        Poll::Pending
    })
    .await;
}

/// The same where each read and write is a call of its own, as with epoll: what is ready is read
/// first, then all is answered in a row, and by the time the first is read again its next request
/// has mostly come. A ring takes them together as it is.
pub async fn gather() {
    if DRIVER.get() == Some(Driver::Epoll) {
        pass().await;
    }
}

/// Waits; the runtime's timers count in milliseconds.
pub async fn sleep(duration: Duration) {
    // Boxed: a timer fills several cache lines, which every future that may ever wait would hold.
    Box::pin(monoio::time::sleep(duration)).await;
}

/// `Some` with the output, or `None` when `duration` passed first.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Option<F::Output> {
    monoio::time::timeout(duration, future).await.ok()
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn who_passes_comes_behind_whoever_is_ready() {
        for driver in [Driver::Epoll, Driver::detect()] {
            let order = block_on(driver, async {
                let order = Rc::new(RefCell::new(Vec::new()));
                for name in ["first", "second"] {
                    let order = Rc::clone(&order);
                    spawn(async move {
                        for turn in 0..3 {
                            order.borrow_mut().push((name, turn));
                            pass().await;
                        }
                    });
                }
                while order.borrow().len() < 6 {
                    sleep(Duration::from_millis(1)).await;
                }
                order.take()
            });
            let wanted = (0..3).flat_map(|turn| [("first", turn), ("second", turn)]);
            assert_eq!(order.expect("a runtime"), wanted.collect::<Vec<_>>(), "{driver:?}");
        }
    }
}
