//! `[outgoing]`: how forebay reaches others, for what it asks by itself.

use std::fs;

use http::Uri;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::section::Section;

/// How requests are made that forebay makes itself.
#[derive(Clone, Debug, Default)]
pub struct OutgoingConfig {
    /// The proxy that is asked to CONNECT; none: directly.
    pub proxy: Option<Uri>,
    /// Certificates that are trusted beside those of the machine.
    pub ca: Vec<CertificateDer<'static>>,
}

pub(super) fn read(section: &Section<'_>) -> Option<OutgoingConfig> {
    let proxy = if section.has("proxy") { Some(proxy(section)?) } else { None };
    let ca = if section.has("ca_file") { ca(section)? } else { Vec::new() };
    Some(OutgoingConfig { proxy, ca })
}

fn proxy(section: &Section<'_>) -> Option<Uri> {
    let text = section.text("proxy")?;
    let uri = text.parse::<Uri>().ok().filter(|uri| {
        let plain = uri.authority().is_some_and(|host| !host.as_str().contains('@'));
        uri.scheme_str() == Some("http") && plain && uri.path() == "/" && uri.query().is_none()
    });
    if uri.is_none() {
        let cure = "write it as \"http://10.0.0.1:3128\", without a user and without a path";
        section.refuse("proxy", "is no proxy", cure);
    }
    uri
}

fn ca(section: &Section<'_>) -> Option<Vec<CertificateDer<'static>>> {
    let path = section.reading.path(section.text("ca_file")?, &section.place("ca_file"));
    let pem = match fs::read(&path) {
        Ok(pem) => pem,
        Err(error) => {
            let what = format!("cannot be read: {}: {error}", path.display());
            section.refuse("ca_file", &what, "name a file that this user may read");
            return None;
        }
    };
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let mut roots = rustls::RootCertStore::empty();
    let good = certificates
        .ok()
        .filter(|list| !list.is_empty() && list.iter().all(|each| roots.add(each.clone()).is_ok()));
    if good.is_none() {
        let cure = "write the certificates of the authorities as PEM, one after the other";
        section.refuse("ca_file", "holds no certificates, or something else", cure);
    }
    good
}
