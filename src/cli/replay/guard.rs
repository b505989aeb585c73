//! Where a replay to a URL must not go: to where this deployment brings its events, to itself, and
//! to an address that is not public unless that is meant.
//!
//! Names are compared as they are written. That two names stand for one address says nothing:
//! much of what is served shares the address of a proxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use http::Uri;

use crate::config::{SinkHost, plain_host};
use crate::drain::sinks::http::guard::{is_public, literal};

/// A target and the addresses that its host has now.
#[derive(Debug)]
pub(super) struct Target<'t> {
    pub(super) url: &'t Uri,
    pub(super) addresses: &'t [IpAddr],
}

impl Target<'_> {
    pub(super) fn host(&self) -> String {
        plain_host(self.url.host().unwrap_or_default())
    }

    pub(super) fn port(&self) -> u16 {
        let usual = if self.url.scheme_str() == Some("https") { 443 } else { 80 };
        self.url.port_u16().unwrap_or(usual)
    }

    /// Why nothing may be replayed to it.
    pub(super) fn refused(
        &self,
        sinks: &[SinkHost],
        listeners: &[SocketAddr],
        allow_private: bool,
    ) -> Option<String> {
        let (host, port) = (self.host(), self.port());
        if listeners.iter().any(|listener| self.is(*listener)) {
            return Some(format!("{host}:{port} is this forebay itself"));
        }
        if let Some(SinkHost { sink, .. }) = sinks.iter().find(|sink| self.is_of(sink)) {
            return Some(format!(
                "{host} is a host of the sink {sink}: a replay to a URL never goes where events \
                 go live; use --sink {sink} to bring them there once more"
            ));
        }
        let private = !allow_private && !self.addresses.iter().copied().any(is_public);
        private.then(|| {
            format!("{host} has no public address; --allow-private lets a replay go there")
        })
    }

    /// Whether this is where a listener is.
    fn is(&self, listener: SocketAddr) -> bool {
        let here = |address: &IpAddr| {
            listener.ip() == *address
                // Only an address of this machine can be bound.
                || listener.ip().is_unspecified() && UdpSocket::bind((*address, 0)).is_ok()
        };
        listener.port() == self.port() && self.addresses.iter().any(here)
    }

    /// Whether this is a host of a sink. Of loopback each port is a host.
    fn is_of(&self, sink: &SinkHost) -> bool {
        let addresses = match (&*sink.host, literal(&sink.host)) {
            ("localhost", _) => {
                vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
            }
            (_, address) => address.into_iter().collect(),
        };
        let loopback = addresses.iter().any(IpAddr::is_loopback);
        let port = sink.port.is_none_or(|port| port == self.port());
        let same = self.addresses.iter().any(|address| addresses.contains(address));
        (sink.host == self.host() || same) && (port || !loopback)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str, addresses: &[&str], allow_private: bool) -> Option<String> {
        let url: Uri = url.parse().expect("a URL");
        let addresses: Vec<IpAddr> =
            addresses.iter().map(|address| address.parse().expect("an address")).collect();
        let sink =
            |host: &str, port| SinkHost { sink: "out".to_owned(), host: host.to_owned(), port };
        let sinks = [
            sink("hooks.example", None),
            sink("8.8.8.8", Some(443)),
            sink("localhost", Some(9000)),
        ];
        let listeners = ["0.0.0.0:8080".parse(), "127.0.0.1:9464".parse()];
        let listeners = listeners.map(|listener| listener.expect("an address"));
        Target { url: &url, addresses: &addresses }.refused(&sinks, &listeners, allow_private)
    }

    #[test]
    fn a_receiver_of_its_own_is_let_through() {
        assert_eq!(refused("https://staging.example/x", &["1.1.1.1"], false), None);
        assert_eq!(refused("http://127.0.0.1:8081/x", &["127.0.0.1"], true), None);
        assert_eq!(refused("http://127.0.0.2:9464/x", &["127.0.0.2"], true), None);
        // Another forebay behind the same kind of port.
        assert_eq!(refused("http://1.1.1.1:8080/x", &["1.1.1.1"], false), None);
    }

    #[test]
    fn a_host_of_a_sink_is_refused_however_it_is_written() {
        for (url, address) in [
            ("https://hooks.example/x", "1.1.1.1"),
            ("http://HOOKS.example.:8443/x", "1.1.1.1"),
            ("https://8.8.8.8/x", "8.8.8.8"),
            ("https://dns.example:1/x", "8.8.8.8"),
            ("http://127.0.0.1:9000/x", "127.0.0.1"),
            ("http://[::1]:9000/x", "::1"),
        ] {
            let why = refused(url, &[address], true).unwrap_or_default();
            assert!(why.contains("sink out"), "{url}: {why}");
        }
    }

    #[test]
    fn forebay_itself_and_what_is_not_public_are_refused() {
        for url in ["http://127.0.0.1:8080/x", "http://127.0.0.1:9464/x"] {
            let why = refused(url, &["127.0.0.1"], true).unwrap_or_default();
            assert!(why.contains("this forebay itself"), "{url}: {why}");
        }
        for address in ["127.0.0.1", "169.254.169.254", "10.0.0.1", "fd00:ec2::254"] {
            let why = refused("http://staging.example/", &[address], false).unwrap_or_default();
            assert!(why.contains("--allow-private"), "{address}: {why}");
        }
    }
}
