//! The sources as receivers see them: found by path, each with its counters.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::Source;
use crate::observe::{Metrics, SourceCounters};

/// A source and what is counted of it.
#[derive(Debug)]
pub struct Route {
    /// The source.
    pub source: Source,
    /// Its counters, which outlive a reload.
    pub counters: Arc<SourceCounters>,
}

/// All sources of one load of the configuration; immutable.
#[derive(Debug)]
pub struct Routes {
    by_path: HashMap<String, Route>,
}

impl Routes {
    /// Routes to `sources`, whose paths the configuration has found distinct.
    pub fn new(sources: Vec<Source>, metrics: &Metrics) -> Self {
        let route = |source: Source| {
            let counters = metrics.source(&source.name);
            (source.path.clone(), Route { source, counters })
        };
        Self { by_path: sources.into_iter().map(route).collect() }
    }

    /// The route of a request's path.
    pub fn find(&self, path: &str) -> Option<&Route> {
        self.by_path.get(path)
    }
}
