//! Socket to [`Admitted`]: connections with their deadlines, requests with their bounds.
//!
//! One receiver is one pinned thread with its own listener and runtime; nothing in this folder is
//! shared between receivers.

mod address;
mod admitted;
mod body;
mod connection;
mod gate;
mod problem;
mod proxy;
mod routes;
mod serve;
mod unparsed;

pub use address::Failures;
pub use admitted::{Admission, Admitted, OutOfQuarantine, Received};
pub use body::Budget;
pub use connection::{Connection, Connections, Deadlines, Entered};
pub use gate::{Certificate, Gate};
pub use problem::{accepted, refused};
pub use proxy::{Proxies, ProxyKind};
pub use routes::{Route, Routes};
pub use serve::{Answer, Around, Handler, Receiver};
