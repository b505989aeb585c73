//! Cores that do not sleep. A core of a virtual machine that has nothing to do is given back to the
//! host, and comes back when the host likes: much of what is above the p99 of a server that is sent
//! little. So somebody spins on each core, in the scheduler's class for what runs only while nothing
//! else wants to, which whatever wakes up displaces at once.

use std::io;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use crate::processor;

/// Somebody who spins on each core, until this goes.
#[derive(Debug)]
pub(crate) struct Awake {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Awake {
    /// Keeps these cores awake.
    pub(crate) fn start(cores: &[usize]) -> io::Result<Self> {
        let mut awake = Self { stop: Arc::default(), threads: Vec::new() };
        for &core in cores {
            let (stop, (told, ready)) = (Arc::clone(&awake.stop), mpsc::channel());
            let spin = move || {
                let entered = processor::stay_on(&[core]).and_then(|()| be_idle());
                let spins = entered.is_ok();
                // Gone only where this fails as a whole.
                let _ = told.send(entered);
                // Relaxed: a flag that orders nothing else.
                while spins && !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            };
            awake.threads.push(thread::Builder::new().name(format!("awake-{core}")).spawn(spin)?);
            ready.recv().map_err(io::Error::other)??;
        }
        Ok(awake)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        // Relaxed: as above.
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that has panicked has said so.
            let _ = thread.join();
        }
    }
}

/// Puts this thread behind all others. There is no way to do so but by the tool.
fn be_idle() -> io::Result<()> {
    let id = rustix::thread::gettid().as_raw_nonzero().to_string();
    let output = Command::new("chrt").args(["--idle", "--pid", "0", &id]).output();
    let output =
        output.map_err(|error| io::Error::other(format!("chrt, of util-linux: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
