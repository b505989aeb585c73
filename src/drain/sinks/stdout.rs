//! Payloads on standard output, one a line: for pipes and for looking at what a sink would get. One
//! that is no JSON stands in a line of JSON that says so.
//!
//! At least once: a line that was written before a crash may be written again.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::{Destination, Kind, OpenError, line};
use crate::drain::sink::{Delivered, Event, Failure, Nature, Sink};

/// What `[sink.stdout]` says.
#[derive(Clone, Copy, Debug)]
pub struct Settings {}

/// The sink.
#[derive(Debug)]
pub struct Stdout {}

impl Stdout {
    /// Makes it.
    pub fn new(_settings: &Settings) -> Self {
        Self {}
    }
}

impl Kind for Settings {
    fn word(&self) -> &'static str {
        "stdout"
    }

    fn destination(&self) -> Destination {
        Destination::standard_output()
    }

    fn open(&self, _name: &str, _timeout: Duration) -> Result<Arc<dyn Sink>, OpenError> {
        Ok(Arc::new(Stdout::new(self)))
    }
}

impl Sink for Stdout {
    fn nature(&self) -> Nature {
        Nature::SEQUENTIAL
    }

    fn deliver<'a>(&'a self, batch: &'a [Event]) -> BoxFuture<'a, Delivered> {
        let mut lines = Vec::new();
        for event in batch {
            line::write_payload(&mut lines, event);
        }
        // A pipe that is full must not hold up other sinks.
        let write = tokio::task::spawn_blocking(move || {
            let mut out = io::stdout().lock();
            out.write_all(&lines)?;
            out.flush()
        });
        write
            .map(|written| match written.map_err(io::Error::other).flatten() {
                Ok(()) => Delivered::All,
                Err(error) => Delivered::None(Failure::temporary(error.to_string())),
            })
            .boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Failure>> {
        futures_util::future::ready(Ok(())).boxed()
    }
}
