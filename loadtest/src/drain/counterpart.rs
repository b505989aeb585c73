//! Where events go in a measurement: a real server, or a folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use tokio_postgres::NoTls;

use super::raw::{self, Row};
use crate::foreign::{Foreign, POSTGRES_USER, Running};
use crate::processor::Cores;

/// Which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum To {
    Nats,
    Redis,
    Postgres,
    File,
}

impl To {
    /// The sink's kind, as the configuration has it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::File => "file",
        }
    }

    const fn server(self) -> Option<Foreign> {
        match self {
            Self::Nats => Some(Foreign::Nats),
            Self::Redis => Some(Foreign::Redis),
            Self::Postgres => Some(Foreign::Postgres),
            Self::File => None,
        }
    }

    /// Whether this machine has it.
    pub(super) fn is_here(self) -> bool {
        self.server().is_none_or(|server| server.program().is_some())
    }
}

/// One of them, ready.
pub(super) struct Counterpart {
    to: To,
    running: Option<Running>,
    folder: PathBuf,
}

impl Counterpart {
    /// Starts it on the server's core.
    pub(super) fn start(to: To, cores: Cores, folder: &Path) -> io::Result<Self> {
        let running =
            to.server().map(|server| Running::start(server, cores, folder)).transpose()?;
        Ok(Self { to, running, folder: folder.to_owned() })
    }

    /// The sink's kind.
    pub(super) const fn name(&self) -> &'static str {
        self.to.name()
    }

    fn address(&self) -> String {
        self.running.as_ref().map(|running| running.address.to_string()).unwrap_or_default()
    }

    fn nats(&self) -> String {
        format!("nats://{}", self.address())
    }

    fn redis(&self) -> String {
        format!("redis://{}/", self.address())
    }

    fn postgres(&self) -> String {
        format!("postgres://{POSTGRES_USER}@{}/postgres", self.address())
    }

    /// The sink's own table of the configuration, for a stream, table or folder of this name.
    pub(super) fn section(&self, target: &str) -> String {
        match self.to {
            To::Nats => format!(
                "[sink.nats]\nservers = [\"{}\"]\ncreate_stream = true\nstream = \"{target}\"\n\
                 subject = \"{target}.{{lane}}.{{source}}.{{type}}\"\n",
                self.nats()
            ),
            To::Redis => {
                format!("[sink.redis]\nurl = \"{}\"\nstream = \"{target}\"\n", self.redis())
            }
            To::Postgres => {
                format!("[sink.postgres]\nurl = \"{}\"\ntable = \"{target}\"\n", self.postgres())
            }
            To::File => format!(
                "[sink.file]\nfolder = \"{}\"\nrotate_size = \"100GiB\"\n",
                self.folder.join(target).display()
            ),
        }
    }

    /// Pushes by its own client.
    pub(super) async fn push(&self, target: &str, rows: &[Row]) -> io::Result<()> {
        match self.to {
            To::Nats => raw::nats(&self.nats(), target, rows).await,
            To::Redis => raw::redis(&self.redis(), target, rows).await,
            To::Postgres => raw::postgres(&self.postgres(), target, rows).await,
            To::File => raw::file(&self.folder.join(target), rows),
        }
    }

    /// How many events it holds under a name, which it then forgets.
    pub(super) async fn take_away(&self, target: &str) -> io::Result<u64> {
        match self.to {
            To::Nats => {
                let client = async_nats::connect(self.nats()).await.map_err(io::Error::other)?;
                let context = async_nats::jetstream::new(client);
                let mut stream = context.get_stream(target).await.map_err(io::Error::other)?;
                let count = stream.info().await.map_err(io::Error::other)?.state.messages;
                context.delete_stream(target).await.map_err(io::Error::other)?;
                Ok(count)
            }
            To::Redis => {
                let mut connection = raw::redis_connection(&self.redis()).await?;
                let count = redis::cmd("XLEN").arg(target).query_async(&mut connection).await;
                let count = count.map_err(io::Error::other)?;
                let all = redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await;
                all.map_err(io::Error::other)?;
                Ok(count)
            }
            To::Postgres => {
                let (client, connection) = tokio_postgres::connect(&self.postgres(), NoTls)
                    .await
                    .map_err(io::Error::other)?;
                let connection = tokio::spawn(connection);
                let row = client.query_one(&format!("SELECT count(*) FROM {target}"), &[]).await;
                let count: i64 = row.map_err(io::Error::other)?.get(0);
                let drop_it = format!("DROP TABLE {target}; CHECKPOINT");
                client.batch_execute(&drop_it).await.map_err(io::Error::other)?;
                drop(client);
                _ = connection.await;
                Ok(count.unsigned_abs())
            }
            To::File => {
                let folder = self.folder.join(target);
                let text = fs::read(folder.join("main.ndjson"))?;
                fs::remove_dir_all(folder)?;
                Ok(text.split(|byte| *byte == b'\n').count().saturating_sub(1) as u64)
            }
        }
    }
}
