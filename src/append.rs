//! Unique -> Appended: the request's bytes and what is known of it become a record of its lane.
//!
//! Nothing here waits, and nothing allocates once the receiver is warm.

use std::cell::RefCell;

use forebay_log::{AppendError, Appender, FieldTooLong, Key, Kind, MetaWriter, NewRecord, Tag};
use http::header;

use crate::dedupe::{Duplicate, Fingerprinter, Unique};
use crate::identify::Identified;
use crate::limits::HEAD_BYTES_MAX;
use crate::reject::Reject;

/// Headers whose value opens doors by itself: kept as a keyed digest, unless the source's scheme
/// is what they carry.
pub(crate) const CREDENTIAL_HEADERS: [header::HeaderName; 3] =
    [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE];

/// Whether a name is as long as one of [`CREDENTIAL_HEADERS`]: few headers of a request have to be
/// compared with them.
fn may_open_doors(name: &str) -> bool {
    matches!(name.len(), 6 | 13 | 19)
}

/// An event in the log, not yet acknowledged; or several of one request, or where one is among them.
#[derive(Debug)]
pub struct Appended {
    first: u64,
    end: u64,
}

impl Appended {
    /// An event that ends here.
    pub(crate) fn at(end: u64) -> Self {
        Self { first: end, end }
    }

    /// An event that ends at one of these offsets or between them.
    pub(crate) fn between(first: u64, end: u64) -> Self {
        Self { first, end }
    }

    /// The offset that the lane's `acked` must reach.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Where the first of several events ends; of one alone it is [`Appended::end`], if that is known.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Of two events of one request the one that is safe last.
    #[must_use]
    pub fn or_later(self, other: Self) -> Self {
        if other.end > self.end { other } else { self }
    }

    /// Both events, and what lies between them.
    #[must_use]
    pub fn and(self, other: &Self) -> Self {
        Self { first: self.first.min(other.first), end: self.end.max(other.end) }
    }
}

/// A receiver's way into one lane's log.
#[derive(Debug)]
pub struct Writer {
    appender: RefCell<Appender>,
    meta: RefCell<MetaWriter>,
    fingerprinter: Fingerprinter,
}

impl Writer {
    /// A writer of one receiver.
    pub fn new(appender: Appender, fingerprinter: Fingerprinter) -> Self {
        let meta = RefCell::new(MetaWriter::with_capacity(HEAD_BYTES_MAX));
        Self { appender: RefCell::new(appender), meta, fingerprinter }
    }

    /// Appends an event. If the log refuses, its key is free again.
    pub fn append(&self, unique: Unique<'_>) -> Result<Appended, AppendError> {
        let keys = (unique.key(), unique.signed_key());
        let end = self.record(Kind::Event, keys, unique.identified())?;
        unique.appended(end);
        Ok(Appended::at(end))
    }

    /// Leaves a small record of one more delivery, so that attempts can be counted. The sender
    /// is acknowledged for the event, which is stored; that this note may be lost is accepted.
    pub fn note(&self, duplicate: Duplicate<'_>) -> Appended {
        // A request out of quarantine is no attempt of the sender.
        if duplicate.identified.verified().admitted().received().released.is_some() {
            return duplicate.twin;
        }
        let keys = (duplicate.key, duplicate.signed_key);
        let noted = self.record(Kind::Delivery, keys, duplicate.identified);
        if let Err(error) = noted {
            tracing::debug!(%error, "a repeated delivery was not noted");
        }
        duplicate.twin
    }

    /// A record under the key of its event and, where it has one, that of its signed bytes.
    fn record(
        &self,
        kind: Kind,
        (key, signed_key): (Key, Option<Key>),
        identified: &Identified<'_>,
    ) -> Result<u64, AppendError> {
        let mut meta = self.meta.borrow_mut();
        meta.clear();
        let body = if kind == Kind::Event { identified.body() } else { &[] };
        // A head is far smaller than the longest field, so the error is never seen.
        let bytes_max = HEAD_BYTES_MAX as u64;
        self.describe(&mut meta, signed_key, identified)
            .map_err(|_: FieldTooLong| AppendError::TooLarge { bytes: bytes_max + 1, bytes_max })?;
        let received_ns = identified.verified().admitted().received().received_ns;
        let record = NewRecord { kind, key, received_ns, meta: meta.as_bytes(), body };
        let appended = self.appender.borrow_mut().append(&record)?;
        Ok(appended.end)
    }

    fn describe(
        &self,
        meta: &mut MetaWriter,
        signed_key: Option<Key>,
        identified: &Identified<'_>,
    ) -> Result<(), FieldTooLong> {
        if let Some(key) = signed_key {
            // In front of all others, or no start finds it.
            meta.field(Tag::SignedKey, &key.0)?;
        }
        let verified = identified.verified();
        let admitted = verified.admitted();
        let source = admitted.source();
        let identity = identified.identity();
        let received = admitted.received();
        let head = &received.head;
        meta.field(Tag::Source, source.name.as_bytes())?;
        meta.field(Tag::Environment, source.environment.as_bytes())?;
        let known = [
            (Tag::Tenant, identified.tenant()),
            (Tag::EventId, identity.event_id.as_deref()),
            (Tag::EventType, identity.event_type.as_deref()),
            (Tag::EventTime, identity.event_time.as_deref()),
        ];
        for (tag, value) in known {
            if let Some(value) = value {
                meta.field(tag, value.as_bytes())?;
            }
        }
        if identified.suspect_replay() {
            meta.field(Tag::SuspectReplay, b"")?;
        }
        meta.field(Tag::Secret, verified.secret_name().as_bytes())?;
        meta.field(Tag::Method, head.method.as_str().as_bytes())?;
        meta.field(Tag::Target, source.shown_target(&head.uri).as_bytes())?;
        meta.field(Tag::Peer, received.connection.peer().as_bytes())?;
        if let Some(released) = &received.released {
            meta.field(Tag::Quarantined, released.position.to_string().as_bytes())?;
            meta.field(Tag::FirstReceived, released.received_ns.to_string().as_bytes())?;
        }
        for (name, value) in &head.headers {
            let (text, value) = (name.as_str(), value.as_bytes());
            let credential = source.verifier.is_credential(name)
                || may_open_doors(text)
                    && CREDENTIAL_HEADERS.contains(name)
                    && !source.verifier.reads(name);
            if credential {
                meta.header_digest(text.as_bytes(), &self.fingerprinter.digest(value))?;
            } else {
                meta.header(text.as_bytes(), value)?;
            }
        }
        Ok(())
    }
}

impl From<AppendError> for Reject {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Full => Self::LogFull,
            AppendError::TooLarge { .. } => Self::BodyTooLarge,
            AppendError::Closed => Self::Draining,
            AppendError::Failed => Self::LogFailed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_of_a_credential_is_passed_over() {
        for name in &CREDENTIAL_HEADERS {
            assert!(may_open_doors(name.as_str()), "{name}");
        }
    }
}
