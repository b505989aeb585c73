//! Certificates of authorities that the tests make, and clients that trust one of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Of loopback, as [`of_host`].
pub(super) fn of_loopback(folder: &Path, name: &str) -> [PathBuf; 3] {
    of_host(folder, name, "127.0.0.1")
}

/// An authority of its own, a certificate for this host by it, and its key, as files of PEM.
pub(super) fn of_host(folder: &Path, name: &str, host: &str) -> [PathBuf; 3] {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    // By its name a client tells whether it knows it, before it looks at a signature.
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(params, key);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    [("ca", authority.pem()), ("certificate", leaf.pem()), ("key", key.serialize_pem())].map(
        |(kind, pem)| {
            let path = folder.join(format!("{name}-{kind}.pem"));
            fs::write(&path, pem).unwrap();
            path
        },
    )
}

/// A client that trusts this authority alone.
pub(super) fn trusting(authority: &Path) -> Arc<rustls::ClientConfig> {
    // The sinks choose it too, but they come later.
    _ = rustls::crypto::ring::default_provider().install_default();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots);
    Arc::new(config.with_no_client_auth())
}
