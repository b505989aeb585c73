//! A receiver's way into the quarantine.
//!
//! Called once a request's refusal is decided. Nothing here waits for a peer, a disk or a lock: a
//! request that does not fit is counted and forgotten.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::Write as _;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use forebay_log::{Appender, FieldTooLong, Key, Kind, MetaWriter, NewRecord, Tag};
use http::{HeaderName, header};
use hyper::body::Body;

use super::Quarantine;
use super::share::Fate;
use crate::append::CREDENTIAL_HEADERS;
use crate::config::Source;
use crate::limits::HEAD_BYTES_MAX;
use crate::receive::Received;
use crate::reject::Reject;

/// How often a body is looked for that has arrived with its head: hyper hands it over when it is
/// polled the next time.
const LOOKS: usize = 3;
/// What a header's name holds whose value may be a credential.
const CREDENTIAL_WORDS: [&str; 7] =
    ["auth", "token", "secret", "password", "credential", "session", "key"];

/// A request that was refused.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'r> {
    /// Why.
    pub reject: Reject,
    /// Its head, and when and from whom it came.
    pub received: &'r Received<'r>,
    /// The source that it was for.
    pub source: &'r Source,
}

/// One receiver's seat at the quarantine.
#[derive(Debug)]
pub struct Seat {
    shared: Arc<Quarantine>,
    appender: RefCell<Appender>,
    meta: RefCell<MetaWriter>,
}

impl Seat {
    pub(super) fn new(shared: Arc<Quarantine>, appender: Appender) -> Self {
        let meta = RefCell::new(MetaWriter::with_capacity(HEAD_BYTES_MAX));
        Self { shared, appender: RefCell::new(appender), meta }
    }

    /// Keeps a refused request whose body was read.
    pub fn keep(&self, refused: &Refused<'_>, body: &[u8]) {
        // Whatever happens in here must not cost more than this copy.
        let kept = Reject::guard(|| {
            if concerns(refused) {
                let share = self.has_share(refused, body.len() as u64);
                let fate = if share { self.append(refused, body) } else { Fate::OverShare };
                self.count(refused, fate);
            }
            Ok(())
        });
        debug_assert_eq!(kept, Ok(()));
    }

    /// Keeps a request that was refused by its head, if its body has arrived with it.
    pub async fn keep_arrived<B>(&self, refused: &Refused<'_>, body: &mut B)
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let headers = &refused.received.head.headers;
        // To ask for the body would make hyper ask the peer for it.
        if !concerns(refused) || headers.contains_key(header::EXPECT) {
            return;
        }
        let declared =
            body.size_hint().exact().filter(|bytes| *bytes <= refused.source.body_bytes_max);
        // What was read of it already, as for a handshake without a signature, is gone.
        let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        let declared =
            declared.filter(|bytes| length.is_some_and(|text| text == bytes.to_string()));
        let Some(declared) = declared else { return self.count(refused, Fate::Unread) };
        if !self.has_share(refused, declared) {
            return self.count(refused, Fate::OverShare);
        }
        let fate = match arrived(body, declared).await {
            Some(body) => self.append(refused, &body),
            None => Fate::Unread,
        };
        self.count(refused, fate);
    }

    fn count(&self, refused: &Refused<'_>, fate: Fate) {
        if let Some(share) = self.shared.share(&refused.source.name) {
            share.count(fate);
        }
    }

    fn has_share(&self, refused: &Refused<'_>, body_bytes: u64) -> bool {
        let Received { head, started, connection, .. } = refused.received;
        let Some(share) = self.shared.share(&refused.source.name) else { return false };
        let names = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 8);
        let bytes = body_bytes + names.sum::<usize>() as u64 + 256;
        let peer = connection.peer();
        let address = peer.rsplit_once(':').map_or(peer, |(address, _)| address);
        let [group, ..] = self.shared.fingerprinter.digest(address.as_bytes());
        share.take(self.shared.bounds(), self.shared.elapsed_ns(*started), bytes, group)
    }

    fn append(&self, refused: &Refused<'_>, body: &[u8]) -> Fate {
        let mut meta = self.meta.borrow_mut();
        meta.clear();
        if self.describe(&mut meta, refused).is_err() {
            return Fate::NoRoom;
        }
        // What was not verified names no event, so it has no key.
        let record = NewRecord {
            kind: Kind::Quarantine,
            key: Key([0; 16]),
            received_ns: refused.received.received_ns,
            meta: meta.as_bytes(),
            body,
        };
        match self.appender.borrow_mut().append(&record) {
            Ok(_) => Fate::Kept,
            Err(_) => Fate::NoRoom,
        }
    }

    fn describe(&self, meta: &mut MetaWriter, refused: &Refused<'_>) -> Result<(), FieldTooLong> {
        let Refused { reject, received, source } = refused;
        let head = &received.head;
        meta.field(Tag::Source, source.name.as_bytes())?;
        meta.field(Tag::Environment, source.environment.as_bytes())?;
        meta.field(Tag::Reason, reject.label().as_bytes())?;
        meta.field(Tag::Method, head.method.as_str().as_bytes())?;
        let target = source.shown_target(&head.uri);
        meta.field(Tag::Target, self.without_credentials(&target).as_bytes())?;
        meta.field(Tag::Peer, received.connection.peer().as_bytes())?;
        for (name, value) in &head.headers {
            let (key, bytes) = (name.as_str().as_bytes(), value.as_bytes());
            let verifier = &source.verifier;
            let free = may_be_credential(name) && !verifier.binds(name, value);
            if free || verifier.is_credential(name) {
                meta.header_digest(key, &self.shared.fingerprinter.digest(bytes))?;
            } else {
                meta.header(key, bytes)?;
            }
        }
        Ok(())
    }

    /// The target with the values of parameters that may be credentials as keyed digests.
    fn without_credentials<'t>(&self, target: &'t str) -> Cow<'t, str> {
        let Some((path, query)) = target.split_once('?') else { return Cow::Borrowed(target) };
        if !query.split('&').any(holds_credential_word) {
            return Cow::Borrowed(target);
        }
        let mut text = path.to_owned();
        for (index, pair) in query.split('&').enumerate() {
            text.push(if index == 0 { '?' } else { '&' });
            match pair.split_once('=') {
                Some((name, value)) if holds_credential_word(name) => {
                    // Writing to a String cannot fail.
                    _ = write!(text, "{name}=digest:");
                    for byte in self.shared.fingerprinter.digest(value.as_bytes()) {
                        _ = write!(text, "{byte:02x}");
                    }
                }
                _ => text.push_str(pair),
            }
        }
        Cow::Owned(text)
    }
}

/// Whether a request is refused for what an operator may mend; one that comes out of the
/// quarantine does not go back.
fn concerns(refused: &Refused<'_>) -> bool {
    refused.reject.quarantined() && refused.received.released.is_none()
}

/// Whether what stands under this name may open doors by itself.
fn may_be_credential(name: &HeaderName) -> bool {
    CREDENTIAL_HEADERS.contains(name) || holds_credential_word(name.as_str())
}

fn holds_credential_word(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    CREDENTIAL_WORDS.iter().any(|word| text.contains(word))
}

/// The whole of a body that is there already; nothing if any of it is still on its way.
async fn arrived<B>(body: &mut B, declared: u64) -> Option<Vec<u8>>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut whole = Vec::with_capacity(usize::try_from(declared).ok()?);
    let mut looks = 0;
    poll_fn(|cx| {
        loop {
            if body.is_end_stream() {
                return Poll::Ready(Some(()));
            }
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        whole.extend_from_slice(&data);
                    }
                }
                Poll::Ready(None) => return Poll::Ready(Some(())),
                Poll::Ready(Some(Err(_))) => return Poll::Ready(None),
                Poll::Pending => {
                    looks += 1;
                    if looks == LOOKS {
                        return Poll::Ready(None);
                    }
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    })
    .await?;
    (whole.len() as u64 == declared).then_some(whole)
}
