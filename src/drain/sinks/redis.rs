//! Redis Streams: each event an entry of a stream.
//!
//! **Effect: once.** A batch is handed over as a whole, which the server does or does not: it
//! adds the events behind the position that it remembers for their lane, and then remembers the
//! last of them, in a hash beside the stream (`{stream}:cursor`, one field a lane). That is a
//! transaction of plain commands (see `append`) or, where something else was at the stream
//! meanwhile or the server refuses, a script, which says what is wrong with which event. A batch that
//! came twice, in part or in whole, by an old connection or a new one, adds nothing. An event that
//! is replayed or redriven is added whenever it comes: at least once, so that what an operator
//! asks for arrives.
//!
//! Ids are the server's own (`*`). Ids made from positions would be known as well, yet one entry
//! with a time for an id (a redrive, another writer) would be above all of them, and every event
//! after it would pass for one that is there. For the same reason a lane is known by its random
//! id, not by its name: a lane that begins anew begins anew here.
//!
//! What a reply means is as durable as the server makes it: stream and cursor are written together
//! and survive or fall together. With `appendonly yes` and `appendfsync always` that holds through a
//! kill and a loss of power; with `everysec`, the server's default, even a kill of its process may
//! take what it has answered for, since it puts off its writes while an older one is synced.
//!
//! A kill of the server may cut a transaction in its file within a command. With
//! `aof-load-truncated yes`, its default, Redis takes off that command alone and leaves the `MULTI` and
//! what follows it, to apply it with the next one at the start after (mended in Valkey by
//! <https://github.com/valkey-io/valkey/pull/4342>): those events are there twice. With `no` it does not
//! start, and `redis-check-aof --fix` takes off the transaction as a whole.
//!
//! Fields of an entry: `payload`, `content_type`, `key` (the same for all deliveries of one event),
//! `lane`, `position`, `received_ns`, and where there is one `source`, `type`, `event_id`, `tenant`,
//! `environment`, `pass`.

mod append;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use forebay_log::{Key, Tag};
use futures_util::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, Pipeline,
    RedisError, ServerErrorKind, TlsCertificates,
};
use tokio::sync::Mutex;

use self::append::{To, append, transaction};
use super::answer::{gathered, patience, unconnected, within, words};
use super::template::Template;
use super::trust::Trust;
use super::{Destination, Kind, OpenError};
use crate::drain::sink::{Class, Delivered, Event, Failure, Nature, Pass, Sink, Turn};
use crate::verify::SecretText;

/// Adds what is not there. It answers how many events are dealt with, and the error that stopped
/// it at the next one.
const SCRIPT: &str = include_str!("redis.lua");
/// The longest value that Redis takes unless it says otherwise.
const VALUE_BYTES_MAX: usize = 512 << 20;
/// What one script may hold: Redis serves nobody else while it runs.
const BATCH_EVENTS_MAX: usize = 1000;
const BATCH_BYTES_MAX: usize = 16 << 20;

/// Where events go, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server; user and password are not in it.
    pub server: ConnectionInfo,
    /// The user; none: the default one.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<SecretText>,
    /// The authority that the server's certificate comes from, as PEM; none: those that the system
    /// trusts.
    pub ca_pem: Option<Vec<u8>>,
    /// The stream of an event.
    pub stream: Template,
    /// About how many entries the stream keeps.
    pub entries_max: Option<u64>,
}

/// The sink.
#[derive(Debug)]
pub struct Redis {
    settings: Settings,
    timeout: Duration,
    link: Mutex<Option<Link>>,
}

/// A connection.
#[derive(Clone)]
struct Link {
    connection: MultiplexedConnection,
    value_bytes_max: usize,
    trust: Trust,
    /// What is watched belongs to the connection: one batch at a time.
    alone: Arc<Mutex<()>>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("value_bytes_max", &self.value_bytes_max)
            .finish_non_exhaustive()
    }
}

/// Events that go together: those of one stream and lane that are, or are not, known by their
/// position.
struct Group {
    to: To,
    live: bool,
    /// Where they are in their batch.
    indices: Vec<usize>,
    /// The transaction of all of them, if their positions count.
    whole: Option<Pipeline>,
}

impl Redis {
    /// A sink that is not connected yet; a batch may take so long.
    pub fn new(settings: Settings, timeout: Duration) -> Self {
        Self { settings, timeout: patience(timeout), link: Mutex::new(None) }
    }

    async fn link(&self) -> Result<Link, Failure> {
        let mut slot = self.link.lock().await;
        if let Some(link) = slot.as_ref().filter(|link| link.trust.holds()) {
            return Ok(link.clone());
        }
        *slot = None;
        let link = within(self.timeout, self.connect()).await?;
        Ok(slot.insert(link).clone())
    }

    async fn connect(&self) -> Result<Link, Failure> {
        let Settings { server, user, password, ca_pem, .. } = &self.settings;
        let mut info = server.redis_settings().clone();
        if let Some(user) = user {
            info = info.set_username(user);
        }
        if let Some(password) = password {
            info = info.set_password(password.expose_secret());
        }
        let server = server.clone().set_redis_settings(info);
        let certificates = TlsCertificates { client_tls: None, root_cert: ca_pem.clone() };
        let client = if matches!(server.addr(), ConnectionAddr::TcpTls { .. }) {
            Client::build_with_tls(server, certificates)
        } else {
            Client::open(server)
        };
        let client = client.map_err(|error| of_connect(&error))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout));
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| of_connect(&error))?;
        let value_bytes_max = value_bytes_max(&mut connection).await?;
        Ok(Link { connection, value_bytes_max, trust: Trust::default(), alone: Arc::default() })
    }

    /// Makes the transactions, waits for its turn, and adds.
    async fn add_all(&self, batch: &[Event], turn: Turn) -> Result<Delivered, Failure> {
        let groups = self.groups(batch).await;
        turn.come().await;
        let mut link = self.link().await?;
        // After any failure a new connection is part of the cure: the name may lead elsewhere by
        // now, and the old one may still be answered late.
        let begun = link.trust.begin();
        let mut verdicts = vec![Ok(()); batch.len()];
        for group in groups {
            self.add_group(&mut link, batch, group, &mut verdicts).await;
        }
        begun.end(&verdicts);
        Ok(gathered(verdicts))
    }

    async fn groups(&self, batch: &[Event]) -> Vec<Group> {
        let mut by_key: BTreeMap<(String, [u8; 16], bool), Vec<usize>> = BTreeMap::new();
        for (index, event) in batch.iter().enumerate() {
            let live = event.pass == Pass::Live;
            let key = (self.settings.stream.fill(event), event.record.get().lane_id(), live);
            by_key.entry(key).or_default().push(index);
        }
        let mut groups = Vec::with_capacity(by_key.len());
        for ((stream, lane_id, live), indices) in by_key {
            let (cursors, lane) = (cursor_name(&stream), Key(lane_id).to_string());
            let to = To { stream, cursors, lane, entries_max: self.settings.entries_max };
            let events: Vec<&Event> = indices.iter().map(|index| &batch[*index]).collect();
            let whole = if live { Some(transaction(&to, &events).await) } else { None };
            groups.push(Group { to, live, indices, whole });
        }
        groups
    }

    /// Adds the events of one stream, in their order. One that is refused for good is passed over;
    /// after any other failure nothing is added, or the cursor would go past what is missing.
    async fn add_group(
        &self,
        link: &mut Link,
        batch: &[Event],
        group: Group,
        verdicts: &mut [Result<(), Failure>],
    ) {
        let alone = Arc::clone(&link.alone);
        let _alone = alone.lock().await;
        let too_large = |index: &usize| batch[*index].payload().len() > link.value_bytes_max;
        let (refused, mut rest): (Vec<usize>, Vec<usize>) =
            group.indices.iter().partition(|index| too_large(index));
        for index in refused {
            let reason = format!(
                "the payload is larger than the {} bytes that the server takes",
                link.value_bytes_max
            );
            verdicts[index] = Err(Failure::permanent(reason));
        }
        match append_group(link, &group, (batch, &rest)).await {
            Ok(false) => {}
            Ok(true) => return,
            Err(error) => {
                for index in rest {
                    verdicts[index] = Err(of_error(&error));
                }
                return;
            }
        }
        while !rest.is_empty() {
            let command = script(&group, rest.iter().map(|index| &batch[*index]));
            let answer = command.query_async::<(usize, Option<String>)>(&mut link.connection).await;
            let (done, failure) = match answer {
                Ok((_, None)) => return,
                Ok((done, Some(text))) => (done, of_text(&text)),
                Err(error) => (0, of_error(&error)),
            };
            let failed = rest.split_off(done.min(rest.len()));
            let (first, others) = match failed.split_first() {
                Some((first, others)) if failure.class == Class::Permanent => {
                    (vec![*first], others.to_vec())
                }
                _ => (failed, Vec::new()),
            };
            for index in first {
                verdicts[index] = Err(failure.clone());
            }
            rest = others;
        }
    }
}

/// The short way, for events that are known by their position.
async fn append_group(
    link: &mut Link,
    group: &Group,
    (batch, indices): (&[Event], &[usize]),
) -> Result<bool, RedisError> {
    let Some(whole) = &group.whole else { return Ok(false) };
    if indices.is_empty() {
        return Ok(false);
    }
    let events: Vec<&Event> = indices.iter().map(|index| &batch[*index]).collect();
    if indices.len() == group.indices.len() {
        return append(&mut link.connection, &group.to, &events, whole).await;
    }
    let whole = transaction(&group.to, &events).await;
    append(&mut link.connection, &group.to, &events, &whole).await
}

fn script<'e>(Group { to, live, .. }: &Group, events: impl Iterator<Item = &'e Event>) -> Cmd {
    let lane = if *live { to.lane.as_str() } else { "" };
    let trim = to.entries_max.map(|count| count.to_string()).unwrap_or_default();
    let mut command = redis::cmd("EVAL");
    command.arg(SCRIPT).arg(2).arg(&to.stream).arg(&to.cursors).arg(lane).arg(trim);
    for event in events {
        add_event(&mut command, event);
    }
    command
}

impl Kind for Settings {
    fn word(&self) -> &'static str {
        "redis"
    }

    fn destination(&self) -> Destination {
        let address = self.server.addr();
        let scheme = match address {
            ConnectionAddr::TcpTls { .. } => "rediss",
            ConnectionAddr::Unix(_) => "redis+unix",
            _ => "redis",
        };
        Destination::at(format_args!("{scheme}://{address}"))
            .named("database", &self.server.redis_settings().db())
            .named("stream", &self.stream)
    }

    fn open(&self, _name: &str, timeout: Duration) -> Result<Arc<dyn Sink>, OpenError> {
        Ok(Arc::new(Redis::new(self.clone(), timeout)))
    }
}

impl Sink for Redis {
    fn nature(&self) -> Nature {
        Nature { events_max: BATCH_EVENTS_MAX, bytes_max: BATCH_BYTES_MAX, ..Nature::SEQUENTIAL }
    }

    fn deliver<'a>(&'a self, batch: &'a [Event]) -> BoxFuture<'a, Delivered> {
        self.deliver_in_turn(batch, Turn::NOW)
    }

    fn deliver_in_turn<'a>(&'a self, batch: &'a [Event], turn: Turn) -> BoxFuture<'a, Delivered> {
        Box::pin(async move { self.add_all(batch, turn).await.unwrap_or_else(Delivered::None) })
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let mut link = self.link().await?;
            let begun = link.trust.begin();
            let asked = redis::cmd("PING").query_async::<String>(&mut link.connection).await;
            let heard = asked.map(drop).map_err(|error| of_error(&error));
            begun.end(std::slice::from_ref(&heard));
            heard
        })
    }
}

/// The cursors of a stream, in the same slot of a cluster.
fn cursor_name(stream: &str) -> String {
    let tagged = stream.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    match tagged {
        Some((tag, _)) if !tag.is_empty() => format!("{stream}:cursor"),
        _ => format!("{{{stream}}}:cursor"),
    }
}

/// Epoch, offset, the number of arguments, and these: field and value by turns.
fn add_event(command: &mut Cmd, event: &Event) {
    let (position, optional) = (event.position(), optional_of(event));
    let present = optional.iter().filter(|(_, value)| value.is_some()).count();
    command.arg(position.epoch()).arg(position.offset()).arg(2 * (6 + present));
    add_fields(command, event, &optional);
}

type Optional<'e> = [(&'static str, Option<Cow<'e, str>>); 6];

/// The fields that an entry has where its event has them.
fn optional_of(event: &Event) -> Optional<'_> {
    [
        ("source", event.field(Tag::Source)),
        ("type", event.field(Tag::EventType)),
        ("event_id", event.field(Tag::EventId)),
        ("tenant", event.field(Tag::Tenant)),
        ("environment", event.field(Tag::Environment)),
        ("pass", pass_text(event.pass).map(Into::into)),
    ]
}

fn add_fields(command: &mut Cmd, event: &Event, optional: &Optional<'_>) {
    command.arg("payload").arg(event.payload());
    command.arg("content_type").arg(event.content_type.as_ref());
    command.arg("key").arg(event.idempotency_key());
    command.arg("lane").arg(event.lane.as_ref());
    command.arg("position").arg(event.position().to_string());
    command.arg("received_ns").arg(event.received_ns());
    for (name, value) in optional {
        if let Some(value) = value {
            command.arg(*name).arg(value.as_ref());
        }
    }
}

fn pass_text(pass: Pass) -> Option<&'static str> {
    match pass {
        Pass::Live => None,
        Pass::Replay => Some("replay"),
        Pass::Redrive => Some("redrive"),
    }
}

/// What the server says of itself, where it may be asked: it ends the connection over a value that
/// is longer, and all else that is on its way would fail with it.
async fn value_bytes_max(connection: &mut MultiplexedConnection) -> Result<usize, Failure> {
    let mut ask = redis::cmd("CONFIG");
    ask.arg("GET").arg("proto-max-bulk-len");
    match ask.query_async::<Vec<String>>(connection).await {
        Ok(answer) => {
            let told = answer.get(1).and_then(|text| text.parse().ok());
            Ok(told.unwrap_or(VALUE_BYTES_MAX))
        }
        // Where the command is forbidden or unknown the usual limit holds; a server that wants to
        // know who asks would refuse everything.
        Err(error) if error.code() == Some("NOAUTH") || error.is_io_error() => {
            Err(of_error(&error))
        }
        Err(_) => Ok(VALUE_BYTES_MAX),
    }
}

fn of_connect(error: &RedisError) -> Failure {
    match error.kind() {
        ErrorKind::Io => unconnected(error),
        ErrorKind::InvalidClientConfig => {
            let reason = format!("the connection is set up wrongly: {}", words(error.category()));
            Failure::new(Class::Misconfigured, reason)
        }
        _ => of_error(error),
    }
}

fn of_error(error: &RedisError) -> Failure {
    match error.kind() {
        ErrorKind::AuthenticationFailed => {
            Failure::new(Class::Misconfigured, "the server refuses the user or the password")
        }
        ErrorKind::Server(kind) => {
            let code = error.code().unwrap_or_default();
            let detail = error.detail().unwrap_or_default();
            match kind {
                ServerErrorKind::ExecAbort => Failure::temporary("the server aborted the batch"),
                _ => of_text(&format!("{code} {detail}")),
            }
        }
        ErrorKind::Extension => {
            let code = error.code().unwrap_or_default();
            of_text(&format!("{code} {}", error.detail().unwrap_or_default()))
        }
        _ if error.is_timeout() => Failure::temporary("no answer in time"),
        ErrorKind::Io => Failure::temporary("the connection was lost"),
        _ => {
            Failure::temporary(format!("no answer that could be read: {}", words(error.category())))
        }
    }
}

/// A refusal in the server's words, which name commands, keys and limits, never a value.
fn of_text(text: &str) -> Failure {
    let text = text.trim_start_matches('-');
    let (code, detail) = text.split_once(' ').unwrap_or((text, ""));
    let class = match code {
        "NOAUTH" | "WRONGPASS" | "NOPERM" | "WRONGTYPE" | "CROSSSLOT" | "MOVED" | "ASK" => {
            Class::Misconfigured
        }
        "OOM" => Class::Overloaded,
        "ERR" if detail.contains("max number of clients") => Class::Overloaded,
        "ERR" if ["too large", "invalid bulk length"].iter().any(|of| detail.contains(of)) => {
            Class::Permanent
        }
        "ERR" if detail.contains("unknown command") || detail.contains("AUTH") => {
            Class::Misconfigured
        }
        // LOADING, BUSY, READONLY, MASTERDOWN, CLUSTERDOWN, TRYAGAIN, NOREPLICAS, MISCONF: the
        // server is busy, full of disk, or no longer the master that it was.
        _ => Class::Temporary,
    };
    let reason = match code {
        "MOVED" | "ASK" => format!(
            "the stream lives on another node of the cluster ({}); name that node",
            words(detail)
        ),
        _ => format!("the server answers: {}", words(text)),
    };
    Failure::new(class, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursors_stand_in_the_slot_of_their_stream() {
        assert_eq!(cursor_name("events:main"), "{events:main}:cursor");
        assert_eq!(cursor_name("{events}:main"), "{events}:main:cursor");
        assert_eq!(cursor_name("a{}b"), "{a{}b}:cursor");
    }

    #[test]
    fn what_the_server_answers_has_the_class_that_follows_from_it() {
        let classes = [
            ("NOAUTH Authentication required.", Class::Misconfigured),
            ("WRONGPASS invalid username-password pair", Class::Misconfigured),
            ("NOPERM this user has no permissions", Class::Misconfigured),
            ("WRONGTYPE Operation against a key", Class::Misconfigured),
            ("MOVED 3999 127.0.0.1:6381", Class::Misconfigured),
            ("-OOM command not allowed when used memory > 'maxmemory'.", Class::Overloaded),
            ("READONLY You can't write against a read only replica.", Class::Temporary),
            ("LOADING Redis is loading the dataset in memory", Class::Temporary),
            ("ERR Elements are too large to be stored", Class::Permanent),
        ];
        for (text, class) in classes {
            assert_eq!(of_text(text).class, class, "{text}");
        }
    }
}
