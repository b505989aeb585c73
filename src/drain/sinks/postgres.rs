//! PostgreSQL: each event a row of a table.
//!
//! **Effect: once.** The key of a row is where the event lies: lane id, epoch and offset. A batch
//! is one statement, so one transaction, that inserts the rows behind the lane's cursor, and moves
//! the cursor, a row of a second table (`TABLE_cursor`); where one of its keys is there already, a
//! second statement does the same and passes over it. So a
//! batch that came twice, in part or in whole, changes nothing, also where its rows have been
//! taken out of the table since. A replayed or redriven event is inserted if its row is not there.
//! A lane is known by its random id, not by its name: one that begins anew begins anew here.
//!
//! Both tables are made when the first row finds them missing.
//!
//! Where the server refuses a row (no JSON, a constraint, a trigger), the batch is halved until
//! the row stands alone: that event fails for good, all others are inserted.
//!
//! Statements are not prepared, so that a pooler may stand between. What a commit means is as
//! durable as the server makes it (`synchronous_commit`).

mod failure;
mod statement;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

pub use self::statement::{Payload, Table};

use self::failure::{of_connect, of_error};
use self::statement::{Rows, Statements};
use super::answer::{gathered, patience, within};
use super::destination::with_port;
use super::{Destination, Kind, OpenError};
use crate::drain::sink::{Class, Delivered, Event, Failure, Nature, Pass, Sink, Turn};
use crate::verify::SecretText;

/// A value of the server holds one GiB, and so do all payloads of a statement together.
const BATCH_BYTES_MAX: usize = 64 << 20;
/// Rows of one statement.
const BATCH_EVENTS_MAX: usize = 10_000;

/// Where a server is, unless it says otherwise.
const PORT: u16 = 5432;

/// Where events go, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server and the database; the password is not in it.
    pub server: Config,
    /// The user's password.
    pub password: Option<SecretText>,
    /// What the server's certificate is checked against.
    pub tls: Arc<rustls::ClientConfig>,
    /// The table of the rows.
    pub table: Table,
    /// What the column `payload` is.
    pub payload: Payload,
}

/// The sink.
#[derive(Debug)]
pub struct Postgres {
    settings: Settings,
    timeout: Duration,
    statements: Statements,
    link: Mutex<Option<Link>>,
}

/// A connection, which ends with it.
#[derive(Debug)]
struct Link {
    client: Client,
    task: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Some events of a batch that are inserted by one statement.
struct Part {
    /// Where they are in their batch.
    indices: Vec<usize>,
    rows: Result<Rows, Failure>,
}

impl Postgres {
    /// A sink that is not connected yet; a batch may take so long.
    pub fn new(settings: Settings, timeout: Duration) -> Self {
        let statements = Statements::new(&settings.table, settings.payload);
        Self { settings, timeout: patience(timeout), statements, link: Mutex::new(None) }
    }

    /// The connection out of its place, or a new one. It is put back by who is done with it: one
    /// whose batch was dropped or failed is gone, and its late answers with it.
    async fn link(&self, slot: &mut Option<Link>) -> Result<Link, Failure> {
        match slot.take() {
            Some(link) if !link.client.is_closed() => Ok(link),
            _ => self.connect().await,
        }
    }

    async fn connect(&self) -> Result<Link, Failure> {
        let mut config = self.settings.server.clone();
        if let Some(password) = &self.settings.password {
            config.password(password.expose_secret());
        }
        config.application_name("forebay").connect_timeout(self.timeout);
        let tls = MakeRustlsConnect::new(self.settings.tls.as_ref().clone());
        let (client, connection) = config.connect(tls).await.map_err(|e| of_connect(&e))?;
        // Its outcome is that of the statement it fails.
        let task = tokio::spawn(async move { _ = connection.await }).abort_handle();
        Ok(Link { client, task })
    }

    /// Inserts what can be; after a failure that may pass nothing more is, or the cursor would go
    /// past what is missing.
    async fn insert_all(&self, batch: &[Event], turn: Turn) -> Vec<Result<(), Failure>> {
        let mut verdicts = vec![Ok(()); batch.len()];
        let mut groups: BTreeMap<([u8; 16], bool), Vec<usize>> = BTreeMap::new();
        for (index, event) in batch.iter().enumerate() {
            let key = (event.record.get().lane_id(), event.pass == Pass::Live);
            groups.entry(key).or_default().push(index);
        }
        // Parts that are still to do, the earliest on top.
        let mut open = Vec::with_capacity(groups.len());
        for indices in groups.into_values().rev() {
            open.push(self.part(batch, indices).await);
        }
        turn.come().await;
        // One connection, one statement at a time: rows come in the order of their positions.
        let mut slot = self.link.lock().await;
        while let Some(Part { indices, rows }) = open.pop() {
            let inserted = match rows {
                Ok(rows) => self.insert(&mut slot, &rows).await,
                Err(failure) => Err(failure),
            };
            let Err(failure) = inserted else { continue };
            if failure.class != Class::Permanent {
                let rest = open.iter().flat_map(|part| &part.indices);
                for index in indices.iter().chain(rest) {
                    verdicts[*index] = Err(failure.clone());
                }
                break;
            }
            if let [alone] = indices[..] {
                verdicts[alone] = Err(failure);
                continue;
            }
            let (first, second) = indices.split_at(indices.len() / 2);
            for half in [second, first] {
                open.push(self.part(batch, half.to_vec()).await);
            }
        }
        verdicts
    }

    async fn part(&self, batch: &[Event], indices: Vec<usize>) -> Part {
        let events: Vec<&Event> = indices.iter().map(|index| &batch[*index]).collect();
        let rows = self.statements.rows(&events).await;
        Part { indices, rows }
    }

    async fn insert(&self, slot: &mut Option<Link>, rows: &Rows) -> Result<(), Failure> {
        within(self.timeout, async {
            let link = self.link(slot).await?;
            let inserted = self.statements.insert(&link.client, rows).await;
            let answered = |failure: &Failure| failure.class == Class::Permanent;
            if inserted.as_ref().err().is_none_or(answered) {
                *slot = Some(link);
            }
            inserted
        })
        .await
    }
}

impl Kind for Settings {
    fn word(&self) -> &'static str {
        "postgres"
    }

    fn destination(&self) -> Destination {
        let (hosts, ports) = (self.server.get_hosts(), self.server.get_ports());
        // One port is for all of them.
        let port = |index: usize| *ports.get(index).or(ports.first()).unwrap_or(&PORT);
        let place = |(index, host): (usize, &Host)| match host {
            Host::Tcp(name) => with_port(name, port(index)),
            Host::Unix(path) => path.display().to_string(),
        };
        Destination::among(hosts.iter().enumerate().map(place))
            .maybe_named("database", self.server.get_dbname())
            .named("table", &self.table)
    }

    fn open(&self, _name: &str, timeout: Duration) -> Result<Arc<dyn Sink>, OpenError> {
        Ok(Arc::new(Postgres::new(self.clone(), timeout)))
    }
}

impl Sink for Postgres {
    fn nature(&self) -> Nature {
        Nature { events_max: BATCH_EVENTS_MAX, bytes_max: BATCH_BYTES_MAX, ..Nature::SEQUENTIAL }
    }

    fn deliver<'a>(&'a self, batch: &'a [Event]) -> BoxFuture<'a, Delivered> {
        self.deliver_in_turn(batch, Turn::NOW)
    }

    fn deliver_in_turn<'a>(&'a self, batch: &'a [Event], turn: Turn) -> BoxFuture<'a, Delivered> {
        Box::pin(async move { gathered(self.insert_all(batch, turn).await) })
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let mut slot = self.link.lock().await;
            within(self.timeout, async {
                let link = self.link(&mut slot).await?;
                link.client.batch_execute("").await.map_err(|error| of_error(&error))?;
                *slot = Some(link);
                Ok(())
            })
            .await
        })
    }
}
