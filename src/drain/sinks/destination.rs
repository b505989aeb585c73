//! Where a sink sends, to be looked at: the servers or the folder, and what it is called there.
//!
//! Never what may be secret: of a URL whose path is the user's own only scheme, host and port, no
//! user, no password, no query.

use std::fmt;

use http::Uri;

/// Where a sink sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Servers, a folder or a bucket; none: standard output.
    pub to: Vec<String>,
    /// What it is called there, by the keys of the configuration: a topic, a table.
    pub names: Vec<(&'static str, String)>,
}

impl Destination {
    /// One place.
    pub fn at(to: impl fmt::Display) -> Self {
        Self::among([to])
    }

    /// Several that are one: the servers of a cluster.
    pub fn among(to: impl IntoIterator<Item = impl fmt::Display>) -> Self {
        Self { to: to.into_iter().map(|place| place.to_string()).collect(), names: Vec::new() }
    }

    /// Scheme, host and port: what stands behind them may be what opens the door.
    pub fn origin(url: &Uri) -> Self {
        let authority = url.authority().map_or("", |authority| authority.as_str());
        let host = authority.rsplit('@').next().unwrap_or_default();
        Self::at(format_args!("{}://{host}", url.scheme_str().unwrap_or_default()))
    }

    /// Nowhere else.
    pub const fn standard_output() -> Self {
        Self { to: Vec::new(), names: Vec::new() }
    }

    /// The same, with what it is called there by this key.
    #[must_use]
    pub fn named(mut self, key: &'static str, name: &dyn fmt::Display) -> Self {
        self.names.push((key, name.to_string()));
        self
    }

    /// The same, with a name if there is one.
    #[must_use]
    pub fn maybe_named(self, key: &'static str, name: Option<&str>) -> Self {
        match name {
            Some(name) => self.named(key, &name),
            None => self,
        }
    }
}

/// As an address of IPv6 is written before a port.
#[cfg(any(feature = "sink-nats", feature = "sink-postgres", feature = "sink-rabbitmq"))]
pub(super) fn with_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
