//! A picture of each curve: what both servers spend on a request, from the first point to the last.

use std::fs;
use std::io;
use std::path::Path;

use super::axis::AxisName;
use super::judge::{Curve, Point};
use crate::plot::{self, Axis, Line, Plot};

/// Writes them into a folder, each by its name.
pub(super) fn write(dir: &Path, curves: &[Curve]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for curve in curves {
        let path = dir.join(format!("{}.svg", curve.name));
        fs::write(&path, picture(curve))
            .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
    }
    Ok(())
}

fn picture(curve: &Curve) -> String {
    let title = format!(
        "CPU of a request by {}: {}, and {} (dashed)",
        curve.title, curve.subject, curve.reference
    );
    plot::stacked(&[(&title, plot(curve))])
}

fn plot(curve: &Curve) -> Plot {
    let points = &curve.points;
    let micros = |us: f64| format!("{us:.0} us");
    let values = || points.iter().flat_map(|of| [of.subject_us.median, of.reference_us.median]);
    let most = values().fold(0.0, f64::max);
    // Where an axis begins with nothing it has no powers.
    let last = points.last().map_or(1.0, |point| point.at);
    let (x, y) = match curve.axis {
        AxisName::Body => (
            Axis::powers(256.0, last, |at| format!("{at:.0}")),
            Axis::powers(values().fold(most, f64::min), most, micros),
        ),
        AxisName::Connections => {
            (Axis::powers(1.0, last, |at| format!("{at:.0}")), Axis::linear(most, micros))
        }
        AxisName::Window | AxisName::Backlog | AxisName::Control => {
            (Axis::linear(last, |_| String::new()), Axis::linear(most, micros))
        }
    };
    // The points themselves are the ticks: nothing was measured between them.
    let ticks = points.iter().map(|point| (point.at, point.text.clone())).collect();
    let line = |name, class, of: fn(&Point) -> f64| {
        let points = points.iter().map(|point| (point.at, of(point))).collect();
        Line { name, class, points, filled: false }
    };
    Plot {
        x: Axis { ticks, ..x },
        y,
        lines: vec![
            line(curve.subject, "c0", |of| of.subject_us.median),
            line(curve.reference, "c1", |of| of.reference_us.median),
        ],
        marks: Vec::new(),
        x_name: curve.title,
    }
}
