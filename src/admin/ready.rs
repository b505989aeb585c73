//! Whether this machine should be sent webhooks: every lane is open and nobody is leaving.
//!
//! A sink that has stopped for good is told, and is a reason for nobody to send elsewhere: what it
//! has not taken is kept. Only a lane that replicates to it cannot keep its word.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use forebay_log::LaneState;
use serde::Serialize;

use super::State;
use crate::replica::Replica;

/// What keeps an open lane from its ack level.
const NOT_REPLICATED: &str =
    "the sink that it replicates to does not answer; the logs and `forebay_sink_circuit` tell more";

/// Why a sink brings nothing any more.
const STOPPED: &str =
    "it has stopped by a bug; what it has not taken stays in the log, and a restart brings it";

/// The body of `/readyz`.
#[derive(Debug, Serialize)]
pub(super) struct Readiness {
    /// Whether the answer is 200.
    pub(super) ready: bool,
    draining: bool,
    lanes: Vec<LaneReadiness>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sinks: Vec<StoppedSink>,
}

#[derive(Debug, Serialize)]
struct LaneReadiness {
    lane: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct StoppedSink {
    sink: String,
    why: &'static str,
}

impl Readiness {
    pub(super) fn of(state: &State) -> Self {
        let stopped = state.metrics.stopped_sinks();
        let lanes: Vec<_> = state
            .metrics
            .lanes()
            .iter()
            .map(|lane| {
                let (label, why) = told(lane.read().state);
                let mut replicas = state.metrics.replicas().iter();
                let replica = replicas.find(|(name, _)| name == lane.name());
                let replica = replica.map(|(_, of)| of);
                let in_vain =
                    |of: &&Arc<Replica>| of.away() || stopped.iter().any(|sink| sink == of.sink());
                let why = why.or(replica.filter(in_vain).map(|_| NOT_REPLICATED));
                LaneReadiness { lane: lane.name().to_owned(), state: label, why }
            })
            .collect();
        // Relaxed: a lone flag.
        let draining = state.draining.load(Ordering::Relaxed);
        let ready = !draining && lanes.iter().all(|lane| lane.why.is_none());
        let sinks = stopped.into_iter().map(|sink| StoppedSink { sink, why: STOPPED }).collect();
        Self { ready, draining, lanes, sinks }
    }

    pub(super) fn to_json(&self) -> String {
        // Booleans and strings: nothing in it can fail.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

/// The name of a state and why it is not ready.
fn told(state: LaneState) -> (&'static str, Option<&'static str>) {
    match state {
        LaneState::Open => ("open", None),
        LaneState::Full => {
            ("full", Some("the disk is at its low-water mark; free space or shorten the retention"))
        }
        LaneState::Failed => {
            ("failed", Some("its disk or its keeper failed; the logs name the file and the cure"))
        }
        LaneState::Closed => ("closed", Some("the lane was closed")),
    }
}
