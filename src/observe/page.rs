//! How families of metrics are written onto the page of a scrape.

use std::fmt;

use forebay_log::Durations;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, MetricEncoder,
    NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::Latency;

/// A metric: name, what it counts, unit.
pub(super) struct Name(pub(super) &'static str, pub(super) &'static str, pub(super) Option<Unit>);

/// Bounds and counts, ready to be written.
#[derive(Default)]
pub(super) struct Histogram {
    buckets: Vec<(f64, u64)>,
    seconds: f64,
}

impl Histogram {
    pub(super) fn add(&mut self, latency: &Latency) {
        self.seconds += latency.sum().as_secs_f64();
        for (index, (bound, count)) in latency.read().enumerate() {
            let seconds = bound.map_or(f64::INFINITY, seconds_of);
            match self.buckets.get_mut(index) {
                Some(bucket) => bucket.1 += count,
                None => self.buckets.push((seconds, count)),
            }
        }
    }

    fn encode(&self, mut series: MetricEncoder<'_>) -> fmt::Result {
        let count = self.buckets.iter().map(|(_, count)| count).sum();
        series.encode_histogram::<NoLabelSet>(self.seconds, count, &self.buckets, None)
    }
}

/// The log's durations by doublings from 1 microsecond to 34 s. The log leaves empty buckets
/// out; a series must not, or its rate has no beginning.
pub(super) fn doublings(durations: &Durations) -> Histogram {
    let bounds = (10..=35).map(|bits| 1_u64 << bits);
    let mut buckets: Vec<_> = bounds.clone().map(|bound| (seconds_of(bound), 0)).collect();
    buckets.push((f64::INFINITY, 0));
    for (longest_ns, count) in &durations.buckets {
        let index = bounds.clone().take_while(|bound| bound < longest_ns).count();
        if let Some(bucket) = buckets.get_mut(index) {
            bucket.1 += count;
        }
    }
    Histogram { buckets, seconds: durations.sum.as_secs_f64() }
}

pub(super) fn seconds_of(ns: u64) -> f64 {
    std::time::Duration::from_nanos(ns).as_secs_f64()
}

/// One family after the other.
pub(super) struct Page<'a>(pub(super) DescriptorEncoder<'a>);

impl Page<'_> {
    pub(super) fn counters<L: EncodeLabelSet, V: EncodeCounterValue>(
        &mut self,
        Name(name, help, unit): &Name,
        rows: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut family =
            self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        for (labels, value) in rows {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
        }
        Ok(())
    }

    pub(super) fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        Name(name, help, unit): &Name,
        rows: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        for (labels, value) in rows {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    pub(super) fn histograms<L: EncodeLabelSet>(
        &mut self,
        Name(name, help, unit): &Name,
        rows: impl IntoIterator<Item = (L, Histogram)>,
    ) -> fmt::Result {
        let mut family =
            self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Histogram)?;
        for (labels, histogram) in rows {
            histogram.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// A family of one, without labels.
    pub(super) fn histogram(
        &mut self,
        Name(name, help, unit): &Name,
        histogram: &Histogram,
    ) -> fmt::Result {
        let family = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Histogram)?;
        histogram.encode(family)
    }

    pub(super) fn info(
        &mut self,
        Name(name, help, unit): &Name,
        labels: &impl EncodeLabelSet,
    ) -> fmt::Result {
        self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Info)?.encode_info(labels)
    }
}
