//! The statements of the sink, and what fills them.

use std::fmt;

use forebay_log::{Key, Tag};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error};

use super::failure::of_error;
use crate::drain::sink::{Event, Failure, Pass};

/// The longest name that PostgreSQL keeps whole, less what the cursor's table adds.
const NAME_BYTES_MAX: usize = 56;

/// What the column of the payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// `bytea`: any bytes, as they are.
    Bytes,
    /// `jsonb`: JSON that can be asked; an event whose payload is none fails for good.
    Json,
}

/// A table's name, with or without its schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    schema: Option<String>,
    name: String,
}

impl Table {
    /// Reads `table` or `schema.table`. Each part is letters, digits and `_`, and stays as it is
    /// written.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |part: &str| {
            (1..=NAME_BYTES_MAX).contains(&part.len())
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let (schema, name) = match text.split_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, text),
        };
        let fits = plain(name) && schema.is_none_or(plain);
        fits.then(|| Self { schema: schema.map(str::to_owned), name: name.to_owned() })
    }

    /// The name as SQL, with something behind it.
    fn quoted(&self, suffix: &str) -> String {
        match &self.schema {
            Some(schema) => format!("\"{schema}\".\"{}{suffix}\"", self.name),
            None => format!("\"{}{suffix}\"", self.name),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The statements for one table.
#[derive(Debug)]
pub(super) struct Statements {
    create: String,
    /// For rows that nobody has brought yet, which is nearly always so.
    append: String,
    /// The same, and passes over rows that are there; a fourth dearer.
    insert: String,
    payload: Payload,
}

impl Statements {
    pub(super) fn new(table: &Table, payload: Payload) -> Self {
        let (rows, cursors) = (table.quoted(""), table.quoted("_cursor"));
        let (column, given) = match payload {
            Payload::Bytes => ("bytea", "given.payload"),
            Payload::Json => ("jsonb", "given.payload::jsonb"),
        };
        Self {
            create: create(&rows, &cursors, column),
            append: insert(&rows, &cursors, given, ""),
            insert: insert(&rows, &cursors, given, "ON CONFLICT DO NOTHING"),
            payload,
        }
    }

    /// Inserts events of one lane and one kind of pass.
    pub(super) async fn insert(&self, client: &Client, events: &[&Event]) -> Result<(), Failure> {
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(()) };
        let lane_id = Key(first.record.get().lane_id()).to_string();
        let lane = first.lane.as_ref();
        let live = first.pass == Pass::Live;
        let rows = Rows::of(events);
        let text: Vec<&str>;
        let bytes: Vec<&[u8]>;
        let (payload, payload_type): (&(dyn ToSql + Sync), _) = match self.payload {
            Payload::Bytes => {
                bytes = events.iter().map(|event| event.payload.as_ref()).collect();
                (&bytes, Type::BYTEA_ARRAY)
            }
            Payload::Json => {
                let as_text = events.iter().map(|event| std::str::from_utf8(&event.payload));
                // Only of an event alone is this final; of several the sink halves the batch.
                text = as_text.collect::<Result<_, _>>().map_err(|_| {
                    Failure::permanent("the payload is not UTF-8, so it is no JSON")
                })?;
                (&text, Type::TEXT_ARRAY)
            }
        };
        let (epoch, offset) = parts(last);
        let parameters: [(&(dyn ToSql + Sync), Type); 17] = [
            (&lane_id, Type::TEXT),
            (&lane, Type::TEXT),
            (&live, Type::BOOL),
            (&epoch, Type::INT8),
            (&offset, Type::INT8),
            (&rows.epochs, Type::INT8_ARRAY),
            (&rows.offsets, Type::INT8_ARRAY),
            (&rows.received_us, Type::INT8_ARRAY),
            (&rows.keys, Type::TEXT_ARRAY),
            (&rows.content_types, Type::TEXT_ARRAY),
            (&rows.fields[0], Type::TEXT_ARRAY),
            (&rows.fields[1], Type::TEXT_ARRAY),
            (&rows.fields[2], Type::TEXT_ARRAY),
            (&rows.fields[3], Type::TEXT_ARRAY),
            (&rows.fields[4], Type::TEXT_ARRAY),
            (&rows.fields[5], Type::TEXT_ARRAY),
            (payload, payload_type),
        ];
        let mut inserted = self.put(client, live, &parameters).await;
        // Made only where they are missing: who may insert need not be one who may create.
        let missing = |error: &Error| error.code() == Some(&SqlState::UNDEFINED_TABLE);
        if inserted.as_ref().err().is_some_and(missing) {
            client.batch_execute(&self.create).await.map_err(|error| of_error(&error))?;
            inserted = self.put(client, live, &parameters).await;
        }
        inserted.map_err(|error| of_error(&error))
    }

    /// A row of a live batch that is behind the cursor and there all the same was replayed before
    /// its turn, or brought by a statement that still ran: then nothing of the first is done.
    async fn put(
        &self,
        client: &Client,
        live: bool,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<(), Error> {
        if live {
            let appended = client.query_typed(&self.append, parameters).await;
            let twice = |error: &Error| error.code() == Some(&SqlState::UNIQUE_VIOLATION);
            if !appended.as_ref().err().is_some_and(twice) {
                return appended.map(drop);
            }
        }
        client.query_typed(&self.insert, parameters).await.map(drop)
    }
}

/// The columns of a batch.
#[derive(Debug)]
struct Rows {
    epochs: Vec<i64>,
    offsets: Vec<i64>,
    received_us: Vec<i64>,
    keys: Vec<String>,
    content_types: Vec<String>,
    fields: [Vec<Option<String>>; FIELDS.len()],
}

/// The columns that an event may leave empty, in the order of the statement.
const FIELDS: [Tag; 6] =
    [Tag::Source, Tag::Environment, Tag::Tenant, Tag::EventId, Tag::EventType, Tag::EventTime];

impl Rows {
    fn of(events: &[&Event]) -> Self {
        let field = |tag| {
            let value = |event: &&Event| event.field(tag).map(|value| storable(&value));
            events.iter().map(value).collect()
        };
        let received_us =
            |event: &&Event| i64::try_from(event.received_ns() / 1000).unwrap_or(i64::MAX);
        Self {
            epochs: events.iter().map(|event| parts(event).0).collect(),
            offsets: events.iter().map(|event| parts(event).1).collect(),
            received_us: events.iter().map(received_us).collect(),
            keys: events.iter().map(|event| event.idempotency_key()).collect(),
            content_types: events.iter().map(|event| storable(&event.content_type)).collect(),
            fields: FIELDS.map(field),
        }
    }
}

/// Epoch and offset as the server counts: no lane comes near the end of its numbers.
fn parts(event: &Event) -> (i64, i64) {
    let position = event.position();
    (i64::from(position.epoch()), i64::try_from(position.offset()).unwrap_or(i64::MAX))
}

/// Text holds any character but one, and no event fails for that in its type.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn create(rows: &str, cursors: &str, payload: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {rows} (\
           lane_id uuid NOT NULL, epoch bigint NOT NULL, position bigint NOT NULL, \
           lane text NOT NULL, key text NOT NULL, source text, environment text, tenant text, \
           event_id text, event_type text, event_time text, received_at timestamptz NOT NULL, \
           stored_at timestamptz NOT NULL DEFAULT now(), content_type text NOT NULL, \
           payload {payload} NOT NULL, PRIMARY KEY (lane_id, epoch, position)); \
         CREATE TABLE IF NOT EXISTS {cursors} (\
           lane_id uuid PRIMARY KEY, lane text NOT NULL, epoch bigint NOT NULL, \
           position bigint NOT NULL, moved_at timestamptz NOT NULL DEFAULT now())"
    )
}

/// One statement is one transaction. The cursor's row is locked first, so that a statement that
/// was given up on and still runs is waited for. The last part reads from `put`, because parts
/// that nothing reads from run last, and then the cursor would have moved.
fn insert(rows: &str, cursors: &str, payload: &str, on_conflict: &str) -> String {
    format!(
        "WITH taken AS (\
           SELECT epoch, position FROM {cursors} WHERE lane_id = $1::uuid FOR UPDATE\
         ), given AS (\
           SELECT * FROM unnest($6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) AS g(\
             epoch, position, received_us, key, content_type, source, environment, tenant, \
             event_id, event_type, event_time, payload)\
         ), put AS (\
           INSERT INTO {rows} (lane_id, lane, epoch, position, received_at, key, content_type, \
             source, environment, tenant, event_id, event_type, event_time, payload) \
           SELECT $1::uuid, $2, given.epoch, given.position, \
             to_timestamp(0) + given.received_us * interval '1 microsecond', \
             given.key, given.content_type, given.source, given.environment, given.tenant, \
             given.event_id, given.event_type, given.event_time, {payload} \
           FROM given LEFT JOIN taken ON true WHERE NOT $3 OR taken.epoch IS NULL \
             OR (given.epoch, given.position) > (taken.epoch, taken.position) \
           {on_conflict} RETURNING 1\
         ) \
         INSERT INTO {cursors} AS cursors (lane_id, lane, epoch, position) \
         SELECT $1::uuid, $2, $4, $5 FROM (SELECT count(*) FROM put) AS done WHERE $3 \
         ON CONFLICT (lane_id) DO UPDATE \
         SET lane = excluded.lane, epoch = excluded.epoch, position = excluded.position, \
           moved_at = now() \
         WHERE (cursors.epoch, cursors.position) < (excluded.epoch, excluded.position)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_one_or_two_plain_names() {
        let named = |text: &str| Table::parse(text).map(|table| table.quoted("_cursor"));
        assert_eq!(named("events").as_deref(), Some("\"events_cursor\""));
        assert_eq!(named("hooks.Events_1").as_deref(), Some("\"hooks\".\"Events_1_cursor\""));
        for text in ["", ".", "a.", ".a", "a.b.c", "a b", "a\"b", "a;b", &"a".repeat(57)] {
            assert_eq!(named(text), None, "{text}");
        }
    }

    #[test]
    fn text_that_the_server_cannot_hold_is_mended() {
        assert_eq!(storable("a\0b"), "a\u{fffd}b");
    }
}
