//! A counterpart as a process: started in a folder of its own, killed, stopped and let go on.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

use crate::support::eventually;

/// Generous, since a start may wait for a busy machine.
pub(super) const START_WAIT: Duration = Duration::from_secs(60);

/// A port that nobody else is given, also not by chance in the seconds that a server takes to start,
/// or to start again: the kernel takes those of clients from above.
pub(super) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Relaxed: nothing else is read by it.
        let next = std::process::id()
            .wrapping_mul(1009)
            .wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(10_000 + next % 20_000).unwrap();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A server of another make.
#[derive(Debug)]
pub(super) struct Process {
    /// Its folder, gone with it.
    pub(super) folder: TempDir,
    pub(super) port: u16,
    child: Option<Child>,
}

impl Process {
    /// A folder and a port, and nothing that runs yet.
    pub(super) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("forebay-sink-").tempdir().unwrap();
        Self { folder, port: free_port(), child: None }
    }

    pub(super) fn spawn(&mut self, command: &mut Command) {
        assert!(self.child.is_none(), "it runs already");
        let log =
            File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; `tests/run sinks` installs it"));
        self.child = Some(child);
    }

    /// What it has written.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Ends it at once, and all that it has started.
    pub(super) fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let family = family(child.id());
        signal(&family, Signal::KILL);
        child.wait().unwrap();
        eventually("a killed server is gone", START_WAIT, || {
            family.iter().all(|pid| test_kill_process(*pid).is_err())
        });
    }

    /// Stops it where it stands: its sockets stay open and nobody answers.
    pub(super) fn pause(&self) {
        let child = self.child.as_ref().expect("it runs");
        // The signal is sent by now, and a thread of it may still run, or have begun a child.
        eventually("a stopped server stands still", START_WAIT, || {
            let family = family(child.id());
            signal(&family, Signal::STOP);
            family.into_iter().all(stands_still)
        });
    }

    pub(super) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, which: Signal) {
        let child = self.child.as_ref().expect("it runs");
        signal(&family(child.id()), which);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the counterpart's log:\n{}", self.log());
        }
        if self.child.is_some() {
            self.resume();
            self.kill();
        }
    }
}

fn signal(family: &[Pid], which: Signal) {
    for pid in family {
        // One that has ended in between is as good as told.
        _ = kill_process(*pid, which);
    }
}

fn stands_still(pid: Pid) -> bool {
    let threads = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()));
    threads.into_iter().flatten().flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // One that has ended says nothing, and is a zombie while its parent stands still.
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 'Z']))
    })
}

/// A process and its children: PostgreSQL has one for each connection, in a session of its own.
fn family(parent: u32) -> Vec<Pid> {
    let parent = i32::try_from(parent).unwrap();
    let mut family = vec![parent];
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // pid (name) state ppid ...; the name may hold anything.
        let Some((pid, rest)) = stat.split_once(' ') else { continue };
        let Some((_, rest)) = rest.rsplit_once(") ") else { continue };
        if rest.split(' ').nth(1) == Some(&parent.to_string()) {
            family.extend(pid.parse::<i32>());
        }
    }
    family.into_iter().filter_map(Pid::from_raw).collect()
}
