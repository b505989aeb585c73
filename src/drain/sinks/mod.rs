//! The sinks: one file for each kind of destination.
//!
//! A kind is its `Settings`, checked by `src/config/sink/KIND.rs`, a variant of [`Settings`] here,
//! and a [`Sink`] that is made of them when the drain starts.

pub mod stdout;

use std::sync::Arc;

use super::sink::Sink;

/// What one kind of sink needs, checked.
#[derive(Clone, Debug)]
pub enum Settings {
    /// Lines on standard output.
    Stdout(stdout::Settings),
}

/// Why a sink cannot be made. A destination that cannot be reached is no such reason.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub String);

impl Settings {
    /// The word of its table.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Stdout(_) => "stdout",
        }
    }

    /// Makes the sink of this name. Called inside the drain's runtime; must not wait for the
    /// destination, which may be away when forebay starts.
    pub fn open(&self, name: &str) -> Result<Arc<dyn Sink>, OpenError> {
        _ = name;
        match self {
            Self::Stdout(settings) => Ok(Arc::new(stdout::Stdout::new(settings))),
        }
    }
}
