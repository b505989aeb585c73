//! The requests that forebay makes itself: HTTPS, by a client that trusts what the machine trusts.
//!
//! Nothing here runs on a receiver's thread. A GET is one attempt: no redirect is followed, no
//! connection is kept, and what is read and how long it takes is bounded.

use std::error::Error;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::uri::Scheme;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::{self, ResponseFuture};
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};

use crate::config::OutgoingConfig;
use crate::limits::{OUTGOING_BODY_BYTES_MAX, OUTGOING_TIMEOUT};

/// Why a GET did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// The runtime cannot be had.
    #[error("cannot start: {0}")]
    Runtime(#[from] io::Error),
    /// No certificate is trusted, so none could be checked.
    #[error("this machine trusts no certificates; install them, or set `outgoing.ca_file`")]
    NoRoots,
    /// The address is not one of HTTPS.
    #[error("the address is not one of https")]
    NotHttps,
    /// The TLS of this build cannot be set up.
    #[error("cannot speak TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// It took too long.
    #[error("no answer within {} s", OUTGOING_TIMEOUT.as_secs())]
    Timeout,
    /// No connection, no TLS with a trusted certificate, or no HTTP.
    #[error("{0}")]
    Failed(String),
    /// An answer other than success; a redirect is one.
    #[error("answered {0}")]
    Status(StatusCode),
}

/// Makes requests, directly or through the configured proxy.
#[derive(Debug)]
pub struct Client(Way);

#[derive(Debug)]
enum Way {
    Direct(legacy::Client<HttpsConnector<HttpConnector>, Empty<Bytes>>),
    Proxy(legacy::Client<HttpsConnector<Tunnel<HttpConnector>>, Empty<Bytes>>),
}

impl Client {
    /// A client that trusts the machine's certificates and those of `outgoing.ca_file`.
    pub fn new(config: &OutgoingConfig) -> Result<Self, GetError> {
        let tls = tls(config)?;
        let mut tcp = HttpConnector::new();
        // The scheme is checked by `get`; to the proxy it is plain.
        tcp.enforce_http(false);
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1();
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder.pool_max_idle_per_host(0).retry_canceled_requests(false);
        Ok(Self(match &config.proxy {
            None => Way::Direct(builder.build(https.wrap_connector(tcp))),
            Some(proxy) => {
                let tunnel = Tunnel::new(proxy.clone(), tcp);
                Way::Proxy(builder.build(https.wrap_connector(tunnel)))
            }
        }))
    }

    /// One GET; only a 2xx whose body ends within its bounds is success.
    pub async fn get(&self, uri: &Uri) -> Result<(), GetError> {
        if uri.scheme() != Some(&Scheme::HTTPS) {
            return Err(GetError::NotHttps);
        }
        let asking = async {
            let response = self.ask(uri).await.map_err(|error| GetError::Failed(chain(&error)))?;
            let status = response.status();
            if !status.is_success() {
                return Err(GetError::Status(status));
            }
            let body = Limited::new(response.into_body(), OUTGOING_BODY_BYTES_MAX).collect().await;
            body.map(drop).map_err(|error| GetError::Failed(chain(&*error)))
        };
        tokio::time::timeout(OUTGOING_TIMEOUT, asking).await.unwrap_or(Err(GetError::Timeout))
    }

    fn ask(&self, uri: &Uri) -> ResponseFuture {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri.clone();
        match &self.0 {
            Way::Direct(client) => client.request(request),
            Way::Proxy(client) => client.request(request),
        }
    }
}

fn tls(config: &OutgoingConfig) -> Result<ClientConfig, GetError> {
    let mut roots = RootCertStore::empty();
    // What the store holds that is no certificate is the machine's affair.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots.add_parsable_certificates(config.ca.iter().cloned());
    if roots.is_empty() {
        return Err(GetError::NoRoots);
    }
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions()?;
    Ok(tls.with_root_certificates(roots).with_no_client_auth())
}

/// An error and its causes; none of the crates' errors holds an address or a header.
fn chain(error: &dyn Error) -> String {
    let mut told = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        told = format!("{told}: {cause}");
        next = cause.source();
    }
    told
}
