//! How far the ratio of two quantiles is known that were measured in turns.
//!
//! What is above a p99 is not so many requests by themselves: it comes in clumps, wherever the
//! machine stood still, and a few long clumps decide. A turn is much longer than a clump. So whole
//! blocks, a turn of everybody in each, are drawn again and again with replacement, as often as
//! there are, and the ratio is taken anew: a block bootstrap (Kuensch 1989), by percentiles. What a
//! block's minute did to everybody stays together. The draws are the same in each run.

use std::fmt;

use crate::figures::real;

/// Of so many values one is above a p50, or a p99.
pub(crate) const P50: u64 = 2;
pub(crate) const P99: u64 = 100;

/// How often is drawn.
const DRAWS: usize = 2000;
/// Of so many draws one is below the interval, and one above it: 95 % are within.
const OUTSIDE: usize = 40;
const SEED: u64 = 1989;

/// Latencies of one kind, and in which block each was measured.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Nanoseconds, how many, and block; the longest first.
    values: Vec<(u64, u64, usize)>,
    /// How many are in each block.
    counts: Vec<u64>,
}

impl Sample {
    /// Latencies, how many, and their blocks, of which there are `blocks`.
    pub(crate) fn of(values: impl IntoIterator<Item = (u64, u64, usize)>, blocks: usize) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_unstable_by(|left, right| right.cmp(left));
        let mut counts = vec![0; blocks];
        for (_, count, block) in &values {
            counts[*block] += count;
        }
        Self { values, counts }
    }

    /// The latency that one of `one_in` is above.
    pub(crate) fn quantile(&self, one_in: u64) -> f64 {
        self.drawn(one_in, &vec![1; self.counts.len()])
    }

    /// The same where each block is there so many times.
    fn drawn(&self, one_in: u64, times: &[u64]) -> f64 {
        let all: u64 = self.counts.iter().zip(times).map(|(count, times)| count * times).sum();
        let mut above = 0;
        let found = self.values.iter().find(|(_, count, block)| {
            above += count * times[*block];
            above > all / one_in
        });
        found.map_or(f64::NAN, |(latency, ..)| real(*latency))
    }
}

/// One quantile over the same of another, and the 95 % interval of that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ratio {
    pub(crate) value: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

/// Whether a ratio is below a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The whole interval is below the bound.
    Holds,
    /// The whole interval is above it.
    Broken,
    /// The bound is within.
    Unresolved,
}

impl Ratio {
    /// Of two samples with the same blocks.
    pub(crate) fn of(one: &Sample, other: &Sample, one_in: u64) -> Self {
        let blocks = one.counts.len();
        let mut random = fastrand::Rng::with_seed(SEED);
        let mut times = vec![0; blocks];
        let mut drawn: Vec<f64> = (0..DRAWS)
            .map(|_| {
                times.fill(0);
                for _ in 0..blocks {
                    times[random.usize(..blocks)] += 1;
                }
                one.drawn(one_in, &times) / other.drawn(one_in, &times)
            })
            .collect();
        drawn.sort_unstable_by(f64::total_cmp);
        let (least, most) = (drawn[DRAWS / OUTSIDE], drawn[DRAWS - 1 - DRAWS / OUTSIDE]);
        Self { value: one.quantile(one_in) / other.quantile(one_in), least, most }
    }

    /// Whether it is below `bound`. What is no number is neither below nor above.
    pub(crate) fn verdict(&self, bound: f64) -> Verdict {
        match self {
            Self { most, .. } if *most < bound => Verdict::Holds,
            Self { least, .. } if *least > bound => Verdict::Broken,
            _ => Verdict::Unresolved,
        }
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ({:.3} to {:.3})", self.value, self.least, self.most)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::figures::nanos;

    /// A turn of 500 requests of a server on a machine that now and then stands still for some
    /// milliseconds, in which 10 come: what is above the p99 are these.
    fn turn(random: &mut fastrand::Rng, factor: f64) -> Vec<u64> {
        let mut turn = Vec::new();
        let clumps = if random.f64() < 0.6 { random.usize(1..3) } else { 0 };
        for _ in 0..clumps {
            let still = 300.0 / random.f64().max(0.05);
            turn.extend((0..10).map(|place| 100.0 + still * f64::from(place) / 10.0));
        }
        turn.resize_with(500, || 80.0 - 30.0 * random.f64().max(1e-9).ln());
        turn.into_iter().map(|us| nanos(Duration::from_secs_f64(us * factor / 1e6))).collect()
    }

    /// Samples of a server and of another that is slower by `factor`, on one machine.
    fn both(seed: u64, blocks: usize, factor: f64) -> [Sample; 2] {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut values = [Vec::new(), Vec::new()];
        for block in 0..blocks {
            // What the machine does meanwhile it does to both.
            let pace = 0.5 + random.f64();
            for (values, factor) in values.iter_mut().zip([factor, 1.0]) {
                let turn = turn(&mut random, factor * pace);
                values.extend(turn.into_iter().map(|latency| (latency, 1, block)));
            }
        }
        values.map(|values| Sample::of(values, blocks))
    }

    #[test]
    fn a_quantile_is_that_of_all_blocks_together() {
        let values = (1..=100_u64).map(|value| (value, 1, usize::from(value % 2 == 1)));
        let sample = Sample::of(values, 2);
        let near = |found: f64, wanted: f64| (found - wanted).abs() < 1e-9;
        assert!(near(sample.quantile(P99), 99.0) && near(sample.quantile(P50), 50.0));
        // The even ones alone, twice: of a hundred the second largest is as large as the largest.
        assert!(near(sample.drawn(P99, &[2, 0]), 100.0) && near(sample.drawn(P50, &[2, 0]), 50.0));
        assert!(Sample::of([], 1).quantile(P99).is_nan());
    }

    #[test]
    fn the_interval_of_two_equal_servers_holds_one_about_as_often_as_it_says() {
        let holds = (0..100).filter(|seed| {
            let [one, other] = both(*seed, 60, 1.0);
            let ratio = Ratio::of(&one, &other, P99);
            ratio.least <= 1.0 && 1.0 <= ratio.most
        });
        let holds = holds.count();
        assert!((90..=99).contains(&holds), "{holds} of 100, where 95 are to be expected");
    }

    /// What runs of so many blocks say of a server that is slower by `factor`: how many of ten
    /// that a bound of 1.1 times holds, and how many that it is broken.
    fn said(blocks: usize, factor: f64) -> [usize; 2] {
        let verdicts: Vec<Verdict> = (0..10)
            .map(|seed| {
                let [dead, none] = both(seed, blocks, factor);
                Ratio::of(&dead, &none, P99).verdict(1.1)
            })
            .collect();
        [Verdict::Holds, Verdict::Broken]
            .map(|which| verdicts.iter().filter(|verdict| **verdict == which).count())
    }

    #[test]
    fn a_long_run_says_whether_a_bound_holds() {
        assert_eq!(said(400, 0.9), [10, 0]);
        assert_eq!(said(400, 1.4), [0, 10]);
    }

    #[test]
    fn a_short_run_says_nothing_rather_than_something_wrong() {
        let ([holds, broken], [_, none]) = (said(20, 1.4), said(20, 0.9));
        assert!(holds == 0 && none == 0 && broken <= 5, "{holds}, {none}, {broken}");
    }

    #[test]
    fn nothing_measured_is_no_verdict() {
        let nothing = Sample::of([], 1);
        assert_eq!(Ratio::of(&nothing, &nothing, P99).verdict(1.1), Verdict::Unresolved);
    }
}
