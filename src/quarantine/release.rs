//! Requests out of quarantine, through the line once more.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use forebay_log::{From, Position, ReadError, Reader};
use serde::{Deserialize, Serialize};

use super::held::HeldRequest;
use super::log_dir;
use crate::limits::ACK_WAIT_MAX;
use crate::line::Line;
use crate::observe::Outcome;
use crate::receive::{Connections, Deadlines};
use crate::reject::Reject;
use crate::runtime;

/// Longer than any request waits for its acknowledgement.
const WAIT_MAX: Duration = Duration::from_secs(2 * ACK_WAIT_MAX.as_secs());

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Released {
    /// Its event is new and is kept at its lane's ack level.
    Stored,
    /// Its lane knows the event already: by an earlier release, or from the sender itself.
    Known,
    /// It still does not verify, or cannot be taken now.
    Refused,
    /// Its lane may have forgotten whether it knows the event.
    TooOld,
    /// It is a handshake, which leaves nothing.
    Handshake,
    /// The quarantine does not hold it any more.
    Gone,
}

/// One request, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Where it is in quarantine.
    pub position: String,
    /// What became of it.
    pub outcome: Released,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Puts requests through a line of its own. Lives on the runtime that made it.
#[derive(Debug)]
pub struct Releaser {
    line: Line,
    connections: Rc<Connections>,
    log_dir: PathBuf,
}

impl Releaser {
    /// Takes a line, and sees to it that its requests hear of their acknowledgement.
    pub fn new(line: Line, deadlines: Deadlines, data_dir: &Path) -> Self {
        for seat in &line.seats {
            let waits = Rc::clone(seat.waits());
            runtime::spawn(async move { waits.release().await });
        }
        let connections = Connections::new(deadlines, line.clock.monotonic());
        Self { line, connections, log_dir: log_dir(data_dir) }
    }

    /// Releases the requests at these positions, one after the other. An error leaves the rest to
    /// a later call with the same positions.
    pub async fn release(&self, positions: &[Position]) -> io::Result<Vec<Release>> {
        let mut releases = Vec::with_capacity(positions.len());
        for position in positions {
            let (outcome, reason) =
                match find(&self.log_dir, *position).map_err(io::Error::other)? {
                    None => (Released::Gone, None),
                    Some(held) => self.pass(&held).await,
                };
            if reason == Some(Reject::Draining) {
                return Err(io::Error::other("the server is shutting down"));
            }
            let reason = reason.map(|reject| reject.label().to_owned());
            releases.push(Release { position: position.to_string(), outcome, reason });
        }
        Ok(releases)
    }

    async fn pass(&self, held: &HeldRequest) -> (Released, Option<Reject>) {
        let entered = self.connections.enter(held.peer_address());
        let passing = self.line.readmit(held, entered.connection());
        match runtime::timeout(WAIT_MAX, passing).await {
            None => (Released::Refused, Some(Reject::AckTimeout)),
            Some(Err(Readmit::Refused(reject))) => (Released::Refused, Some(reject)),
            Some(Err(Readmit::TooOld)) => (Released::TooOld, None),
            Some(Ok(Outcome::Accepted)) => (Released::Stored, None),
            Some(Ok(Outcome::Handshake)) => (Released::Handshake, None),
            Some(Ok(_)) => (Released::Known, None),
        }
    }
}

/// Why a request was not taken out of quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readmit {
    /// The line refused it.
    Refused(Reject),
    /// It arrived longer ago than its lane remembers events.
    TooOld,
}

impl std::convert::From<Reject> for Readmit {
    fn from(reject: Reject) -> Self {
        Self::Refused(reject)
    }
}

/// The request at a position.
fn find(log_dir: &Path, position: Position) -> Result<Option<HeldRequest>, ReadError> {
    let mut reader = Reader::open(log_dir)?;
    reader.seek(From::Position(position))?;
    let record = reader.next()?.filter(|record| record.position() == position);
    Ok(record.and_then(|record| HeldRequest::read(&record)))
}
