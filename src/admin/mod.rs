//! The admin listener: `/metrics`, `/healthz`, `/readyz`, `/secrets`, on a thread and a runtime of its own.
//!
//! It reads counters and lane states, takes no body and changes nothing; the receivers do not
//! know it. It belongs on a loopback or a private address: it asks nobody who they are.

mod ready;
mod secrets;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use forebay_log::Clock;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::sync::{Semaphore, oneshot};

pub use self::secrets::SecretTold;

use crate::observe::{CONTENT_TYPE, Metrics};
use crate::runtime::bind_cure;

/// From the first byte of a request, or the end of the last one, to the end of its head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Open at once; a scraper and a person need a few.
const CONNECTIONS_MAX: usize = 64;
/// Out of file descriptors, mostly: waiting is the only cure.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the answers are made from.
#[derive(Clone, Debug)]
pub struct State {
    /// Every counter, and the lanes.
    pub metrics: Arc<Metrics>,
    /// Set once the process has begun to shut down.
    pub draining: Arc<AtomicBool>,
}

/// Why the admin listener did not start.
#[derive(Debug, Error)]
pub enum AdminError {
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}; set `listen` under [admin] to {}", bind_cure(.source))]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No thread or no runtime.
    #[error("cannot start the thread of the admin listener")]
    Thread(#[source] io::Error),
}

/// The running listener. Dropping it ends it.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Listens; requests are answered when this returns.
    pub fn start(listen: SocketAddr, state: State) -> Result<Self, AdminError> {
        let (listener, address) =
            bind(listen).map_err(|source| AdminError::Listen { listen, source })?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(AdminError::Thread)?;
        let (stop, stopped) = oneshot::channel();
        let serve = async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            // Connections that are open when it stops end with the runtime: a scrape in flight
            // is not worth a wait.
            tokio::select! {
                never = serve(listener, router(state)) => match never {},
                _ = stopped => Ok::<(), io::Error>(()),
            }
        };
        let thread = thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || {
                if let Err(error) = runtime.block_on(serve) {
                    tracing::error!(%error, "the admin listener ended");
                }
            })
            .map_err(AdminError::Thread)?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens; the port that was picked where the configuration says 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        // Both fail only if the thread is gone already.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn bind(listen: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Serves until it is dropped; a connection may wait so long for the end of a request's head, and
/// for the next request.
async fn serve(listener: tokio::net::TcpListener, router: Router) -> Infallible {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let http = Arc::new(http);
    let open = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&open).acquire_owned().await else { continue };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin listener could not accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (http, service) = (Arc::clone(&http), TowerToHyperService::new(router.clone()));
        tokio::spawn(async move {
            let served = http.serve_connection(TokioIo::new(stream), service).await;
            if let Err(error) = served {
                tracing::debug!(%error, "an admin connection ended");
            }
            drop(permit);
        });
    }
}

fn router(state: State) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/secrets", get(secrets))
        .with_state(state)
}

async fn metrics(Shared(state): Shared<State>) -> Response {
    match state.metrics.render() {
        Ok(page) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn readyz(Shared(state): Shared<State>) -> Response {
    let readiness = ready::Readiness::of(&state);
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CONTENT_TYPE, "application/json")], readiness.to_json()).into_response()
}

async fn secrets(Shared(state): Shared<State>) -> Response {
    let told = secrets::told(&state, Clock::System.wall_ns());
    match serde_json::to_string(&told) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => {
            tracing::error!(%error, "the secrets cannot be listed");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests;
