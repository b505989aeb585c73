//! The statements of the sink, and what fills them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;
use forebay_log::{Key, Tag};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
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

    /// The rows of events of one lane and one kind of pass. They are made in pieces, between which
    /// others go on.
    pub(super) async fn rows(&self, events: &[&Event]) -> Result<Rows, Failure> {
        Rows::of(events, self.payload).await
    }

    /// Inserts them.
    pub(super) async fn insert(&self, client: &Client, rows: &Rows) -> Result<(), Failure> {
        let lane = rows.lane.as_ref();
        let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = vec![
            (&rows.lane_id, Type::TEXT),
            (&lane, Type::TEXT),
            (&rows.live, Type::BOOL),
            (&rows.last.0, Type::INT8),
            (&rows.last.1, Type::INT8),
        ];
        for (column, array) in &rows.columns {
            parameters.push((column, array.clone()));
        }
        let mut inserted = self.put(client, rows.live, &parameters).await;
        // Made only where they are missing: who may insert need not be one who may create.
        let missing = |error: &Error| error.code() == Some(&SqlState::UNDEFINED_TABLE);
        if inserted.as_ref().err().is_some_and(missing) {
            client.batch_execute(&self.create).await.map_err(|error| of_error(&error))?;
            inserted = self.put(client, rows.live, &parameters).await;
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

/// The rows of a batch, as they are sent.
#[derive(Debug)]
pub(super) struct Rows {
    lane_id: String,
    lane: Arc<str>,
    live: bool,
    /// The position of the last one.
    last: (i64, i64),
    /// What differs from row to row, in the order of the statement.
    columns: Vec<(Encoded, Type)>,
}

/// Columns that often hold the same in all rows of a batch, from the tenth parameter on. What they all
/// hold is sent and taken apart once, as an array of one.
const SHARED: [&str; 7] =
    ["content_type", "source", "environment", "tenant", "event_id", "event_type", "event_time"];

/// Those of them that an event may leave empty.
const FIELDS: [Tag; 6] =
    [Tag::Source, Tag::Environment, Tag::Tenant, Tag::EventId, Tag::EventType, Tag::EventTime];

impl Rows {
    async fn of(events: &[&Event], payload: Payload) -> Result<Self, Failure> {
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return Err(Failure::temporary("a batch without events"));
        };
        let is_text = |event: &&Event| std::str::from_utf8(event.payload()).is_ok();
        let payload_type = match payload {
            Payload::Bytes => Type::BYTEA_ARRAY,
            Payload::Json if events.iter().all(is_text) => Type::TEXT_ARRAY,
            // Only of an event alone is this final; of several the sink halves the batch.
            Payload::Json => {
                return Err(Failure::permanent("the payload is not UTF-8, so it is no JSON"));
            }
        };
        let mut columns = Columns { events, made: Vec::with_capacity(12) };
        columns.add(Type::INT8_ARRAY, |event| parts(event).0).await?;
        columns.add(Type::INT8_ARRAY, |event| parts(event).1).await?;
        columns.add(Type::INT8_ARRAY, received_us).await?;
        columns.add(Type::TEXT_ARRAY, Event::idempotency_key).await?;
        columns.share(|event| Some(storable(Cow::Borrowed(&event.content_type)))).await?;
        for tag in FIELDS {
            columns.share(|event| event.field(tag).map(storable)).await?;
        }
        columns.add(payload_type, Event::payload).await?;
        Ok(Self {
            lane_id: Key(first.record.get().lane_id()).to_string(),
            lane: Arc::clone(&first.lane),
            live: first.pass == Pass::Live,
            last: parts(last),
            columns: columns.made,
        })
    }
}

/// What differs from row to row, as it is made.
struct Columns<'e> {
    events: &'e [&'e Event],
    made: Vec<(Encoded, Type)>,
}

impl<'e> Columns<'e> {
    /// Adds an array of one value of each event, and lets others go on.
    async fn add<T: ToSql>(
        &mut self,
        array: Type,
        value: impl Fn(&'e Event) -> T,
    ) -> Result<(), Failure> {
        self.push(array, &self.events.iter().map(|event| value(event)).collect()).await
    }

    /// Adds an array of one text of each event, or of the one that all have.
    async fn share(
        &mut self,
        value: impl Fn(&'e Event) -> Option<Cow<'e, str>>,
    ) -> Result<(), Failure> {
        let mut values: Vec<_> = self.events.iter().map(|event| value(event)).collect();
        if values.windows(2).all(|pair| pair[0] == pair[1]) {
            values.truncate(1);
        }
        self.push(Type::TEXT_ARRAY, &values).await
    }

    async fn push<T: ToSql>(&mut self, array: Type, values: &Vec<T>) -> Result<(), Failure> {
        let mut bytes = BytesMut::new();
        let encoded = values.to_sql(&array, &mut bytes);
        encoded.map_err(|_| Failure::permanent("the batch is larger than a value may be"))?;
        self.made.push((Encoded(bytes), array));
        tokio::task::yield_now().await;
        Ok(())
    }
}

/// A value in the form in which it is sent.
#[derive(Debug)]
struct Encoded(BytesMut);

impl ToSql for Encoded {
    fn to_sql(
        &self,
        _type: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_type: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// Epoch and offset as the server counts: no lane comes near the end of its numbers.
fn parts(event: &Event) -> (i64, i64) {
    let position = event.position();
    (i64::from(position.epoch()), i64::try_from(position.offset()).unwrap_or(i64::MAX))
}

/// Microseconds, as the server counts.
fn received_us(event: &Event) -> i64 {
    i64::try_from(event.received_ns() / 1000).unwrap_or(i64::MAX)
}

/// Text holds any character but one, and no event fails for that in its type.
fn storable(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { text }
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
    let shared = |(name, number): (&str, usize)| {
        format!("CASE WHEN cardinality(${number}) = 1 THEN (${number})[1] ELSE given.{name} END")
    };
    let shared = SHARED.into_iter().zip(10..).map(shared).collect::<Vec<_>>().join(", ");
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
             given.key, {shared}, {payload} \
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
        assert_eq!(storable("a\0b".into()), "a\u{fffd}b");
    }
}
