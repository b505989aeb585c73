//! What is told of lanes that replicate: how long it takes, and who waits for it.

use std::fmt;
use std::sync::Arc;

use prometheus_client::registry::Unit;

use super::page::{Name, Page};
use super::render::latency_of;
use crate::replica::Replica;

/// `forebay_lane_replication_seconds`
const TOOK: Name = Name(
    "forebay_lane_replication",
    "From an event's arrival until the sink that its lane replicates to has it.",
    Some(Unit::Seconds),
);
/// `forebay_lane_replication_waiting`
const WAITING: Name = Name(
    "forebay_lane_replication_waiting",
    "Requests whose acknowledgement waits for the sink that the lane replicates to.",
    None,
);

/// A lane's name, and its replica.
pub type ReplicaOf = (String, Arc<Replica>);

pub(super) fn replicas(page: &mut Page<'_>, replicas: &[ReplicaOf]) -> fmt::Result {
    let labels = |(lane, of): &ReplicaOf| [("lane", lane.clone()), ("sink", of.sink().to_owned())];
    let waiting = |of: &Replica| u64::try_from(of.waiting()).unwrap_or(u64::MAX);
    page.gauges(&WAITING, replicas.iter().map(|each| (labels(each), waiting(&each.1))))?;
    page.histograms(&TOOK, replicas.iter().map(|each| (labels(each), latency_of(each.1.latency()))))
}
