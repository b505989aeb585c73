//! The receivers' sockets and threads.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel;
use tokio::sync::watch;

use super::{Opened, StartError};
use crate::config::ReceiveConfig;
use crate::receive::{Around, Receiver};
use crate::runtime::{self, Listener};

/// How often, and how long apart, a port is asked for that is still taken.
const BIND_TRIES: u32 = 40;
const BIND_WAIT: Duration = Duration::from_millis(50);

/// A socket for each receiver, on one port that nobody else has.
pub(super) fn bind_all(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, StartError> {
    let failed = |source| StartError::Listen { address, source };
    // A port that somebody else listens on could be shared by accident, since each receiver sets
    // SO_REUSEPORT: one exclusive bind first makes that an error.
    let exclusive = when_free(|| TcpListener::bind(address)).map_err(failed)?;
    let address = exclusive.local_addr().map_err(failed)?;
    drop(exclusive);
    (0..count).map(|_| when_free(|| runtime::bind(address)).map_err(failed)).collect()
}

/// Binds a port, and waits a little for one that is taken. The kernel ends the rings of a process
/// that was killed a little after the process, and with them its listeners: a restart at once has
/// to wait for that. And a process that another thread starts holds a copy of every socket from
/// its fork to its exec, of one just dropped as well.
fn when_free(mut bind: impl FnMut() -> io::Result<TcpListener>) -> io::Result<TcpListener> {
    for _ in 0..BIND_TRIES {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => thread::sleep(BIND_WAIT),
            bound => return bound,
        }
    }
    bind()
}

/// Starts a thread for each socket, and returns once all of them receive.
pub(super) fn start_receivers(
    listeners: Vec<TcpListener>,
    opened: &Opened,
    stopped: &watch::Receiver<bool>,
) -> Result<Vec<JoinHandle<usize>>, StartError> {
    let failed = |source| StartError::Receiver { driver: opened.driver, source };
    let cores = runtime::cores();
    let (ready, started) = channel::bounded(listeners.len());
    let mut receivers = Vec::with_capacity(listeners.len());
    for (index, listener) in listeners.into_iter().enumerate() {
        let core = cores.get(index % cores.len().max(1)).copied();
        let seat = ReceiverSeat { index, core, opened: opened.clone(), stopped: stopped.clone() };
        let ready = ready.clone();
        let run = move || {
            let outcome =
                runtime::block_on(seat.opened.driver, seat.receive(listener, ready.clone()));
            outcome.unwrap_or_else(|error| {
                // The first message decides the start; nobody listens for a second.
                drop(ready.try_send(Err(error)));
                0
            })
        };
        let name = format!("forebay-rx-{index}");
        receivers.push(thread::Builder::new().name(name).spawn(run).map_err(failed)?);
    }
    for _ in 0..receivers.len() {
        started.recv().unwrap_or_else(|_| Err(io::Error::other("it ended"))).map_err(failed)?;
    }
    Ok(receivers)
}

/// What one receiver's thread takes with it.
struct ReceiverSeat {
    index: usize,
    core: Option<usize>,
    opened: Opened,
    stopped: watch::Receiver<bool>,
}

impl ReceiverSeat {
    async fn receive(self, listener: TcpListener, ready: channel::Sender<io::Result<()>>) -> usize {
        if let Some(core) = self.core
            && let Err(error) = runtime::pin(core)
        {
            tracing::warn!(receiver = self.index, core, %error, "not pinned");
        }
        let listener = match Listener::new(listener) {
            Ok(listener) => listener,
            Err(error) => {
                drop(ready.try_send(Err(error)));
                return 0;
            }
        };
        let line = Rc::new(self.opened.line(self.index));
        for seat in &line.seats {
            let waits = Rc::clone(seat.waits());
            runtime::spawn(async move { waits.release().await });
        }
        let (deadlines, clock) = (self.opened.deadlines(), self.opened.clock.clone());
        let ReceiveConfig { proxies, connections_per_address, .. } = &self.opened.receive;
        let around = Around {
            proxies: Arc::clone(proxies),
            connections_per_address: *connections_per_address,
        };
        let receiver = Receiver::within(line, deadlines, clock, around);
        drop(ready.try_send(Ok(())));
        let mut stopped = self.stopped;
        let stop = async move {
            // An error means that the server is gone, which stops a receiver as well.
            drop(stopped.wait_for(|stop| *stop).await);
        };
        receiver.run(listener, stop, self.opened.receive.drain_timeout).await
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_process_that_starts_meanwhile_keeps_no_port_taken() {
        let done = AtomicBool::new(false);
        let bound = thread::scope(|scope| {
            scope.spawn(|| {
                // Relaxed: only the flag itself is read.
                while !done.load(Ordering::Relaxed) {
                    drop(Command::new("true").status());
                }
            });
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let bound = (0..3000).try_for_each(|_| bind_all(any, 2).map(drop));
            done.store(true, Ordering::Relaxed);
            bound
        });
        assert!(bound.is_ok(), "{bound:?}");
    }
}
