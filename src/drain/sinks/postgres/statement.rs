//! The statements of the sink, and what fills them.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
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
    /// The tables, quoted: of rows, and of cursors.
    rows: String,
    cursors: String,
    payload: Payload,
}

impl Statements {
    pub(super) fn new(table: &Table, payload: Payload) -> Self {
        let (rows, cursors) = (table.quoted(""), table.quoted("_cursor"));
        let column = match payload {
            Payload::Bytes => "bytea",
            Payload::Json => "jsonb",
        };
        Self { create: create(&rows, &cursors, column), rows, cursors, payload }
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
        for Column { values, of, .. } in &rows.columns {
            parameters.push((values, of.clone()));
        }
        let mut inserted = self.put(client, rows, &parameters).await;
        // Made only where they are missing: who may insert need not be one who may create.
        let missing = |error: &Error| error.code() == Some(&SqlState::UNDEFINED_TABLE);
        if inserted.as_ref().err().is_some_and(missing) {
            client.batch_execute(&self.create).await.map_err(|error| of_error(&error))?;
            inserted = self.put(client, rows, &parameters).await;
        }
        inserted.map_err(|error| of_error(&error))
    }

    /// A row of a live batch that is behind the cursor and there all the same was replayed before
    /// its turn, or brought by a statement that still ran: then nothing of the first is done. The
    /// second passes over such rows, and is a fourth dearer.
    async fn put(
        &self,
        client: &Client,
        rows: &Rows,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<(), Error> {
        if rows.live {
            let appended = client.query_typed(&self.inserting(rows, ""), parameters).await;
            let twice = |error: &Error| error.code() == Some(&SqlState::UNIQUE_VIOLATION);
            if !appended.as_ref().err().is_some_and(twice) {
                return appended.map(drop);
            }
        }
        let statement = self.inserting(rows, "ON CONFLICT DO NOTHING");
        client.query_typed(&statement, parameters).await.map(drop)
    }

    /// One statement is one transaction. The cursor's row is locked first, so that a statement that
    /// was given up on and still runs is waited for. The last part reads from `put`, because parts
    /// that nothing reads from run last, and then the cursor would have moved.
    fn inserting(&self, given: &Rows, on_conflict: &str) -> String {
        let Self { rows, cursors, payload, .. } = self;
        let (mut names, mut values) = (String::new(), String::new());
        let (mut arrays, mut aliases) = (String::new(), String::new());
        for (Column { name, shared, .. }, number) in given.columns.iter().zip(FIRST_COLUMN..) {
            // Writing to a String cannot fail.
            _ = write!(names, ", {name}");
            if *shared {
                _ = write!(values, ", ${number}");
                continue;
            }
            _ = match (*name, payload) {
                ("received_at", _) => {
                    let second = "interval '1 microsecond'";
                    write!(values, ", to_timestamp(0) + given.received_at * {second}")
                }
                ("payload", Payload::Json) => write!(values, ", given.payload::jsonb"),
                _ => write!(values, ", given.{name}"),
            };
            let comma = if aliases.is_empty() { "" } else { ", " };
            _ = write!(arrays, "{comma}${number}");
            _ = write!(aliases, "{comma}{name}");
        }
        format!(
            "WITH taken AS (\
               SELECT epoch, position FROM {cursors} WHERE lane_id = $1::uuid FOR UPDATE\
             ), put AS (\
               INSERT INTO {rows} (lane_id, lane{names}) \
               SELECT $1::uuid, $2{values} \
               FROM unnest({arrays}) AS given({aliases}) LEFT JOIN taken ON true \
               WHERE NOT $3 OR taken.epoch IS NULL \
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
}

/// The rows of a batch, as they are sent.
#[derive(Debug)]
pub(super) struct Rows {
    lane_id: String,
    lane: Arc<str>,
    live: bool,
    /// The position of the last one.
    last: (i64, i64),
    /// The other columns, in the order of their parameters.
    columns: Vec<Column>,
}

/// The number of the parameter that is the first of the columns.
const FIRST_COLUMN: usize = 6;

/// A column of the rows of a batch.
#[derive(Debug)]
struct Column {
    name: &'static str,
    /// Whether it holds the same in all rows: then that is sent once, and the server takes no array
    /// apart.
    shared: bool,
    values: Encoded,
    /// The type of the values.
    of: Type,
}

/// Columns that an event may leave empty.
const FIELDS: [(&str, Tag); 6] = [
    ("source", Tag::Source),
    ("environment", Tag::Environment),
    ("tenant", Tag::Tenant),
    ("event_id", Tag::EventId),
    ("event_type", Tag::EventType),
    ("event_time", Tag::EventTime),
];

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
        columns.add("epoch", Type::INT8_ARRAY, |event| parts(event).0).await?;
        columns.add("position", Type::INT8_ARRAY, |event| parts(event).1).await?;
        columns.add("received_at", Type::INT8_ARRAY, received_us).await?;
        columns.add("key", Type::TEXT_ARRAY, Event::idempotency_key).await?;
        columns
            .share("content_type", |event| Some(storable(Cow::Borrowed(&event.content_type))))
            .await?;
        for (name, tag) in FIELDS {
            columns.share(name, |event| event.field(tag).map(storable)).await?;
        }
        columns.add("payload", payload_type, Event::payload).await?;
        Ok(Self {
            lane_id: Key(first.record.get().lane_id()).to_string(),
            lane: Arc::clone(&first.lane),
            live: first.pass == Pass::Live,
            last: parts(last),
            columns: columns.made,
        })
    }
}

/// Columns as they are made.
struct Columns<'e> {
    events: &'e [&'e Event],
    made: Vec<Column>,
}

impl<'e> Columns<'e> {
    /// Adds an array of one value of each event.
    async fn add<T: ToSql>(
        &mut self,
        name: &'static str,
        array: Type,
        value: impl Fn(&'e Event) -> T,
    ) -> Result<(), Failure> {
        let values: Vec<T> = self.events.iter().map(|event| value(event)).collect();
        self.push(name, false, array, &values).await
    }

    /// Adds an array of one text of each event, or the one that all have.
    async fn share(
        &mut self,
        name: &'static str,
        value: impl Fn(&'e Event) -> Option<Cow<'e, str>>,
    ) -> Result<(), Failure> {
        let values: Vec<_> = self.events.iter().map(|event| value(event)).collect();
        match values.first().filter(|first| values.iter().all(|value| value == *first)) {
            Some(first) => self.push(name, true, Type::TEXT, first).await,
            None => self.push(name, false, Type::TEXT_ARRAY, &values).await,
        }
    }

    /// Adds values, and lets others go on.
    async fn push(
        &mut self,
        name: &'static str,
        shared: bool,
        of: Type,
        values: &impl ToSql,
    ) -> Result<(), Failure> {
        let mut bytes = BytesMut::new();
        let encoded = values.to_sql(&of, &mut bytes);
        let null =
            encoded.map_err(|_| Failure::permanent("the batch is larger than a value may be"))?;
        let is_null = matches!(null, IsNull::Yes);
        self.made.push(Column { name, shared, values: Encoded { bytes, is_null }, of });
        tokio::task::yield_now().await;
        Ok(())
    }
}

/// A value in the form in which it is sent.
#[derive(Debug)]
struct Encoded {
    bytes: BytesMut,
    is_null: bool,
}

impl ToSql for Encoded {
    fn to_sql(
        &self,
        _type: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.bytes);
        Ok(if self.is_null { IsNull::Yes } else { IsNull::No })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::testing::{Said, Written};

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

    fn inserting(events: &[Event], payload: Payload) -> String {
        let events: Vec<&Event> = events.iter().collect();
        let table = Table::parse("events").expect("a name");
        let statements = Statements::new(&table, payload);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let rows = runtime.block_on(statements.rows(&events)).expect("rows");
        statements.inserting(&rows, "")
    }

    #[test]
    fn what_all_rows_of_a_batch_hold_is_no_array() {
        let mut log = Written::new();
        let said = |fields| Said { fields, headers: &[], body: b"{}" };
        let mut event = |number, fields| Written::event_of(log.record(number, said(fields)));
        let one = event(1, &[(Tag::Source, "hub"), (Tag::EventType, "a"), (Tag::EventId, "1")]);
        let two = event(2, &[(Tag::Source, "hub"), (Tag::EventType, "b")]);
        let alone = inserting(std::slice::from_ref(&one), Payload::Bytes);
        let given = "FROM unnest($6, $7, $8, $9, $17) \
                     AS given(epoch, position, received_at, key, payload) ";
        assert!(alone.contains(given), "{alone}");
        assert!(alone.contains("given.key, $10, $11, $12, $13, $14, $15, $16, given.payload"));
        let both = inserting(&[one, two], Payload::Json);
        let given = "FROM unnest($6, $7, $8, $9, $14, $15, $17) \
                     AS given(epoch, position, received_at, key, event_id, event_type, payload) ";
        assert!(both.contains(given), "{both}");
        let values = "given.key, $10, $11, $12, $13, given.event_id, given.event_type, $16, \
                      given.payload::jsonb";
        assert!(both.contains(values), "{both}");
    }
}
