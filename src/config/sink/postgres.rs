//! `[sink.postgres]`: the server, who forebay is there, the table of the rows.

use std::sync::Arc;

use tokio_postgres::Config;

use super::super::secret;
use super::{Kind, Section, tls};
use crate::drain::sinks::postgres::{self, Payload, Table};

pub(super) fn read(section: &Section<'_>) -> Option<Arc<dyn Kind>> {
    let server = server(section);
    let password = secret::read_credential(section, "sink.postgres.password", "password");
    let table = table(section);
    let payload = section.choice("payload");
    let tls = tls::client(section);
    Some(Arc::new(postgres::Settings {
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
