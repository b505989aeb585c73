//! Who may reach a source at all, before anything of a request is believed.
//!
//! Layers around the signature, never in its place: addresses, and a client certificate that a
//! proxy in front has verified.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use subtle::ConstantTimeEq as _;

use super::admitted::Received;
use super::proxy::{Proxies, contains};
use crate::reject::Reject;

/// The outer layers of one source.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    /// The networks that its sender is in; none: any.
    pub allow_from: Vec<IpNet>,
    /// The client certificate that is asked for.
    pub certificate: Option<Certificate>,
    /// The proxies that may tell of either.
    pub proxies: Arc<Proxies>,
}

/// A client certificate, as a proxy that ended TLS tells of it.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The header that the proxy sets, and takes out of what the client sent.
    pub header: HeaderName,
    /// The values that are taken, such as a subject or a fingerprint.
    pub values: Vec<String>,
}

impl Gate {
    /// Judges where a request comes from.
    pub fn check(&self, received: &Received<'_>) -> Result<(), Reject> {
        if self.allow_from.is_empty() && self.certificate.is_none() {
            return Ok(());
        }
        let (peer, headers) = (received.connection.address(), &received.head.headers);
        if !self.allow_from.is_empty() {
            let client = self.proxies.client(peer, headers);
            if !client.is_some_and(|client| contains(&self.allow_from, client)) {
                return Err(Reject::AddressRefused);
            }
        }
        match &self.certificate {
            Some(certificate) if !(self.proxies.vouches(peer) && certificate.is_in(headers)) => {
                Err(Reject::CertificateRefused)
            }
            _ => Ok(()),
        }
    }
}

impl Certificate {
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(&self.header).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let taken = |known: &String| bool::from(known.as_bytes().ct_eq(value.as_bytes()));
        self.values.iter().any(taken)
    }
}
