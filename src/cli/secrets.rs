//! `forebay secrets`: which secrets a running server holds, when each counts and when it was last
//! used. So one sees when an old one may go.
//!
//! The server is asked, since it alone knows what it loaded and used. Values are never told; the
//! server itself does not hand them out. Exit codes: 0 told, 75 no server answered, 78 wrong
//! configuration.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::{EXIT_TEMPORARY, terminal};
use crate::admin::SecretTold;
use crate::config::{self, ConfigError};

/// How long the server may take for each step of its answer.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// Far more than the answer for as many secrets as a configuration holds.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What `secrets` takes.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SecretsArgs {
    /// The configuration; else `FOREBAY_CONFIG`, else `/etc/forebay/forebay.toml`
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// No answer, or none that can be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "no forebay tells its secrets at {address}, the `listen` of [admin]; is it running with this \
     configuration? `forebay check` shows what the file holds"
)]
struct NoAnswer {
    address: SocketAddr,
    source: io::Error,
}

/// Runs the verb.
pub(super) fn run(args: &SecretsArgs) -> ExitCode {
    let path = config::path(args.config.as_deref());
    let admin = match config::load_admin(&path, config::environment()) {
        Ok(admin) => admin,
        Err(error) => {
            terminal::report(&error);
            return ExitCode::from(ConfigError::EXIT_CODE);
        }
    };
    let address = admin.listen;
    match ask(address) {
        Ok(secrets) => {
            let text = if args.json { json(&secrets) } else { table(&secrets) };
            terminal::print(text.as_bytes(), 0)
        }
        Err(source) => {
            terminal::complain(&NoAnswer { address, source });
            ExitCode::from(EXIT_TEMPORARY)
        }
    }
}

/// Asks the admin listener.
fn ask(address: SocketAddr) -> io::Result<Vec<SecretTold>> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WAIT)?;
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    stream.set_write_timeout(Some(ANSWER_WAIT))?;
    // Of HTTP/1.0 the answer is never in chunks and ends with the connection.
    stream.write_all(b"GET /secrets HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    let unexpected = || io::Error::other("the answer is not one of forebay");
    let answer = std::str::from_utf8(&answer).map_err(|_| unexpected())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(unexpected)?;
    if head.split(' ').nth(1) != Some("200") {
        return Err(unexpected());
    }
    serde_json::from_str(body).map_err(io::Error::other)
}

fn json(secrets: &[SecretTold]) -> String {
    // Strings and numbers: nothing in it can fail.
    serde_json::to_string_pretty(secrets).unwrap_or_default() + "\n"
}

fn table(secrets: &[SecretTold]) -> String {
    let head =
        ["source", "secret", "kind", "state", "not before", "not after", "uses", "last used"];
    let mut rows = vec![head.map(str::to_owned)];
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    rows.extend(secrets.iter().map(|secret| {
        [
            secret.source.clone(),
            secret.name.clone(),
            secret.kind.clone(),
            secret.state.clone(),
            or_dash(&secret.not_before),
            or_dash(&secret.not_after),
            secret.uses.to_string(),
            or_dash(&secret.last_used),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        // Writing to a String cannot fail.
        _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_columns() {
        let secret = SecretTold {
            source: "rooms".to_owned(),
            name: "2026".to_owned(),
            kind: "mac".to_owned(),
            not_before: None,
            not_after: Some("2027-01-01T00:00:00.000Z".to_owned()),
            state: "live".to_owned(),
            uses: 12,
            last_used: None,
        };
        assert_eq!(
            table(&[secret]),
            "source  secret  kind  state  not before  not after                 uses  last used\n\
             rooms   2026    mac   live   -           2027-01-01T00:00:00.000Z  12    -\n"
        );
    }
}
