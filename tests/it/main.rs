//! The whole server from outside: the real binary, real sockets, the log read back by `tail`.
//!
//! Every test of the server runs once for each driver. Settings of the run, all optional:
//!
//! | variable | what it sets |
//! |---|---|
//! | `IT_TWIN_ROUNDS` | rounds of 64 first deliveries at once of one event |
//! | `IT_KILL_ROUNDS` | rounds of kill -9 under load, for each driver and ack level |
//! | `IT_MUTATIONS` | places drawn for each kind of change of each vector; 0 is every one |
//! | `IT_DRAIN_ROUNDS` | rounds of kill -9 while a sink is drained to, for each driver |
//! | `IT_SINK_ROUNDS` | rounds of kill -9 of a sink's server |
//! | `IT_SEED` | the seed of a campaign, as an earlier run printed it |
//! | `IT_FOREBAY` | the binary to test, instead of the one that was built for it |
//! | `IT_REQUIRE_IO_URING` | fail, rather than say so and pass, where the kernel refuses `io_uring` |
#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "seeds, skips and the logs of a failed server go there")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[macro_use]
mod support;

mod admin;
mod batches;
mod answers;
mod bus_error;
mod config;
mod cursors;
mod dead_letters;
mod demo;
mod doctor;
mod documents;
mod drain;
mod handshakes;
mod kill;
mod layers;
mod line;
mod purge;
mod python;
mod quarantine;
mod refused;
mod reload;
mod replay;
mod sdk;
mod secrets;
mod shutdown;
mod staging;
#[cfg(all(feature = "sink-nats", feature = "sink-postgres", feature = "sink-redis"))]
mod sinks;
mod subscriptions;
mod tail;
mod usual;
mod vectors;
mod verify;
