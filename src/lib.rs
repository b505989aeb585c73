//! forebay receives webhooks at the edge and never loses one that it has acknowledged.
//!
//! The line, and the order in which its modules are declared:
//!
//! ```text
//! receive -> admit -> verify -> identify -> dedupe -> append -> ack
//! ```
//!
//! Each stage takes the type that the stage on its left made and is the only place that can make
//! its own, so an unverified body cannot be appended. [`mod@line`] wires them on one screen.
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod limits;
pub mod receive;
pub mod verify;
pub mod handshake;
pub mod identify;
pub mod dedupe;
pub mod append;
pub mod replica;
pub mod ack;
pub mod quarantine;
pub mod line;
pub mod drain;
pub mod server;
pub mod reject;
pub mod runtime;
pub mod admin;
pub mod observe;
pub mod outgoing;
pub mod diagnose;
