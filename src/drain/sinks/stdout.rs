//! Payloads on standard output, one a line: for pipes and for looking at what a sink would get.
//!
//! At least once: a line that was written before a crash may be written again.

use std::io::{self, Write as _};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

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

impl Sink for Stdout {
    fn nature(&self) -> Nature {
        Nature::SEQUENTIAL
    }

    fn deliver<'a>(&'a self, batch: &'a [Event]) -> BoxFuture<'a, Delivered> {
        let payloads: Vec<_> = batch.iter().map(|event| event.payload.clone()).collect();
        // A pipe that is full must not hold up other sinks.
        let write = tokio::task::spawn_blocking(move || {
            let mut out = io::stdout().lock();
            for payload in payloads {
                out.write_all(&payload)?;
                out.write_all(b"\n")?;
            }
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
