//! `[sink.stdout]`: has no keys of its own.

use std::sync::Arc;

use super::{Kind, Section};
use crate::drain::sinks::stdout;

#[expect(clippy::unnecessary_wraps, reason = "the form of every kind's reader")]
pub(super) fn read(_section: &Section<'_>) -> Option<Arc<dyn Kind>> {
    Some(Arc::new(stdout::Settings {}))
}
