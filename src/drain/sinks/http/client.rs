//! The connections to one destination: resolved under guard, over TLS or not, kept for reuse.
//!
//! A kept connection may be closed by the peer at the moment it is used. What was not written yet
//! is sent again by the client itself; what may have arrived is a temporary failure, and the retry
//! is known by its `Idempotency-Key`. Connections are given up before most servers do so, see
//! `idle_timeout`.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_log::Clock;
use http::{Method, Request, StatusCode, Uri, response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client as Pool};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

use super::Settings;
use super::answer;
use super::guard::{self, Guarded, ResolveError};
use crate::drain::sink::{Class, Failure};
use crate::drain::sinks::OpenError;

/// So much of an answer is read, so that its connection can be used again; of more the rest is
/// not waited for.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// So long an answer's body is waited for; its status has already said what counts.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(1);

/// Sends requests.
#[derive(Clone, Debug)]
pub(in crate::drain::sinks) struct Client {
    pool: Pool<HttpsConnector<HttpConnector<Guarded>>, Full<Bytes>>,
    clock: Clock,
}

/// How a destination is reached, whatever is said to it.
#[derive(Clone, Copy, Debug)]
pub(in crate::drain::sinks) struct Reach<'s> {
    /// Where it is; of the path nothing counts.
    pub(in crate::drain::sinks) url: &'s Uri,
    /// Whom its certificate is trusted from; none: the system's authorities.
    pub(in crate::drain::sinks) authorities: Option<&'s RootCertStore>,
    /// Whether addresses that are not public may be reached.
    pub(in crate::drain::sinks) allow_private: bool,
    /// How long a connection may take to be made.
    pub(in crate::drain::sinks) connect_timeout: Duration,
    /// How long a connection is kept for the next request.
    pub(in crate::drain::sinks) idle_timeout: Duration,
}

impl Client {
    pub(super) fn new(settings: &Settings, clock: Clock) -> Result<Self, OpenError> {
        let reach = Reach {
            url: &settings.url,
            authorities: settings.authorities.as_ref(),
            allow_private: settings.allow_private,
            connect_timeout: settings.connect_timeout,
            idle_timeout: settings.idle_timeout,
        };
        Self::reaching(&reach, clock)
    }

    /// Connects to nothing yet.
    pub(in crate::drain::sinks) fn reaching(
        reach: &Reach<'_>,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        let host = reach.url.host().unwrap_or_default();
        if !reach.allow_private && guard::literal(host).is_some_and(|ip| !guard::is_public(ip)) {
            let text = format!("{host} is a private address, which `allow_private` would allow");
            return Err(OpenError(text));
        }
        let mut connector = HttpConnector::new_with_resolver(Guarded::new(reach.allow_private));
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(reach.connect_timeout));
        connector.set_keepalive(Some(Duration::from_secs(30)));
        let connector = tls(reach)?.https_or_http().enable_http1().wrap_connector(connector);
        let pool = Pool::builder(TokioExecutor::new())
            .pool_idle_timeout(reach.idle_timeout)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Self { pool, clock })
    }

    /// Sends a request and reads all of its answer, of so many bytes at the most.
    #[cfg(any(feature = "sink-pubsub", feature = "sink-sqs"))]
    pub(in crate::drain::sinks) async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        bytes_max: usize,
    ) -> Result<http::Response<Bytes>, Failure> {
        let answer = self.pool.request(request).await.map_err(|error| failure_of(&error))?;
        let (head, body) = answer.into_parts();
        match http_body_util::Limited::new(body, bytes_max).collect().await {
            Ok(body) => Ok(http::Response::from_parts(head, body.to_bytes())),
            Err(error) => Err(Failure::temporary(format!("the answer broke off: {error}"))),
        }
    }

    /// When the destination wants to be asked again, as its answer says.
    #[cfg(any(feature = "sink-pubsub", feature = "sink-sqs"))]
    pub(in crate::drain::sinks) fn retry_after(
        &self,
        headers: &http::HeaderMap,
    ) -> Option<Duration> {
        answer::retry_after(headers, &self.clock)
    }

    /// Sends a request and reads what its answer means.
    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Result<(), Failure> {
        let head = self.ask(request).await?;
        answer::verdict(head.status, &head.headers, &self.clock)
    }

    /// Any answer shows that somebody is there; what it thinks of the method does not matter,
    /// unless it says that it can take nothing.
    pub(super) async fn probe(&self, url: Uri) -> Result<(), Failure> {
        let mut request = Request::new(Full::default());
        *request.method_mut() = Method::HEAD;
        *request.uri_mut() = url;
        let head = self.ask(request).await?;
        let verdict = answer::verdict(head.status, &head.headers, &self.clock);
        let busy = head.status.is_server_error() || head.status == StatusCode::TOO_MANY_REQUESTS;
        if busy && head.status != StatusCode::NOT_IMPLEMENTED { verdict } else { Ok(()) }
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> Result<response::Parts, Failure> {
        let answer = self.pool.request(request).await.map_err(|error| failure_of(&error))?;
        let (head, body) = answer.into_parts();
        // Whether the body ends in time decides over the connection alone.
        _ = tokio::time::timeout(ANSWER_WAIT_MAX, read_to_end(body)).await;
        Ok(head)
    }
}

type Builder = HttpsConnectorBuilder<hyper_rustls::builderstates::WantsSchemes>;

/// Whom to trust: the authorities of the destination's own file, or those of the system.
fn tls(reach: &Reach<'_>) -> Result<Builder, OpenError> {
    let provider = Arc::new(ring::default_provider());
    let encrypted = reach.url.scheme() == Some(&http::uri::Scheme::HTTPS);
    if encrypted && reach.authorities.is_none() {
        return HttpsConnectorBuilder::new().with_provider_and_native_roots(provider).map_err(
            |error| {
                OpenError(format!("the system's authorities cannot be read ({error}); set ca_file"))
            },
        );
    }
    let roots = reach.authorities.cloned().unwrap_or_else(RootCertStore::empty);
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| OpenError(format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(HttpsConnectorBuilder::new().with_tls_config(config))
}

async fn read_to_end(mut body: Incoming) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > ANSWER_BYTES_MAX {
            return;
        }
    }
}

/// A request without an answer. The texts name no path and no query, which may be secrets.
fn failure_of(error: &legacy::Error) -> Failure {
    let mut cause: &(dyn Error + 'static) = error;
    while let Some(next) = behind(cause) {
        cause = next;
        if let Some(ResolveError::Private) = cause.downcast_ref() {
            return Failure::new(Class::Misconfigured, cause.to_string());
        }
        if let Some(error) = cause.downcast_ref() {
            return tls_failure(error);
        }
    }
    let doing = if error.is_connect() { "cannot connect" } else { "no answer" };
    Failure::temporary(format!("{doing}: {cause}"))
}

/// The cause of an error. One of input and output names as its source what is behind its cause.
fn behind<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

/// A certificate that is not trusted stays so until a person acts.
fn tls_failure(error: &rustls::Error) -> Failure {
    let class = match error {
        rustls::Error::InvalidCertificate(_) => Class::Misconfigured,
        _ => Class::Temporary,
    };
    Failure::new(class, format!("TLS failed: {error}"))
}
