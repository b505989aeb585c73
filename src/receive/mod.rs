//! Socket to [`Admitted`]: connections with their deadlines, requests with their bounds.
//!
//! The usual request is served by `usual`, all others by hyper; both ask the same [`Handler`].
//!
//! One receiver is one pinned thread with its own listener and runtime; nothing in this folder is
//! shared between receivers.

mod address;
mod admitted;
mod answer;
mod body;
mod connection;
mod gate;
mod head;
mod problem;
mod proxy;
mod routes;
mod serve;
mod unparsed;
mod usual;

#[cfg(test)]
mod tests;

pub use address::Failures;
pub use admitted::{Admission, Admitted, OutOfQuarantine, Received};
pub use answer::{Answer, HttpDate};
pub use body::Budget;
pub use connection::{Connection, Connections, Deadlines, Entered};
pub use gate::{Certificate, Gate};
pub use problem::{accepted, refused};
pub use proxy::{Proxies, ProxyKind};
pub use routes::{Route, Routes};
pub use serve::{Around, Handler, Receiver};
pub use usual::{Wire, serve_usual};
