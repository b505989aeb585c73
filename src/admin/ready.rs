//! Whether this machine should be sent webhooks: every lane is open and nobody is leaving.

use std::sync::atomic::Ordering;

use forebay_log::LaneState;
use serde::Serialize;

use super::State;

/// What keeps an open lane from its ack level.
const NOT_REPLICATED: &str =
    "the sink that it replicates to does not answer; the logs and `forebay_sink_circuit` tell more";

/// The body of `/readyz`.
#[derive(Debug, Serialize)]
pub(super) struct Readiness {
    /// Whether the answer is 200.
    pub(super) ready: bool,
    draining: bool,
    lanes: Vec<LaneReadiness>,
}

#[derive(Debug, Serialize)]
struct LaneReadiness {
    lane: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
}

impl Readiness {
    pub(super) fn of(state: &State) -> Self {
        let lanes: Vec<_> = state
            .metrics
            .lanes()
            .iter()
            .map(|lane| {
                let (label, why) = told(lane.read().state);
                let mut replicas = state.metrics.replicas().iter();
                let replica = replicas.find(|(name, _)| name == lane.name());
                let why = why.or(replica.filter(|(_, of)| of.away()).map(|_| NOT_REPLICATED));
                LaneReadiness { lane: lane.name().to_owned(), state: label, why }
            })
            .collect();
        // Relaxed: a lone flag.
        let draining = state.draining.load(Ordering::Relaxed);
        Self { ready: !draining && lanes.iter().all(|lane| lane.why.is_none()), draining, lanes }
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
