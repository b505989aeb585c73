//! The sources as receivers see them: found by path, each with its counters.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::Source;
use crate::dedupe::Fingerprinter;
use crate::observe::{LoadedSecret, Metrics, SecretCounters, SourceCounters};
use crate::verify::SecretIndex;

/// A source and what is counted of it.
#[derive(Debug)]
pub struct Route {
    /// The source.
    pub source: Source,
    /// Its counters, which outlive a reload.
    pub counters: Arc<SourceCounters>,
    /// Those of its secrets, in their order.
    secrets: Vec<Arc<SecretCounters>>,
}

impl Route {
    /// A secret of the source matched a request.
    pub fn matched(&self, secret: SecretIndex, receiver: usize, now_ns: u64) {
        if let Some(counters) = self.secrets.get(secret.as_usize()) {
            counters.matched(receiver, now_ns);
        }
    }
}

/// All sources of one load of the configuration; immutable.
///
/// Paths are found by a keyed digest and never compared themselves: a path may hold a token, and
/// how long a comparison takes would tell how much of a guess was right.
#[derive(Debug)]
pub struct Routes {
    key: Fingerprinter,
    /// A digest is as good as a hash, so a tree of numbers finds a path without hashing again.
    by_path: BTreeMap<u128, Route>,
}

impl Routes {
    /// Routes to `sources`, whose paths the configuration has found distinct.
    pub fn new(sources: Vec<Source>, metrics: &Metrics, key: Fingerprinter) -> Self {
        let mut loaded = Vec::new();
        let route = |source: Source| {
            let counters = metrics.source(&source.name);
            let secrets = loaded_secrets(&source, metrics);
            let counted = secrets.iter().map(|secret| Arc::clone(&secret.counters)).collect();
            loaded.extend(secrets);
            (digest_of(&key, &source.expanded_path()), Route { source, counters, secrets: counted })
        };
        let by_path = sources.into_iter().map(route).collect();
        metrics.secrets_loaded(loaded);
        Self { key, by_path }
    }

    /// The route of a request's path.
    pub fn find(&self, path: &str) -> Option<&Route> {
        self.by_path.get(&digest_of(&self.key, path))
    }

    /// The route to the source whose path is shown so: with a place for its token.
    pub fn find_shown(&self, path: &str) -> Option<&Route> {
        self.by_path.values().find(|route| route.source.path == path)
    }
}

fn digest_of(key: &Fingerprinter, path: &str) -> u128 {
    u128::from_le_bytes(key.digest(path.as_bytes()))
}

fn loaded_secrets(source: &Source, metrics: &Metrics) -> Vec<LoadedSecret> {
    let kinds = source.verifier.secret_kinds();
    let loaded = source.secrets.iter().zip(kinds).map(|(secret, kind)| LoadedSecret {
        source: source.name.clone(),
        name: secret.name.clone(),
        kind,
        validity: secret.validity,
        counters: metrics.secret(&source.name, &secret.name),
    });
    loaded.collect()
}
