//! `[sink.stdout]`: has no keys of its own.

use super::{Section, Settings};
use crate::drain::sinks::stdout;

#[expect(clippy::unnecessary_wraps, reason = "the form of every kind's reader")]
pub(super) fn read(_section: &Section<'_>) -> Option<Settings> {
    Some(Settings::Stdout(stdout::Settings {}))
}
