//! A batch as a transaction of plain commands, which costs the server half of what the script does.
//!
//! The stream and its cursors are watched before the cursor is read, so the transaction takes place
//! only if nobody has touched either in between: not an old connection, whose batch comes late, and
//! not another writer. And as the stream is one, nothing that was queued can fail within it: what
//! lacks memory, permission or a master is refused before, and takes the whole with it. In every
//! other case nothing is done, and the script decides.

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, Pipeline, RedisError, Value};

use super::{add_fields, optional_of};
use crate::drain::sink::Event;

/// Events between which others go on.
const PIECE: usize = 32;

/// Where a batch goes.
#[derive(Clone, Debug)]
pub(super) struct To {
    pub(super) stream: String,
    /// The hash of its cursors.
    pub(super) cursors: String,
    /// The lane's field in it.
    pub(super) lane: String,
    /// About how many entries the stream keeps.
    pub(super) entries_max: Option<u64>,
}

/// The transaction that adds these and moves the cursor behind the last of them. It is made in
/// pieces, between which others go on.
pub(super) async fn transaction(to: &To, events: &[&Event]) -> Pipeline {
    let mut put = redis::pipe();
    put.atomic();
    for piece in events.chunks(PIECE) {
        for event in piece {
            let mut command = redis::cmd("XADD");
            command.arg(&to.stream);
            if let Some(count) = to.entries_max {
                command.arg("MAXLEN").arg("~").arg(count);
            }
            command.arg("*");
            add_fields(&mut command, event, &optional_of(event));
            put.add_command(command);
        }
        tokio::task::yield_now().await;
    }
    if let Some((epoch, offset)) = events.last().map(|event| place_of(event)) {
        put.cmd("HSET").arg(&to.cursors).arg(&to.lane).arg(format!("{epoch}-{offset}"));
    }
    put
}

/// Adds what is behind the cursor and moves it; `whole` is the transaction of all events. False if
/// nothing was done. No other batch may be on its way on the connection.
pub(super) async fn append(
    connection: &mut MultiplexedConnection,
    to: &To,
    events: &[&Event],
    whole: &Pipeline,
) -> Result<bool, RedisError> {
    let mut ask = redis::pipe();
    ask.cmd("WATCH").arg(&to.stream).arg(&to.cursors).ignore();
    ask.cmd("TYPE").arg(&to.stream);
    ask.cmd("HGET").arg(&to.cursors).arg(&to.lane);
    let asked = ask.query_async::<(String, Option<String>)>(connection).await;
    let Some((kind, cursor)) = unless_refused(asked)? else { return Ok(false) };
    let before = cursor.as_deref().map(parsed);
    // Anything else is not of this sink's making.
    if !["stream", "none"].contains(&kind.as_str()) || before == Some(None) {
        return Ok(false);
    }
    let is_new = |event: &&&Event| Some(place_of(event)) > before.flatten();
    let new: Vec<&Event> = events.iter().filter(is_new).copied().collect();
    let put = match new.len() {
        0 => return Ok(true),
        all if all == events.len() => whole.query_async::<Value>(connection).await,
        _ => transaction(to, &new).await.query_async(connection).await,
    };
    Ok(unless_refused(put)?.is_some_and(|added| added != Value::Nil))
}

/// Nothing, where the server has answered and refused: that is for the script to say.
fn unless_refused<T>(answer: Result<T, RedisError>) -> Result<Option<T>, RedisError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_io_error() || error.is_timeout() => Err(error),
        Err(error) if matches!(error.kind(), ErrorKind::AuthenticationFailed) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Epoch and offset.
fn place_of(event: &Event) -> (u64, u64) {
    let position = event.position();
    (u64::from(position.epoch()), position.offset())
}

/// A cursor as it stands in the hash.
fn parsed(text: &str) -> Option<(u64, u64)> {
    let (epoch, offset) = text.split_once('-')?;
    Some((epoch.parse().ok()?, offset.parse().ok()?))
}
