//! A batch as a transaction of plain commands, which costs the server half of what the script does.
//!
//! The stream and its cursors are watched before the cursor is read, so the transaction takes place
//! only if nobody has touched either in between: not an old connection, whose batch comes late, and
//! not another writer. And as the stream is one, nothing that was queued can fail within it: what
//! lacks memory, permission or a master is refused before, and takes the whole with it. In every
//! other case nothing is done, and the script decides.

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError};

use super::{add_fields, optional_of};
use crate::drain::sink::Event;

/// Where a batch goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct To<'t> {
    pub(super) stream: &'t str,
    /// The hash of its cursors.
    pub(super) cursors: &'t str,
    /// The lane's field in it.
    pub(super) lane: &'t str,
    /// About how many entries the stream keeps.
    pub(super) entries_max: Option<u64>,
}

/// Adds what is behind the cursor and moves it. False if nothing was done. No other batch may be on
/// its way on the connection.
pub(super) async fn append(
    connection: &mut MultiplexedConnection,
    to: To<'_>,
    events: &[&Event],
) -> Result<bool, RedisError> {
    let mut ask = redis::pipe();
    ask.cmd("WATCH").arg(to.stream).arg(to.cursors).ignore();
    ask.cmd("TYPE").arg(to.stream);
    ask.cmd("HGET").arg(to.cursors).arg(to.lane);
    let asked = ask.query_async::<(String, Option<String>)>(connection).await;
    let Some((kind, cursor)) = unless_refused(asked)? else { return Ok(false) };
    let before = cursor.as_deref().map(parsed);
    // Anything else is not of this sink's making.
    if !["stream", "none"].contains(&kind.as_str()) || before == Some(None) {
        return Ok(false);
    }
    let mut put = redis::pipe();
    put.atomic();
    let mut last = None;
    for event in events.iter().filter(|event| Some(place_of(event)) > before.flatten()) {
        let mut command = redis::cmd("XADD");
        command.arg(to.stream);
        if let Some(count) = to.entries_max {
            command.arg("MAXLEN").arg("~").arg(count);
        }
        command.arg("*");
        add_fields(&mut command, event, &optional_of(event));
        put.add_command(command).ignore();
        last = Some(place_of(event));
    }
    if let Some((epoch, offset)) = last {
        put.cmd("HSET").arg(to.cursors).arg(to.lane).arg(format!("{epoch}-{offset}")).ignore();
    }
    // Where nothing is new nothing is sent: all of it is there.
    let put = put.query_async::<Option<()>>(connection).await;
    Ok(unless_refused(put)?.flatten().is_some())
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
