//! `[sink.postgres]`: the server, who forebay is there, the table of the rows.

use std::path::Path;
use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::Config;

use super::super::secret;
use super::{Section, Settings};
use crate::drain::sinks::postgres::{self, Payload, Table};

pub(super) fn read(section: &Section<'_>) -> Option<Settings> {
    let server = server(section);
    let password = secret::read_credential(section, "sink.postgres.password", "password");
    let table = table(section);
    let payload = section.choice("payload");
    let tls = tls(section);
    Some(Settings::Postgres(postgres::Settings {
        server: server?,
        password: password?,
        tls: Arc::new(tls?),
        table: table?,
        payload: if payload? == "jsonb" { Payload::Json } else { Payload::Bytes },
    }))
}

fn server(section: &Section<'_>) -> Option<Config> {
    const CURE: &str =
        "write url = \"postgres://user@host:5432/database\", with ?sslmode=require for TLS";
    let url = section.required("url", CURE)?;
    // The client's own words may quote the URL.
    let Ok(server) = url.parse::<Config>() else {
        section.refuse("url", "is no URL of a PostgreSQL server", CURE);
        return None;
    };
    if server.get_password().is_some() {
        let cure = "write `password` beside it: a URL is shown, it is not";
        section.refuse("url", "holds a password", cure);
        return None;
    }
    if server.get_user().is_none() || server.get_hosts().is_empty() {
        section.refuse("url", "names no user or no host", CURE);
        return None;
    }
    Some(server)
}

fn table(section: &Section<'_>) -> Option<Table> {
    let table = Table::parse(section.text_or_default("table")?);
    if table.is_none() {
        let cure = "write \"table\" or \"schema.table\", each of up to 56 letters, digits and `_`";
        section.refuse("table", "is no name of a table", cure);
    }
    table
}

/// The authorities of the file, or else those that the system trusts.
fn tls(section: &Section<'_>) -> Option<ClientConfig> {
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
