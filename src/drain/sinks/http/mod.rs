//! `http`: each event, or a batch of them, as a POST to one URL, signed by Standard Webhooks.
//!
//! At least once, with a name: `Idempotency-Key` and `webhook-id` are the event key, the same in
//! every attempt and from every forebay with the same `dedupe.key`, so that a receiver that keeps
//! them takes effect once. The name of a batch follows from its events, and a retry may hold fewer
//! of them: who needs to know every event again takes them one by one.
//!
//! Which answers are final stands in `answer`; which addresses are reached in `guard`.
//! Redirects are not followed: a redirected POST would carry its signature elsewhere.

mod answer;
pub(super) mod client;
pub mod guard;
mod request;
pub mod resend;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forebay_log::Clock;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, Uri};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use self::client::Client;
use self::request::Requests;
use super::{Destination, Kind, OpenError};
use crate::drain::sink::{Class, Delivered, Event, Failure, Nature, Sink};
use crate::verify::NamedSecret;

/// Requests that one batch may cost while the events that are refused in it are searched for:
/// enough to find one among any number, and an end where all are refused.
const REQUESTS_MAX: usize = 48;

/// What a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// One event, its payload as the body.
    One,
    /// Several, as a JSON array of payloads.
    Json,
    /// Several, as a batch of `CloudEvents` 1.0.
    CloudEvents,
}

/// What `[sink.http]` says.
#[derive(Clone)]
pub struct Settings {
    /// Where requests go; its path and query may be secret.
    pub url: Uri,
    /// What a request carries.
    pub batch: Batch,
    /// Whether `ce-` headers say what the event is, where a request carries one.
    pub attributes: bool,
    /// Each signs every request; none: requests are not signed.
    pub secrets: Vec<NamedSecret>,
    /// Sent with every request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whom the destination's certificate is trusted from; none: the system's authorities.
    pub authorities: Option<RootCertStore>,
    /// Whether addresses that are not public may be reached.
    pub allow_private: bool,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long a connection is kept for the next request.
    pub idle_timeout: Duration,
}

/// Without what may be secret.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("host", &self.url.host())
            .field("batch", &self.batch)
            .field("secrets", &self.secrets.len())
            .field("allow_private", &self.allow_private)
            .finish_non_exhaustive()
    }
}

/// The authorities of a file of PEM; the error says what is wrong with it.
pub fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("it holds no certificate".to_owned()) } else { Ok(roots) }
}

/// The sink.
#[derive(Debug)]
pub struct Http {
    settings: Settings,
    requests: Requests,
    client: Client,
}

impl Http {
    /// Prepares to send; connects to nothing yet.
    pub fn new(settings: &Settings) -> Result<Self, OpenError> {
        Self::with_clock(settings, Clock::System)
    }

    fn with_clock(settings: &Settings, clock: Clock) -> Result<Self, OpenError> {
        let client = Client::new(settings, clock.clone())?;
        let requests = Requests::new(settings, clock)?;
        Ok(Self { settings: settings.clone(), requests, client })
    }

    async fn post(&self, events: &[&Event]) -> Result<(), Failure> {
        self.client.send(self.requests.of(events)?).await
    }

    /// A request that is refused for good is halved until those events stand alone that are at
    /// fault. Any other failure ends the batch: what was not sent is not known to be at fault.
    async fn deliver_all(&self, batch: &[Event]) -> Delivered {
        let open = || Err(Failure::temporary("was not sent yet: others of its batch were refused"));
        let fitting: Vec<_> =
            batch.iter().map(|event| request::fits(self.settings.batch, event)).collect();
        let (places, events): (Vec<usize>, Vec<&Event>) = (batch.iter().enumerate())
            .filter(|(place, _)| fitting.get(*place).is_some_and(Result::is_ok))
            .unzip();
        let mut verdicts: Vec<Result<(), Failure>> =
            fitting.into_iter().map(|fits| fits.and_then(|()| open())).collect();
        let step = if self.settings.batch == Batch::One { 1 } else { events.len().max(1) };
        let mut parts: Vec<_> =
            (0..events.len()).step_by(step).rev().map(|from| from..from + step).collect();
        for _ in 0..REQUESTS_MAX.max(parts.len()) {
            let Some(part) = parts.pop() else { break };
            let Some(sent) = events.get(part.clone()) else { break };
            let verdict = self.post(sent).await;
            let class = verdict.as_ref().err().map(|failure| failure.class);
            let middle = part.start + part.len() / 2;
            if class == Some(Class::Permanent) && middle > part.start {
                parts.extend([middle..part.end, part.start..middle]);
                continue;
            }
            let ends = class.is_some_and(|class| class != Class::Permanent);
            let rest = if ends { part.start..events.len() } else { part };
            for place in places.get(rest).into_iter().flatten() {
                if let Some(kept) = verdicts.get_mut(*place) {
                    kept.clone_from(&verdict);
                }
            }
            if ends {
                break;
            }
        }
        Delivered::Each(verdicts)
    }
}

impl Kind for Settings {
    fn word(&self) -> &'static str {
        "http"
    }

    fn destination(&self) -> Destination {
        Destination::origin(&self.url)
    }

    fn open(&self, _name: &str, _timeout: Duration) -> Result<Arc<dyn Sink>, OpenError> {
        Ok(Arc::new(Http::new(self)?))
    }
}

impl Sink for Http {
    fn nature(&self) -> Nature {
        let events_max = if self.settings.batch == Batch::One { 1 } else { usize::MAX };
        Nature { events_max, ..Nature::PARALLEL }
    }

    fn deliver<'a>(&'a self, batch: &'a [Event]) -> BoxFuture<'a, Delivered> {
        self.deliver_all(batch).boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Failure>> {
        self.client.probe(self.settings.url.clone()).boxed()
    }
}
