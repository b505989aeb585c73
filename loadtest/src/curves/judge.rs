//! Whether a curve is what the design says it is.

use std::fmt;

use serde::Serialize;

use super::axis::{Axis, AxisName};
use crate::figures::Summary;

/// What the design says of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Expected {
    /// The ratio of the two servers stays where it is at the first point.
    Flat,
    /// Every byte costs the same: what the subject spends more than the reference grows over the
    /// last step of the axis as over the step before. What the kernel copies is in both.
    ByTheByte,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// As expected, within the margin.
    Holds,
    Rises,
    /// There was no time for all of its points.
    Missing,
}

/// One point: CPU of a request in microseconds, over all rounds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Point {
    pub(super) at: f64,
    pub(super) text: String,
    pub(super) subject_us: Summary,
    pub(super) reference_us: Summary,
    /// Of the two in the same round, and what the subject spends more.
    pub(super) ratio: Summary,
    added_us: Summary,
    /// Subject and reference.
    rounds: Vec<[f64; 2]>,
}

impl Point {
    pub(super) fn new(at: f64, text: String, rounds: Vec<[f64; 2]>) -> Self {
        let of = |part: fn(&[f64; 2]) -> f64| Summary::of(rounds.iter().map(part));
        let (subject_us, reference_us) = (of(|[subject, _]| *subject), of(|[_, other]| *other));
        let ratio = of(|[subject, reference]| subject / reference);
        let added_us = of(|[subject, reference]| subject - reference);
        Self { at, text, subject_us, reference_us, ratio, added_us, rounds }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, subject_us, reference_us, ratio, .. } = self;
        write!(
            f,
            "{text:>12}   {:8.2} us   {:8.2} us   ratio {:.3} ({:.3} to {:.3})",
            subject_us.median, reference_us.median, ratio.median, ratio.least, ratio.most
        )
    }
}

/// An axis with its points.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Curve {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) subject: &'static str,
    pub(super) reference: &'static str,
    pub(super) expected: Expected,
    pub(super) points: Vec<Point>,
    /// By how much it rises, as a share: the worst of its points.
    pub(super) growth: f64,
    pub(super) margin: f64,
    pub(super) verdict: Verdict,
    #[serde(skip)]
    pub(super) axis: AxisName,
}

impl Curve {
    /// Judges the points of an axis.
    pub(super) fn judge(axis: &Axis, points: Vec<Point>, margin: f64) -> Self {
        let growth = match axis.expected {
            Expected::Flat => growth(&points),
            Expected::ByTheByte => bend(&points),
        };
        let verdict = match growth {
            _ if points.len() < axis.values.len() => Verdict::Missing,
            growth if growth <= margin => Verdict::Holds,
            _ => Verdict::Rises,
        };
        let Axis { name, title, subject, reference, expected, .. } = *axis;
        let text = name.text();
        Self {
            name: text,
            title,
            subject,
            reference,
            expected,
            points,
            growth,
            margin,
            verdict,
            axis: name,
        }
    }

    /// The verdict in words.
    pub(super) fn told(&self) -> String {
        let (growth, margin) = (self.growth * 100.0, self.margin * 100.0);
        let what = match self.expected {
            Expected::Flat => "flat",
            Expected::ByTheByte => "in proportion to its bytes",
        };
        match self.verdict {
            Verdict::Holds => format!("{what}: {growth:+.1} % at most, {margin:.0} % allowed"),
            Verdict::Rises => format!("NOT {what}: {growth:+.1} %, {margin:.0} % allowed"),
            Verdict::Missing => format!(
                "NOT ALL MEASURED: {} points in the time there was; give it a longer --budget",
                self.points.len()
            ),
        }
    }
}

/// How far the ratio rises above that of the first point; no number where there is no second.
fn growth(points: &[Point]) -> f64 {
    let Some((first, rest)) = points.split_first() else { return f64::NAN };
    let most = rest.iter().map(|point| point.ratio.median).reduce(f64::max);
    most.map_or(f64::NAN, |most| most / first.ratio.median - 1.0)
}

/// How much dearer a byte is over the last step than over the one before.
fn bend(points: &[Point]) -> f64 {
    let slope =
        |from: &Point, to: &Point| (to.added_us.median - from.added_us.median) / (to.at - from.at);
    match points {
        [.., first, middle, last] => slope(middle, last) / slope(first, middle) - 1.0,
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(name: AxisName, costs: &[(f64, [f64; 2])]) -> Verdict {
        let axis = Axis { values: vec![0.0; costs.len()], ..Axis::of(name, 1, 1) };
        let point = |(at, us): &(f64, [f64; 2])| Point::new(*at, String::new(), vec![*us; 3]);
        Curve::judge(&axis, costs.iter().map(point).collect(), 0.15).verdict
    }

    #[test]
    fn a_curve_is_flat_where_the_ratio_is_whatever_the_machine_does_meanwhile() {
        // Twice as slow in the middle, both of them.
        let flat = [(0.0, [10.0, 10.0]), (1.0, [22.0, 20.0]), (2.0, [11.0, 10.0])];
        assert_eq!(verdict(AxisName::Window, &flat), Verdict::Holds);
        let rises = [(0.0, [10.0, 10.0]), (1.0, [12.0, 10.0]), (2.0, [10.0, 10.0])];
        assert_eq!(verdict(AxisName::Window, &rises), Verdict::Rises);
        assert_eq!(verdict(AxisName::Window, &flat[..1]), Verdict::Rises, "one point says nothing");
    }

    #[test]
    fn bytes_cost_the_same_each_or_the_curve_bends() {
        let costs = |last| [(1.0, [15.0, 0.0]), (4.0, [30.0, 0.0]), (16.0, [last, 0.0])];
        assert_eq!(verdict(AxisName::Body, &costs(90.0)), Verdict::Holds);
        assert_eq!(verdict(AxisName::Body, &costs(120.0)), Verdict::Rises);
    }

    #[test]
    fn points_that_were_not_reached_are_missed() {
        let axis = Axis::of(AxisName::Backlog, 1, 1);
        let point = Point::new(0.0, String::new(), vec![[1.0; 2]; 3]);
        assert_eq!(Curve::judge(&axis, vec![point], 0.15).verdict, Verdict::Missing);
    }
}
