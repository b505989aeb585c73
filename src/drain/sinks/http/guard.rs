//! Which addresses a request may be sent to: those of the public internet, unless all are allowed.
//!
//! The check stands behind the resolver and before the connection, on the very addresses that are
//! connected to. So a name that changes its mind between a check and its use (DNS rebinding) gains
//! nothing. Literal addresses never reach a resolver; [`literal`] is for those.
//!
//! Which networks are not public: the registries of special-purpose addresses (RFC 6890, IANA).
//! Metadata services of clouds live inside them: 169.254.169.254, 100.100.100.200, `fd00:ec2::254`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};
use std::vec;

use futures_util::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use ipnet::{Ipv4Net, Ipv6Net};
use tower_service::Service;

const fn v4(a: u8, b: u8, c: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), prefix)
}

/// What is not public of IPv4.
const V4: [Ipv4Net; 15] = [
    v4(0, 0, 0, 8),
    v4(10, 0, 0, 8),
    v4(100, 64, 0, 10),
    v4(127, 0, 0, 8),
    v4(169, 254, 0, 16),
    v4(172, 16, 0, 12),
    v4(192, 0, 0, 24),
    v4(192, 0, 2, 24),
    v4(192, 88, 99, 24),
    v4(192, 168, 0, 16),
    v4(198, 18, 0, 15),
    v4(198, 51, 100, 24),
    v4(203, 0, 113, 24),
    v4(224, 0, 0, 4),
    v4(240, 0, 0, 4),
];

const fn v6(head: [u16; 3], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(head[0], head[1], head[2], 0, 0, 0, 0, 0), prefix)
}

/// All that is public of IPv6 lies in here,
const V6_GLOBAL: Ipv6Net = v6([0x2000, 0, 0], 3);
/// except this: IETF protocols with Teredo, documentation, 6to4, documentation.
const V6: [Ipv6Net; 4] = [
    v6([0x2001, 0, 0], 23),
    v6([0x2001, 0x0db8, 0], 32),
    v6([0x2002, 0, 0], 16),
    v6([0x3fff, 0, 0], 20),
];
/// Stands for an address of IPv4, which its last 32 bits are (RFC 6052).
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0], 96);

/// Whether anybody on the internet would reach the same machine by this address.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => !V4.iter().any(|net| net.contains(&address)),
        IpAddr::V6(address) if NAT64.contains(&address) => {
            let [.., a, b, c, d] = address.octets();
            is_public(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
        }
        IpAddr::V6(address) => {
            V6_GLOBAL.contains(&address) && !V6.iter().any(|net| net.contains(&address))
        }
    }
}

/// The address that a host of a URL is, if it is one.
pub fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

/// Why a name was not resolved.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    #[error("the name has only private addresses, which `allow_private` would allow")]
    Private,
    #[error("the name cannot be resolved: {0}")]
    Lookup(#[from] io::Error),
}

/// The system's resolver, without what may not be reached.
#[derive(Clone, Debug)]
pub(super) struct Guarded {
    resolver: GaiResolver,
    allow_private: bool,
}

impl Guarded {
    pub(super) fn new(allow_private: bool) -> Self {
        Self { resolver: GaiResolver::new(), allow_private }
    }
}

impl Service<Name> for Guarded {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = ResolveError;
    type Future = BoxFuture<'static, Result<Self::Response, ResolveError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ResolveError>> {
        self.resolver.poll_ready(context).map_err(ResolveError::from)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let lookup = self.resolver.call(name);
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = lookup.await?;
            let allowed: Vec<SocketAddr> =
                found.filter(|address| allow_private || is_public(address.ip())).collect();
            if allowed.is_empty() { Err(ResolveError::Private) } else { Ok(allowed.into_iter()) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses_are_told_from_all_others() {
        let public = [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.1",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ];
        let others = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.8",
            "198.18.0.1",
            "198.19.255.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2002:7f00:1::",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "3fff::1",
            "5f00::1",
        ];
        for text in public {
            assert!(is_public(text.parse().expect("an address")), "{text} is public");
        }
        for text in others {
            assert!(!is_public(text.parse().expect("an address")), "{text} is not public");
        }
    }

    #[test]
    fn a_host_is_an_address_with_and_without_brackets() {
        assert_eq!(literal("[::1]"), Some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
        assert_eq!(literal("127.0.0.1"), Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        // Other spellings of addresses are names: the resolver reads them, and is guarded.
        assert_eq!(literal("0x7f000001"), None);
        assert_eq!(literal("127.1"), None);
        assert_eq!(literal("localhost"), None);
    }
}
