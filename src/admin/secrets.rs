//! The body of `/secrets`: what may be told about every secret that is loaded, never its value.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::State;
use crate::observe::LoadedSecret;

/// What may be told about a secret. Moments are RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretTold {
    /// Its source.
    pub source: String,
    /// Its name.
    pub name: String,
    /// `mac`, `public-key` or `token`.
    pub kind: String,
    /// Since when it counts.
    pub not_before: Option<String>,
    /// Until when it counts.
    pub not_after: Option<String>,
    /// `live`, `expired` or `not yet`.
    pub state: String,
    /// Requests that it verified since the start.
    pub uses: u64,
    /// When it last did.
    pub last_used: Option<String>,
}

/// All secrets that are loaded, as they stand at a moment.
pub(super) fn told(state: &State, now_ns: u64) -> Vec<SecretTold> {
    state.metrics.secrets().iter().map(|secret| SecretTold::of(secret, now_ns)).collect()
}

impl SecretTold {
    fn of(secret: &LoadedSecret, now_ns: u64) -> Self {
        let LoadedSecret { source, name, kind, validity, counters } = secret;
        let state = if validity.holds(now_ns) {
            "live"
        } else if now_ns < validity.from_ns {
            "not yet"
        } else {
            "expired"
        };
        Self {
            source: source.clone(),
            name: name.clone(),
            kind: (*kind).to_owned(),
            not_before: Some(validity.from_ns).filter(|ns| *ns > 0).and_then(moment),
            not_after: Some(validity.until_ns).filter(|ns| *ns < u64::MAX).and_then(moment),
            state: state.to_owned(),
            uses: counters.uses(),
            last_used: counters.last_used_ns().and_then(moment),
        }
    }
}

fn moment(ns: u64) -> Option<String> {
    let at = Timestamp::from_nanosecond(i128::from(ns)).ok()?;
    Some(format!("{at:.3}"))
}
