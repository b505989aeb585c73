//! Whose certificates hold, for sinks that speak TLS by our own settings of rustls.

use std::path::Path;

use hyper_rustls::ConfigBuilderExt as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::Section;

/// The authorities of the file `ca_file`, or else those that the system trusts.
pub(super) fn client(section: &Section<'_>) -> Option<ClientConfig> {
    let Some(text) = section.text("ca_file") else {
        return match ClientConfig::builder().with_native_roots() {
            Ok(config) => Some(config.with_no_client_auth()),
            // A machine without any: no certificate holds, and a server without TLS needs none.
            Err(_) => Some(trusting(RootCertStore::empty())),
        };
    };
    let path = section.reading.path(text, &section.place("ca_file"));
    match authorities(&path) {
        Ok(roots) => Some(trusting(roots)),
        Err(why) => {
            let what = format!("names `{}`, which holds no authority: {why}", path.display());
            section.refuse("ca_file", &what, "make it a PEM file that forebay's user may read");
            None
        }
    }
}

fn trusting(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
}

fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(roots) }
}
