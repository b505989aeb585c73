//! The admin listener: `/metrics`, `/healthz`, `/readyz`, `/secrets`, on a thread and a runtime of its own.
//!
//! It reads counters and lane states, takes no body and changes nothing; the receivers do not
//! know it. It belongs on a loopback or a private address: it asks nobody who they are.

mod ready;
mod secrets;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{self, JoinHandle};

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use forebay_log::Clock;
use thiserror::Error;
use tokio::sync::oneshot;

pub use self::secrets::SecretTold;

use crate::observe::{CONTENT_TYPE, Metrics};

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
    #[error("cannot listen on {listen}; set `listen` under [admin] to an address that is free")]
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
                served = axum::serve(listener, router(state)) => served,
                _ = stopped => Ok(()),
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
