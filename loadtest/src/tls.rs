//! TLS on the side of a sender: rustls with ring, 1.2 and 1.3.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// Where Debian keeps the certificates that this machine trusts.
const TRUSTED: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Whom to trust, and whom to ask for.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// Trusts the certificates in a PEM file, by default those that this machine trusts, and
    /// expects the server to be `host`.
    pub(crate) fn new(authorities: Option<&Path>, host: &str) -> io::Result<Self> {
        let path = authorities.unwrap_or(Path::new(TRUSTED));
        let told = |error: &dyn std::fmt::Display| {
            io::Error::other(format!("{}: {error}; give a PEM file by --ca", path.display()))
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| told(&error))? {
            roots.add(certificate.map_err(|error| told(&error))?).map_err(|error| told(&error))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        Ok(Self { config: Arc::new(config), name })
    }

    /// The client's side of one connection.
    pub(crate) fn session(&self) -> io::Result<ClientConnection> {
        ClientConnection::new(Arc::clone(&self.config), self.name.clone()).map_err(io::Error::other)
    }
}
