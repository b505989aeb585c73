//! Line plots as SVG, drawn here, so that a page needs nothing but itself. Colours are classes,
//! which the page fills in for light and for dark, as a picture that stands alone does itself.

use std::fmt::Write as _;

use crate::figures::real;

/// The area of a plot and the margins around its axes, in units of the picture.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 40.0;
/// Height of one plot in a picture of several, its title included.
const PANEL: f64 = HEIGHT + 30.0;

/// How a value becomes a place on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    /// By powers of ten.
    Powers,
}

/// One axis.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) scale: Scale,
    pub(crate) from: f64,
    pub(crate) to: f64,
    /// Where there is a line, and what stands beside it.
    pub(crate) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From nothing to the largest value, with even ticks.
    pub(crate) fn linear(most: f64, text: impl Fn(f64) -> String) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let step = step(most / 5.0);
        let count = (most / step).ceil().max(1.0);
        let mut ticks = Vec::new();
        let mut at = 0.0;
        while at <= step * (count + 0.5) {
            ticks.push((at, text(at)));
            at += step;
        }
        Self { scale: Scale::Linear, from: 0.0, to: step * count, ticks }
    }

    /// Powers of ten from below the least value to above the largest.
    pub(crate) fn powers(least: f64, most: f64, text: impl Fn(f64) -> String) -> Self {
        let low = least.max(1e-9).log10().floor();
        let high = most.max(least * 1.01).max(1e-9).log10().ceil().max(low + 1.0);
        let mut ticks = Vec::new();
        let mut power = low;
        while power <= high + 0.5 {
            ticks.push((10_f64.powf(power), text(10_f64.powf(power))));
            power += 1.0;
        }
        Self { scale: Scale::Powers, from: 10_f64.powf(low), to: 10_f64.powf(high), ticks }
    }

    /// Where a value is between the ends, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Powers => {
                let (from, to) = (self.from.log10(), self.to.log10());
                (value.max(self.from).log10() - from) / (to - from)
            }
        };
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// 1, 2 or 5 times a power of ten, not below `least`.
fn step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|digit| digit * power)
        .into_iter()
        .find(|step| *step >= least * 0.999)
        .unwrap_or(power * 10.0)
}

/// One line of a plot.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: &'static str,
    /// The class that has its colour: `c0` to `c5`.
    pub(crate) class: &'static str,
    /// A value that is no number is a gap.
    pub(crate) points: Vec<(f64, f64)>,
    /// The area under it is filled.
    pub(crate) filled: bool,
}

/// A plot with its axes, its lines and what happened when.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
    pub(crate) marks: Vec<(f64, String)>,
    pub(crate) x_name: &'static str,
}

impl Plot {
    /// The picture.
    pub(crate) fn svg(&self, label: &str) -> String {
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escape(label)
        );
        self.axes(&mut svg);
        for (index, (at, text)) in self.marks.iter().enumerate() {
            let x = self.x(*at);
            // In two rows, since phases may be short.
            let row = if index % 2 == 0 { 10.0 } else { 22.0 };
            let _ = writeln!(
                svg,
                "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
                 <text class=\"mark\" x=\"{:.1}\" y=\"{row:.1}\">{}</text>",
                row - 8.0,
                HEIGHT - BOTTOM,
                x + 4.0,
                escape(text)
            );
        }
        for line in &self.lines {
            self.line(&mut svg, line);
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// The names of the lines with their colours.
    pub(crate) fn legend(&self) -> String {
        let entry = |line: &Line| {
            format!("<span><i class=\"{}\"></i>{}</span>", line.class, escape(line.name))
        };
        self.lines.iter().map(entry).collect()
    }

    fn axes(&self, svg: &mut String) {
        for (value, text) in &self.y.ticks {
            let y = self.y(*value);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0,
                escape(text)
            );
        }
        for (value, text) in &self.x.ticks {
            let x = self.x(*value);
            let _ = writeln!(
                svg,
                "<text class=\"tick\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
                HEIGHT - BOTTOM + 16.0,
                escape(text)
            );
        }
        let _ = writeln!(
            svg,
            "<text class=\"tick\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            f64::midpoint(LEFT, WIDTH - RIGHT),
            HEIGHT - 6.0,
            escape(self.x_name)
        );
    }

    fn line(&self, svg: &mut String, line: &Line) {
        for points in line.points.split(|(_, y)| y.is_nan()) {
            self.stretch(svg, line, points);
        }
    }

    /// One stretch of a line, between two gaps.
    fn stretch(&self, svg: &mut String, line: &Line, points: &[(f64, f64)]) {
        let place = |(x, y): &(f64, f64)| format!("{:.1},{:.1}", self.x(*x), self.y(*y));
        let places: Vec<String> = points.iter().map(place).collect();
        let (Some(first), Some(last)) = (points.first(), points.last()) else { return };
        if line.filled {
            let floor = HEIGHT - BOTTOM;
            let _ = writeln!(
                svg,
                "<polygon class=\"area {}\" points=\"{:.1},{floor:.1} {} {:.1},{floor:.1}\"/>",
                line.class,
                self.x(first.0),
                places.join(" "),
                self.x(last.0)
            );
        }
        let _ = writeln!(
            svg,
            "<polyline class=\"line {}\" points=\"{}\"/>",
            line.class,
            places.join(" ")
        );
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let floor = HEIGHT - BOTTOM;
        floor - self.y.place(value) * (floor - TOP)
    }
}

/// A picture that stands alone: plots under their titles, one below the other. The line of the class
/// `c1` is dashed in it.
pub(crate) fn stacked(panels: &[(&str, Plot)]) -> String {
    let height = PANEL * real(panels.len() as u64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\">\n<style>\
         svg{{font:12px sans-serif;--text:#333;--grid:#ddd;--c0:#0969da;--c1:#9a6700}}\
         @media(prefers-color-scheme:dark){{svg{{--text:#ccc;--grid:#444;--c0:#58a6ff;--c1:#d29922}}}}\
         text{{fill:var(--text)}}.title{{font-weight:bold}}.grid{{stroke:var(--grid)}}\
         .mark{{stroke-dasharray:2 3}}line.mark{{stroke:var(--text)}}text.mark{{font-style:italic}}\
         .line{{fill:none;stroke-width:1.5}}.line.c0{{stroke:var(--c0)}}\
         .line.c1{{stroke:var(--c1);stroke-dasharray:6 4}}.area.c0{{fill:var(--c0);opacity:.2}}\
         </style>\n"
    );
    for (index, (title, plot)) in panels.iter().enumerate() {
        let top = PANEL * real(index as u64);
        let _ = write!(
            svg,
            "<text class=\"title\" x=\"{LEFT}\" y=\"{}\">{}</text>\n\
             <svg y=\"{}\" width=\"{WIDTH}\" height=\"{}\">\n{}</svg>\n",
            top + 16.0,
            escape(title),
            top + 24.0,
            PANEL - 24.0,
            plot.svg(title)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Text as it may stand in a page.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-6
    }

    #[test]
    fn axes_have_round_ticks_around_all_values() {
        let axis = Axis::linear(25_000.0, |value| format!("{value:.0}"));
        let texts: Vec<&str> = axis.ticks.iter().map(|(_, text)| &**text).collect();
        assert_eq!(texts, ["0", "5000", "10000", "15000", "20000", "25000"]);
        assert!(near(axis.place(15_000.0), 0.6) && near(axis.place(99_999.0), 1.0));
        let axis = Axis::powers(30.0, 2_000.0, |value| format!("{value:.0}"));
        assert!(near(axis.from, 10.0) && near(axis.to, 10_000.0));
        assert!(near(axis.place(100.0), 1.0 / 3.0) && near(axis.place(0.0), 0.0));
        assert_eq!(Axis::linear(0.0, |value| format!("{value:.0}")).ticks.len(), 6);
    }

    #[test]
    fn a_plot_holds_its_lines_and_nothing_that_a_page_would_run() {
        let plot = Plot {
            x: Axis::linear(10.0, |value| format!("{value:.0}")),
            y: Axis::linear(4.0, |value| format!("{value:.0}")),
            lines: vec![Line {
                name: "due",
                class: "c0",
                points: vec![(0.0, 0.0), (10.0, 4.0)],
                filled: true,
            }],
            marks: vec![(5.0, "<kill>".to_owned())],
            x_name: "seconds",
        };
        let svg = plot.svg("a \"rate\"");
        assert!(svg.contains("points=\"84.0,240.0 932.0,28.0\""), "{svg}");
        assert!(svg.contains("&lt;kill&gt;") && !svg.contains("<kill>"));
        assert!(plot.legend().contains("due"));
    }
}
