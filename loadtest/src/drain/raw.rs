//! The same events by each server's own client: the code that somebody would write who has them in
//! memory and needs neither order, nor retries, nor to know what came twice.
//!
//! What goes over the wire is what the sink of that kind sends: the same names and the same values.
//! Batches are as large, and as many are under way at once.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::{self, message::PublishMessage};
use bytes::Bytes;
use forebay_log::{From, Key, Reader};
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tokio_postgres::NoTls;
use tokio_postgres::types::ToSql;

use super::prepared::{CONTENT_TYPE, ENVIRONMENT, EVENT_TYPE, LANE, Prepared, SOURCE};

/// Events of a batch, which is what a sink has unless it is told otherwise.
pub(super) const BATCH: usize = 500;
/// How long an answer may take, which is what a batch of a sink may.
const PATIENCE: Duration = Duration::from_secs(30);
/// Batches under way at once, where a sink has more than one.
const BATCHES: usize = 32;

/// An event in memory.
pub(super) struct Row {
    key: String,
    lane_id: String,
    epoch: i64,
    offset: i64,
    position: String,
    event_id: String,
    received_ns: u64,
    payload: Bytes,
}

/// What a lane holds.
pub(super) fn rows(lane: &Path) -> io::Result<Vec<Row>> {
    let mut reader = Reader::open(lane).map_err(io::Error::other)?;
    reader.seek(From::Earliest).map_err(io::Error::other)?;
    let mut rows = Vec::new();
    while let Some(record) = reader.next().map_err(io::Error::other)? {
        let position = record.position();
        rows.push(Row {
            key: record.key().to_string(),
            lane_id: Key(record.lane_id()).to_string(),
            epoch: i64::from(position.epoch()),
            offset: i64::try_from(position.offset()).map_err(io::Error::other)?,
            position: position.to_string(),
            event_id: Prepared::event_id(rows.len() as u64),
            received_ns: record.received_ns(),
            payload: Bytes::copy_from_slice(record.body()),
        });
    }
    Ok(rows)
}

/// Publishes without waiting, as far as the window of acknowledgements allows.
pub(super) async fn nats(url: &str, stream: &str, rows: &[Row]) -> io::Result<()> {
    let client = async_nats::connect(url).await.map_err(io::Error::other)?;
    let context = jetstream::context::ContextBuilder::new().max_ack_inflight(BATCH * BATCHES);
    let context = context.build(client);
    let config = jetstream::stream::Config {
        name: stream.to_owned(),
        subjects: vec![format!("{stream}.>")],
        ..Default::default()
    };
    context.get_or_create_stream(config).await.map_err(io::Error::other)?;
    let subject = format!("{stream}.{LANE}.{SOURCE}.{}", EVENT_TYPE.replace('.', "_"));
    let mut open = VecDeque::with_capacity(BATCH * BATCHES);
    for row in rows {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("Nats-Msg-Id", row.key.as_str()),
            ("Forebay-Lane", LANE),
            ("Forebay-Position", &row.position),
            ("Content-Type", CONTENT_TYPE),
            ("Forebay-Source", SOURCE),
            ("Forebay-Type", EVENT_TYPE),
            ("Forebay-Event-Id", &row.event_id),
            ("Forebay-Environment", ENVIRONMENT),
        ] {
            headers.insert(name, value);
        }
        let message = PublishMessage::build().headers(headers).payload(row.payload.clone());
        let ack = context.send_publish(subject.clone(), message).await;
        open.push_back(ack.map_err(io::Error::other)?);
        if open.len() >= BATCH * BATCHES
            && let Some(ack) = open.pop_front()
        {
            ack.await.map_err(io::Error::other)?;
        }
    }
    for ack in open {
        ack.await.map_err(io::Error::other)?;
    }
    Ok(())
}

/// A connection that waits for its answers: the client's own patience is half a second.
pub(super) async fn redis_connection(url: &str) -> io::Result<MultiplexedConnection> {
    let patient = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    let client = redis::Client::open(url).map_err(io::Error::other)?;
    let connection = client.get_multiplexed_async_connection_with_config(&patient);
    connection.await.map_err(io::Error::other)
}

/// A pipeline of XADD for each batch.
pub(super) async fn redis(url: &str, stream: &str, rows: &[Row]) -> io::Result<()> {
    let mut connection = redis_connection(url).await?;
    for batch in rows.chunks(BATCH) {
        let mut pipeline = redis::pipe();
        for row in batch {
            let command = pipeline.cmd("XADD").arg(stream).arg("*");
            command.arg("payload").arg(row.payload.as_ref());
            command.arg("content_type").arg(CONTENT_TYPE).arg("key").arg(&row.key);
            command.arg("lane").arg(LANE).arg("position").arg(&row.position);
            command.arg("received_ns").arg(row.received_ns).arg("source").arg(SOURCE);
            command.arg("type").arg(EVENT_TYPE).arg("event_id").arg(&row.event_id);
            command.arg("environment").arg(ENVIRONMENT).ignore();
        }
        pipeline.query_async::<()>(&mut connection).await.map_err(io::Error::other)?;
    }
    Ok(())
}

/// One prepared INSERT for each batch, of arrays; a transaction of its own each.
pub(super) async fn postgres(server: &str, table: &str, rows: &[Row]) -> io::Result<()> {
    let (client, connection) =
        tokio_postgres::connect(server, NoTls).await.map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    let create = format!(
        "CREATE TABLE {table} (\
           lane_id uuid NOT NULL, epoch bigint NOT NULL, position bigint NOT NULL, \
           lane text NOT NULL, key text NOT NULL, source text, environment text, tenant text, \
           event_id text, event_type text, event_time text, received_at timestamptz NOT NULL, \
           stored_at timestamptz NOT NULL DEFAULT now(), content_type text NOT NULL, \
           payload bytea NOT NULL, PRIMARY KEY (lane_id, epoch, position))"
    );
    client.batch_execute(&create).await.map_err(io::Error::other)?;
    let insert = format!(
        "INSERT INTO {table} (lane_id, lane, epoch, position, received_at, key, content_type, \
           source, environment, event_id, event_type, payload) \
         SELECT $1::text::uuid, $2, given.epoch, given.position, \
           to_timestamp(0) + given.received_us * interval '1 microsecond', given.key, $3, $4, $5, \
           given.event_id, $6, given.payload \
         FROM unnest($7::int8[], $8::int8[], $9::int8[], $10::text[], $11::text[], $12::bytea[]) \
           AS given(epoch, position, received_us, key, event_id, payload)"
    );
    let insert = client.prepare(&insert).await.map_err(io::Error::other)?;
    for batch in rows.chunks(BATCH) {
        let Some(first) = batch.first() else { continue };
        let epochs: Vec<i64> = batch.iter().map(|row| row.epoch).collect();
        let offsets: Vec<i64> = batch.iter().map(|row| row.offset).collect();
        let received: Vec<i64> =
            batch.iter().map(|row| row.received_ns.cast_signed() / 1000).collect();
        let keys: Vec<&str> = batch.iter().map(|row| row.key.as_str()).collect();
        let ids: Vec<&str> = batch.iter().map(|row| row.event_id.as_str()).collect();
        let payloads: Vec<&[u8]> = batch.iter().map(|row| row.payload.as_ref()).collect();
        let parameters: [&(dyn ToSql + Sync); 12] = [
            &first.lane_id,
            &LANE,
            &CONTENT_TYPE,
            &SOURCE,
            &ENVIRONMENT,
            &EVENT_TYPE,
            &epochs,
            &offsets,
            &received,
            &keys,
            &ids,
            &payloads,
        ];
        client.execute(&insert, &parameters).await.map_err(io::Error::other)?;
    }
    drop(client);
    // Ends with the client.
    _ = connection.await;
    Ok(())
}

/// Lines of a batch in one write, and a sync behind it.
pub(super) fn file(folder: &Path, rows: &[Row]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let path = folder.join(format!("{LANE}.ndjson"));
    let mut file = File::options().append(true).create(true).open(path)?;
    let mut lines = Vec::new();
    for batch in rows.chunks(BATCH) {
        lines.clear();
        for Row { position, key, payload, .. } in batch {
            write!(
                lines,
                "{{\"position\":\"{position}\",\"key\":\"{key}\",\"lane\":\"{LANE}\",\
                 \"source\":\"{SOURCE}\",\"event_type\":\"{EVENT_TYPE}\",\
                 \"content_type\":\"{CONTENT_TYPE}\",\"data\":"
            )?;
            lines.extend_from_slice(payload);
            lines.extend_from_slice(b"}\n");
        }
        file.write_all(&lines)?;
        file.sync_data()?;
    }
    Ok(())
}
