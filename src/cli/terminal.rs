//! What depends on who is looking: a person at a terminal or a program behind a pipe.

use std::io::{self, IsTerminal, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use forebay_log::Clock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::config::ConfigError;
use crate::observe::logs;

/// Are colours wanted on this stream? Never on a pipe, and never against the environment.
pub(super) fn coloured(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && logs::colours(|name| std::env::var(name).ok())
}

/// Did the reader of a pipe go away? That ends a listing, and is no mistake.
pub(super) fn closed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// Has whoever read this pipe gone away?
pub(super) fn hung_up(stream: &impl std::os::fd::AsFd) -> bool {
    let mut polled = [PollFd::new(stream, PollFlags::empty())];
    let asked = poll(&mut polled, Some(&Timespec::default()));
    asked.is_ok() && polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// Shows what is wrong with a configuration, with the places underlined.
pub(super) fn report(error: &ConfigError) {
    let stderr = io::stderr();
    let text = error.render(coloured(&stderr));
    // With standard error gone there is nobody left to tell.
    drop(writeln!(stderr.lock(), "{text}"));
}

/// An error with what caused it, in one line. A cause that the text before tells already is not
/// told again.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.map(ToString::to_string).fold(error.to_string(), |told, cause| {
        if told.ends_with(&cause) { told } else { format!("{told}: {cause}") }
    })
}

/// Writes what a verb has to say, all of it; the verb then ends with `code`. A reader that went
/// away is no failure, and a disk that is full is told.
pub(super) fn print(text: &[u8], code: u8) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if !closed(&error) => {
            warn(&format!("error: cannot write: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::from(code),
    }
}

/// Tells an error with what caused it.
pub(super) fn complain(error: &dyn std::error::Error) {
    // With standard error gone there is nobody left to tell.
    drop(writeln!(io::stderr().lock(), "error: {}", chain(error)));
}

/// Tells something that is no error.
pub(super) fn warn(text: &str) {
    // As above.
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// How far long work has come, in place on a line of standard error, where that is a terminal.
#[derive(Debug)]
pub(super) struct Progress {
    what: String,
    told: Option<Instant>,
    shown: bool,
    clock: Clock,
}

impl Progress {
    /// Between two lines.
    const PACE: Duration = Duration::from_millis(200);

    pub(super) fn new(what: &str) -> Self {
        let clock = Clock::System;
        // What is over at once is not worth a line.
        let told = io::stderr().is_terminal().then(|| clock.monotonic());
        Self { what: what.to_owned(), told, shown: false, clock }
    }

    /// So many bytes of so many are done.
    pub(super) fn tell(&mut self, done: u64, all: u64) {
        self.show(done, all, |bytes| ByteSize(bytes).to_string());
    }

    /// So many of so many are done.
    pub(super) fn count(&mut self, done: u64, all: u64) {
        self.show(done, all, |count| count.to_string());
    }

    fn show(&mut self, done: u64, all: u64, text: fn(u64) -> String) {
        let Some(told) = self.told else { return };
        let now = self.clock.monotonic();
        if now.saturating_duration_since(told) < Self::PACE {
            return;
        }
        self.told = Some(now);
        self.shown = true;
        let percent = done.saturating_mul(100) / all.max(1);
        let (done, all) = (text(done), text(all));
        drop(write!(io::stderr().lock(), "\r{}: {done} of {all}, {percent} % \x1b[K", self.what));
    }

    /// Takes the line away.
    pub(super) fn end(self) {
        drop(self);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            drop(write!(io::stderr().lock(), "\r\x1b[K"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_tells_each_cause_once() {
        #[derive(Debug, thiserror::Error)]
        enum Told {
            #[error("cannot write: {0}")]
            WithCause(#[from] io::Error),
            #[error("cannot begin")]
            Alone(#[source] io::Error),
        }
        let full = || io::Error::other("the disk is full");
        assert_eq!(chain(&Told::WithCause(full())), "cannot write: the disk is full");
        assert_eq!(chain(&Told::Alone(full())), "cannot begin: the disk is full");
    }
}
