//! What depends on who is looking: a person at a terminal or a program behind a pipe.

use std::io::{self, IsTerminal, Write as _};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::config::ConfigError;

/// Are colours wanted on this stream? Never on a pipe, and never against `NO_COLOR`.
pub(super) fn coloured(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
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

/// An error with what caused it, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Tells an error with what caused it.
pub(super) fn complain(error: &dyn std::error::Error) {
    // With standard error gone there is nobody left to tell.
    drop(writeln!(io::stderr().lock(), "error: {}", chain(error)));
}
