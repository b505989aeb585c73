//! The report as one page: what was asked, what came of it, and the plots. It holds its own style
//! and pictures and asks the network for nothing; light or dark as its reader likes.

use std::fmt::Write as _;

use crate::bystanders::Fates;
use crate::figures::real;
use crate::live::time;
use crate::plot::{Axis, Line, Plot, escape};
use crate::report::{Answers, Events, Report};
use crate::series::{Latency, Point};

const STYLE: &str = include_str!("page.css");
/// Bytes of a MiB.
const MIB: f64 = 1_048_576.0;

/// The whole page.
pub(crate) fn html(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>forebay load test: {profile}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>Load test: {profile}</h1>\n<p class=\"sub\">{senders}; {connections} connections; \
         bodies of {bytes} bytes; {target}{ack}</p>\n",
        profile = escape(report.profile),
        senders = escape(&report.senders.join(", ")),
        connections = report.connections,
        bytes = report.body_bytes,
        target = escape(&report.target),
        ack = report.ack.map_or_else(String::new, |ack| format!("; ack {ack}")),
    );
    verdict(&mut page, report);
    tiles(&mut page, report);
    for (title, note, plot) in plots(report) {
        let _ = write!(
            page,
            "<section>\n<h2>{title}</h2>\n<p class=\"legend\">{}</p>\n{}<p class=\"note\">{note}\
             </p>\n</section>\n",
            plot.legend(),
            plot.svg(title)
        );
    }
    tables(&mut page, report);
    page.push_str("</body>\n</html>\n");
    page
}

/// The one sentence for those who read no further.
fn verdict(page: &mut String, report: &Report) {
    let (class, title) = match (report.sound(), report.problems.is_empty(), &report.audit) {
        (false, _, _) => ("bad", "The receiver broke its word"),
        (true, false, _) => ("warn", "Nothing acknowledged was lost, but not everything arrived"),
        (true, true, Some(_)) => ("good", "Every event was acknowledged, and is stored once"),
        (true, true, None) => ("good", "Every event was acknowledged; the log was not audited"),
    };
    let _ = write!(page, "<div class=\"verdict {class}\"><strong>{title}.</strong><ul>");
    for problem in &report.problems {
        let _ = write!(page, "<li>{}</li>", escape(problem));
    }
    if report.generator_saturated {
        page.push_str("<li>The load generator fell behind itself: latencies say as much about it as about the server.</li>");
    }
    page.push_str("</ul></div>\n");
}

fn tiles(page: &mut String, report: &Report) {
    let Latency { p50, p99, p999, max, .. } = report.latency_us;
    let server =
        report.server_cpu_us.map_or_else(|| "unknown".to_owned(), |us| format!("{us:.1} us"));
    let lost =
        report.audit.map_or_else(|| "not audited".to_owned(), |audit| audit.lost.to_string());
    let tiles = [
        ("events acknowledged", grouped(report.events.acknowledged)),
        ("acknowledged and lost", lost),
        ("highest rate", format!("{}/s", count(report.per_second_most))),
        ("median latency", time(p50)),
        ("99 of 100 within", time(p99)),
        ("999 of 1000 within", time(p999)),
        ("slowest", time(max)),
        ("server CPU per request", server),
    ];
    page.push_str("<div class=\"tiles\">");
    for (name, value) in tiles {
        let _ = write!(page, "<div><b>{value}</b><span>{name}</span></div>");
    }
    page.push_str("</div>\n");
}

/// Title, note and plot of each picture.
type Picture = (&'static str, &'static str, Plot);

fn plots(report: &Report) -> Vec<Picture> {
    let mut all = senders_plots(report);
    all.extend(server_plots(report));
    all
}

/// What senders see.
fn senders_plots(report: &Report) -> Vec<Picture> {
    let line = |name, class, of| line(report, name, class, of);
    let rates = vec![
        filled(line("due", "c0", |point| point.due_per_second)),
        line("accepted", "c1", |point| point.accepted_per_second),
        line("refused", "c2", |point| point.refused_per_second),
        line("without an answer", "c3", |point| point.broken_per_second),
    ];
    let latency = [
        line("median", "c1", |point| point.latency_us.p50),
        line("90 %", "c0", |point| point.latency_us.p90),
        line("99 %", "c2", |point| point.latency_us.p99),
        line("slowest", "c3", |point| point.latency_us.max),
    ]
    .map(with_gaps);
    let times = Axis::powers(least(&latency), most(&latency), time);
    vec![
        (
            "Requests a second",
            "What the schedule called for, and what came back. Nothing that the server does slows \
             the schedule down.",
            plot(report, Axis::linear(most(&rates), count), rates),
        ),
        (
            "Latency over time",
            "From the moment a request was due to its acknowledgement, for each share of the \
             requests of an interval.",
            plot(report, times, latency.to_vec()),
        ),
        (
            "Latency of all requests",
            "How long the given share of all requests took at most; each step to the right is ten \
             times as rare.",
            curve(report),
        ),
    ]
}

/// What the server has to bear.
fn server_plots(report: &Report) -> Vec<Picture> {
    let line = |name, class, of| line(report, name, class, of);
    let backlog = vec![
        filled(line("waiting", "c0", |point| real(point.backlog))),
        line("in flight", "c1", |point| real(point.in_flight)),
        line("to be tried again", "c2", |point| real(point.retrying)),
    ];
    let cores = vec![
        line("server", "c0", |point| point.server_cores),
        line("generator", "c4", |point| point.generator_cores),
    ];
    let memory = vec![
        line("all", "c0", |point| real(point.server_bytes) / MIB),
        line("its own", "c1", |point| real(point.server_own_bytes) / MIB),
    ];
    let axis = |lines: &[Line], text: fn(f64) -> String| Axis::linear(most(lines), text);
    vec![
        (
            "Backlog",
            "Due and not sent yet (no connection was free, or an older event of the room was under \
             way), sent and not answered yet, and waiting for the sender's next attempt.",
            plot(report, axis(&backlog, count), backlog),
        ),
        (
            "CPU",
            "Cores in use. The generator is the tool that made this load; where it comes near one \
             core, its figures are about itself.",
            plot(report, axis(&cores, |cores| format!("{cores:.2}")), cores),
        ),
        (
            "Memory of the server",
            "In RAM: all of it, pages of the mapped log included, and what is the server's own.",
            plot(report, axis(&memory, |mebibytes| format!("{mebibytes:.0} MiB")), memory),
        ),
    ]
}

fn line(report: &Report, name: &'static str, class: &'static str, of: fn(&Point) -> f64) -> Line {
    let points = report.series.iter().map(|point| (point.seconds, of(point))).collect();
    Line { name, class, points, filled: false }
}

fn filled(line: Line) -> Line {
    Line { filled: true, ..line }
}

fn plot(report: &Report, y: Axis, lines: Vec<Line>) -> Plot {
    let end = report.series.last().map_or(1.0, |point| point.seconds);
    let x = Axis::linear(end, |seconds| format!("{seconds:.0}"));
    let x = Axis {
        to: end.max(1e-3),
        ticks: x.ticks.into_iter().filter(|tick| tick.0 <= end).collect(),
        ..x
    };
    Plot { x, y, lines, marks: report.marks.clone(), x_name: "seconds" }
}

/// Latency against how rare it is.
fn curve(report: &Report) -> Plot {
    let rare = |percent: f64| 100.0 / (100.0 - percent);
    let points: Vec<(f64, f64)> =
        report.curve.iter().map(|(percent, us)| (rare(*percent), *us)).collect();
    let line = Line { name: "all that were accepted", class: "c2", points, filled: true };
    let (least, slowest) = (least(std::slice::from_ref(&line)), most(std::slice::from_ref(&line)));
    let rarest = line.points.last().map_or(10.0, |(rare, _)| *rare);
    let share = |rare: f64| match rare {
        rare if rare < 1.5 => "0 %".to_owned(),
        rare => format!("{} %", 100.0 - 100.0 / rare),
    };
    Plot {
        x: Axis::powers(1.0, rarest, share),
        y: Axis::powers(least, slowest, time),
        lines: vec![line],
        marks: Vec::new(),
        x_name: "share of requests",
    }
}

fn tables(page: &mut String, report: &Report) {
    page.push_str("<section>\n<h2>In figures</h2>\n<table>\n");
    for (name, value) in rows(report) {
        let _ = writeln!(page, "<tr><th>{}</th><td>{}</td></tr>", escape(name), escape(&value));
    }
    page.push_str("</table>\n</section>\n");
}

fn rows(report: &Report) -> Vec<(&'static str, String)> {
    let Events { made, acknowledged, given_up, outstanding, dropped, .. } = report.events;
    let two = |left: u64, right: u64| format!("{}, {}", grouped(left), grouped(right));
    let mut rows = vec![
        ("Requests due, sent", two(report.due, report.sent)),
        ("Events made, acknowledged", two(made, acknowledged)),
        ("Given up, still outstanding", two(given_up, outstanding)),
        ("Dropped by their own sender", grouped(dropped)),
    ];
    if let Some(audit) = &report.audit {
        let once = audit.stored_once + audit.stored_unanswered;
        rows.push(("In the log: once, more than once", two(once, audit.twice)));
        rows.push(("Acknowledged and lost", grouped(audit.lost)));
        rows.push(("In the log and never sent, altered", two(audit.unknown, audit.altered)));
        rows.push(("Taken although wrong", grouped(audit.wrongly_taken)));
    }
    if let Some(error) = &report.last_error {
        rows.push(("The last connection that ended", error.clone()));
    }
    for Answers { requests, status, count } in &report.answers {
        rows.push(("Answers", format!("{requests}: {} by {status}", grouped(*count))));
    }
    for (kind, fates) in &report.bystanders {
        let Fates { connections, refused, cut_off, accepted } = fates;
        let text = format!(
            "{connections} {kind}: {refused} answers, {cut_off} cut off, {accepted} accepted"
        );
        rows.push(("Other clients", text));
    }
    let late = time(report.generator_late_us.p99);
    let generator =
        format!("{:.1} us of CPU a request, late by p99 {late}", report.generator_cpu_us);
    rows.push(("Generator", generator));
    rows.push(("Machine", report.machine.text()));
    rows.push(("Driver", report.driver.unwrap_or("unknown").to_owned()));
    rows.push(("Command", format!("forebay-loadtest {}", report.command)));
    rows
}

/// With gaps where nothing was accepted: there is no latency.
fn with_gaps(line: Line) -> Line {
    let gap = |(x, y)| if y > 0.0 { (x, y) } else { (x, f64::NAN) };
    Line { points: line.points.into_iter().map(gap).collect(), ..line }
}

fn values(lines: &[Line]) -> impl Iterator<Item = f64> {
    lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value).filter(|y| !y.is_nan())
}

fn most(lines: &[Line]) -> f64 {
    values(lines).fold(0.0, f64::max)
}

fn least(lines: &[Line]) -> f64 {
    values(lines).filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min).min(1e12)
}

/// A count as short as it can be read.
fn count(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.1}M", value / 1e6),
        value if value >= 10_000.0 => format!("{:.0}k", value / 1e3),
        value if value >= 1_000.0 => format!("{:.1}k", value / 1e3),
        value => format!("{value:.0}"),
    }
}

/// A count with its thousands apart.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_short_or_in_groups() {
        assert_eq!([7.0, 1_500.0, 25_000.0, 2.5e6].map(count), ["7", "1.5k", "25k", "2.5M"]);
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
