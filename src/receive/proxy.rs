//! Who is behind a proxy: the client's address, told by `X-Forwarded-For` or by the PROXY
//! protocol, and believed only of proxies that the operator named.
//!
//! Whoever connects from elsewhere is himself the client, whatever his headers say, and a PROXY
//! header of his is a request that cannot be parsed.

use std::io;
use std::net::{IpAddr, SocketAddr};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use ppp::{v1, v2};

use crate::limits::{PROXY_HEADER_BYTES_MAX, READ_BYTES};
use crate::runtime::Duplex;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The longest header of version 1, its line end included.
const V1_BYTES_MAX: usize = 107;
/// What stands in a header of version 2 before its addresses.
const V2_FIXED_BYTES: usize = 16;

/// How a proxy tells the client's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyKind {
    /// In a header of each request, as proxies of HTTP do.
    #[default]
    ForwardedFor,
    /// Before the first request of a connection, as proxies of TCP do.
    ProxyProtocol,
}

impl ProxyKind {
    /// As the configuration spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ForwardedFor => "x-forwarded-for",
            Self::ProxyProtocol => "proxy-protocol",
        }
    }
}

/// The proxies whose word is taken.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// Their addresses.
    pub trusted: Vec<IpNet>,
    /// How they tell.
    pub kind: ProxyKind,
}

impl Proxies {
    /// Whether this address is a proxy's.
    pub fn trusts(&self, address: IpAddr) -> bool {
        contains(&self.trusted, address)
    }

    /// Whether a connection from here begins with a PROXY header.
    pub fn introduces(&self, peer: IpAddr) -> bool {
        self.kind == ProxyKind::ProxyProtocol && self.trusts(peer)
    }

    /// Whether the headers of a request from here are a proxy's own word.
    pub fn vouches(&self, peer: IpAddr) -> bool {
        self.kind == ProxyKind::ForwardedFor && self.trusts(peer)
    }

    /// The client of a request: its peer, or the last address in `X-Forwarded-For` that is no
    /// proxy's. What stands before it is the client's own word. None if the list cannot be read.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        let mut client = peer;
        if !self.vouches(peer) {
            return Some(client);
        }
        let lines: Vec<&[u8]> =
            headers.get_all(FORWARDED_FOR).iter().map(http::HeaderValue::as_bytes).collect();
        for line in lines.into_iter().rev() {
            for entry in std::str::from_utf8(line).ok()?.rsplit(',') {
                client = address_of(entry.trim())?;
                if !self.trusts(client) {
                    return Some(client);
                }
            }
        }
        Some(client)
    }
}

/// Whether one of the networks holds this address; an IPv4 address in the form of IPv6 is one of
/// IPv4.
pub(super) fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// An address, with a port or without.
fn address_of(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok();
    address.or_else(|| text.parse::<SocketAddr>().ok().map(|with_port| with_port.ip()))
}

/// What stood before the first request of a connection.
#[derive(Debug)]
pub(super) struct Introduced {
    /// The client; none if the proxy speaks for itself, as in its own health checks.
    pub(super) client: Option<SocketAddr>,
    /// What was read behind the header.
    pub(super) early: Bytes,
}

/// Reads the PROXY header, of version 1 or 2, that a connection begins with.
pub(super) async fn introduce<S: Duplex>(socket: &mut S) -> io::Result<Introduced> {
    let mut read = BytesMut::with_capacity(READ_BYTES);
    loop {
        if let Some((client, header_bytes)) = header(&read)? {
            return Ok(Introduced { client, early: read.split_off(header_bytes).freeze() });
        }
        let count;
        (count, read) = socket.read(read).await;
        if count? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The client and the length of a whole header; none while more of it must come.
fn header(bytes: &[u8]) -> io::Result<Option<(Option<SocketAddr>, usize)>> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let begins = |prefix: &[u8]| bytes.iter().zip(prefix).all(|(byte, known)| byte == known);
    if begins(v2::PROTOCOL_PREFIX) {
        let Some(length) = bytes.get(V2_FIXED_BYTES - 2..V2_FIXED_BYTES) else { return Ok(None) };
        let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        let whole = V2_FIXED_BYTES + length;
        if whole > PROXY_HEADER_BYTES_MAX {
            return Err(invalid());
        }
        let Some(header) = bytes.get(..whole) else { return Ok(None) };
        let header = v2::Header::try_from(header).map_err(|_| invalid())?;
        return client_of_v2(&header).map(|client| Some((client, whole))).ok_or_else(invalid);
    }
    if !begins(v1::PROTOCOL_PREFIX.as_bytes()) {
        return Err(invalid());
    }
    let end = bytes.windows(2).take(V1_BYTES_MAX - 1).position(|pair| pair == b"\r\n");
    let Some(end) = end else {
        return if bytes.len() < V1_BYTES_MAX { Ok(None) } else { Err(invalid()) };
    };
    let line = bytes.get(..end + 2).unwrap_or_default();
    let client = match v1::Header::try_from(line).map_err(|_| invalid())?.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(of) => Some((of.source_address, of.source_port).into()),
        v1::Addresses::Tcp6(of) => Some((of.source_address, of.source_port).into()),
    };
    Ok(Some((client, line.len())))
}

/// The client, or none if the proxy speaks for itself; nothing for what is no connection of TCP.
#[expect(clippy::option_option, reason = "no client and no answer are two things")]
fn client_of_v2(header: &v2::Header<'_>) -> Option<Option<SocketAddr>> {
    if header.command == v2::Command::Local {
        return Some(None);
    }
    match (header.protocol, header.addresses) {
        (v2::Protocol::Datagram, _) => None,
        (_, v2::Addresses::IPv4(of)) => Some(Some((of.source_address, of.source_port).into())),
        (_, v2::Addresses::IPv6(of)) => Some(Some((of.source_address, of.source_port).into())),
        (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proxies(trusted: &[&str]) -> Proxies {
        let trusted = trusted.iter().map(|net| net.parse().expect("a network")).collect();
        Proxies { trusted, kind: ProxyKind::ForwardedFor }
    }

    fn client(proxies: &Proxies, peer: &str, lines: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, line.parse().expect("a value"));
        }
        let client = proxies.client(peer.parse().expect("an address"), &headers);
        client.map(|client| client.to_string())
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_proxy_s() {
        let known = proxies(&["10.0.0.0/8", "fd00::/8"]);
        for (peer, lines, expected) in [
            ("10.0.0.1", vec!["203.0.113.9"], Some("203.0.113.9")),
            ("10.0.0.1", vec!["1.1.1.1, 203.0.113.9"], Some("203.0.113.9")),
            ("10.0.0.1", vec!["1.1.1.1,203.0.113.9 , 10.2.3.4"], Some("203.0.113.9")),
            ("10.0.0.1", vec!["1.1.1.1", "203.0.113.9"], Some("203.0.113.9")),
            ("10.0.0.1", vec!["203.0.113.9:4711"], Some("203.0.113.9")),
            ("fd00::1", vec!["[2001:db8::1]:4711"], Some("2001:db8::1")),
            ("fd00::1", vec!["[2001:db8::1]"], Some("2001:db8::1")),
            ("::ffff:10.0.0.1", vec!["203.0.113.9"], Some("203.0.113.9")),
            ("10.0.0.1", vec![], Some("10.0.0.1")),
            ("10.0.0.1", vec!["10.9.9.9"], Some("10.9.9.9")),
            ("10.0.0.1", vec!["unknown"], None),
            ("10.0.0.1", vec!["203.0.113.9, "], None),
            ("10.0.0.1", vec![""], None),
            // A stranger's header is his own word.
            ("198.51.100.7", vec!["203.0.113.9"], Some("198.51.100.7")),
            ("198.51.100.7", vec!["junk"], Some("198.51.100.7")),
        ] {
            let found = client(&known, peer, &lines);
            assert_eq!(found.as_deref(), expected, "{peer} {lines:?}");
        }
        let of_tcp = Proxies { kind: ProxyKind::ProxyProtocol, ..known };
        assert_eq!(client(&of_tcp, "10.0.0.1", &["1.1.1.1"]).as_deref(), Some("10.0.0.1"));
    }

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let mut bytes = v2::PROTOCOL_PREFIX.to_vec();
        let length = u8::try_from(addresses.len()).expect("short");
        bytes.extend([0x20 | command, family, 0, length]);
        bytes.extend(addresses);
        bytes
    }

    const IPV4: [u8; 12] = [203, 0, 113, 9, 127, 0, 0, 1, 0x12, 0x67, 0, 80];

    #[test]
    fn both_versions_tell_the_client() {
        let told = |bytes: &[u8]| {
            let (client, length) = header(bytes).expect("valid").expect("whole");
            (client.map(|client| client.to_string()), length)
        };
        let line = b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 80\r\nPOST / HTTP/1.1\r\n";
        assert_eq!(told(line), (Some("203.0.113.9:4711".to_owned()), 42));
        let line = b"PROXY TCP6 2001:db8::1 ::1 4711 80\r\n";
        assert_eq!(told(line).0.as_deref(), Some("[2001:db8::1]:4711"));
        assert_eq!(told(b"PROXY UNKNOWN\r\n"), (None, 15));
        let whole = v2(1, 0x11, &IPV4);
        assert_eq!(told(&whole), (Some("203.0.113.9:4711".to_owned()), 28));
        assert_eq!(told(&v2(0, 0, &[])), (None, 16), "a health check of the proxy");
        let with_values = v2(1, 0x11, &[&IPV4[..], &[4, 0, 1, 0]].concat());
        assert_eq!(told(&with_values).1, 32);
        for cut in 0..whole.len() {
            assert_eq!(header(&whole[..cut]).expect("may go on"), None, "{cut}");
        }
        assert_eq!(header(b"PROXY TCP4 203.").expect("may go on"), None);
    }

    #[test]
    fn what_is_no_header_is_no_connection() {
        let long = [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat();
        let huge = [v2::PROTOCOL_PREFIX, &[0x21, 0x11, 0xff, 0xff][..]].concat();
        for bytes in [
            &b"POST / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 203.0.113.9 127.0.0.1 4711\r\n",
            b"PROXY TCP4 999.0.113.9 127.0.0.1 4711 80\r\n",
            b"PROXY TCP9 203.0.113.9 127.0.0.1 4711 80\r\n",
            b"proxy TCP4 203.0.113.9 127.0.0.1 4711 80\r\n",
            &long,
            &huge,
            &v2(1, 0x12, &IPV4),
            &v2(1, 0x11, &IPV4[..8]),
            &v2(7, 0x11, &IPV4),
        ] {
            assert!(header(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(prefix in 0_usize..3, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let prefixes: [&[u8]; 3] = [b"", b"PROXY TCP4 ", v2::PROTOCOL_PREFIX];
            let bytes = [prefixes[prefix], &bytes].concat();
            if let Ok(Some((_, length))) = header(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
