//! What a run comes to: figures, findings, and what is wrong; as a table or as JSON.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::args::Common;
use crate::audit::Findings;
use crate::bystanders::Fates;
use crate::figures::{Summary, real, say};
use crate::ledger::Entry;
use crate::live::time;
use crate::machine::Machine;
use crate::requests::Fault;
use crate::series::{Latency, Point};
use crate::session::{Session, Trial};

/// Above this share of a core the generator's figures say as much about itself.
const GENERATOR_BUSY: f64 = 0.9;
/// The generator has fallen behind when a hundredth of its requests went out later than this.
const GENERATOR_LATE_US: f64 = 5_000.0;

/// Everything that is told about a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) profile: &'static str,
    pub(crate) command: String,
    pub(crate) machine: Machine,
    pub(crate) target: String,
    pub(crate) driver: Option<&'static str>,
    pub(crate) ack: Option<&'static str>,
    pub(crate) senders: Vec<String>,
    pub(crate) connections: u32,
    pub(crate) body_bytes: u32,
    pub(crate) compress: f64,
    pub(crate) seconds: f64,
    /// Requests that the schedule called for.
    pub(crate) due: u64,
    /// Requests that went out, further attempts included.
    pub(crate) sent: u64,
    pub(crate) accepted: u64,
    /// Genuine requests that were refused.
    pub(crate) other: u64,
    /// Requests without an answer.
    pub(crate) broken: u64,
    /// Why the last connection that ended did.
    pub(crate) last_error: Option<String>,
    pub(crate) answers: Vec<Answers>,
    pub(crate) events: Events,
    pub(crate) bystanders: Vec<(&'static str, Fates)>,
    pub(crate) backlog_most: u64,
    pub(crate) per_second: f64,
    pub(crate) per_second_most: f64,
    /// From the moment due to the 2xx.
    pub(crate) latency_us: Latency,
    /// The 99th percentile of each interval of the series by itself: one stall is in few of them.
    pub(crate) interval_p99_us: Summary,
    /// How many of a hundred were accepted within so many microseconds.
    pub(crate) curve: Vec<(f64, f64)>,
    pub(crate) server_cpu_us: Option<f64>,
    pub(crate) server_cores_most: f64,
    pub(crate) server_bytes_most: u64,
    pub(crate) generator_cpu_us: f64,
    pub(crate) generator_late_us: Latency,
    pub(crate) generator_saturated: bool,
    /// What the log says; none if it could not be read.
    pub(crate) audit: Option<Findings>,
    /// Why the run is not as it should be; empty if it is.
    pub(crate) problems: Vec<String>,
    pub(crate) marks: Vec<(f64, String)>,
    pub(crate) series: Vec<Point>,
}

/// Answers of one kind.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Answers {
    pub(crate) requests: &'static str,
    pub(crate) status: u16,
    pub(crate) count: u64,
}

/// What became of genuine events.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Events {
    pub(crate) made: u64,
    pub(crate) acknowledged: u64,
    /// Their sender had no attempts left.
    pub(crate) given_up: u64,
    /// An answer or an attempt was still to come when the run ended.
    pub(crate) outstanding: u64,
    /// Never acknowledged, because their own sender dropped them.
    pub(crate) dropped: u64,
    /// Requests that senders dropped: the queue of the room was full, or they were too old.
    pub(crate) dropped_full: u64,
    pub(crate) dropped_old: u64,
}

impl Report {
    /// Sums a run up.
    pub(crate) fn new(
        profile: &'static str,
        common: &Common,
        session: &Session,
        trial: &Trial,
        audit: Option<Findings>,
    ) -> Self {
        let (outcome, points) = (&trial.outcome, &trial.series.points);
        let counts = outcome.counts;
        let answered = real((counts.accepted + counts.refused + counts.refused_rightly).max(1));
        let each = |span: Duration| span.as_secs_f64() * 1e6 / answered;
        let most = |of: fn(&Point) -> f64| points.iter().map(of).fold(0.0, f64::max);
        let own = session.own.is_some();
        let known = own || common.place.pid.is_some();
        let late = Latency::of(&outcome.late);
        let busy = Summary::of(points.iter().map(|point| point.generator_cores)).median;
        let mut report = Self {
            profile,
            command: command(std::env::args().skip(1)),
            machine: Machine::this(),
            target: session.place(),
            driver: own.then(|| common.place.driver.resolve().name()),
            ack: own.then(|| common.place.ack.name()),
            senders: session
                .senders
                .iter()
                .map(|(sender, weight)| format!("{}={weight}", sender.preset))
                .collect(),
            connections: common.load.connections,
            body_bytes: common.load.body,
            compress: common.load.compress,
            seconds: outcome.elapsed.as_secs_f64(),
            due: counts.due,
            sent: counts.sent,
            accepted: counts.accepted,
            other: counts.refused,
            broken: counts.broken,
            last_error: outcome.last_error.clone().filter(|_| counts.broken > 0),
            answers: answers(trial),
            events: events(trial),
            bystanders: ["idle", "slow", "half open"]
                .into_iter()
                .zip(trial.bystanders)
                .filter(|(_, fates)| fates.connections > 0)
                .collect(),
            backlog_most: outcome.backlog_most,
            per_second: real(counts.accepted) / outcome.elapsed.as_secs_f64().max(1e-9),
            per_second_most: most(|point| point.accepted_per_second),
            latency_us: Latency::of(&outcome.latency),
            interval_p99_us: Summary::of(
                points
                    .iter()
                    .filter(|point| point.accepted_per_second > 0.0)
                    .map(|point| point.latency_us.p99),
            ),
            curve: curve(&outcome.latency),
            server_cpu_us: known.then(|| each(trial.series.server_cpu)),
            server_cores_most: most(|point| point.server_cores),
            server_bytes_most: points.iter().map(|point| point.server_bytes).max().unwrap_or(0),
            generator_cpu_us: each(trial.series.generator_cpu),
            generator_late_us: late,
            generator_saturated: late.p99 > GENERATOR_LATE_US || busy > GENERATOR_BUSY,
            audit,
            problems: Vec::new(),
            marks: trial.marks.iter().map(|(at, what)| (at.as_secs_f64(), what.clone())).collect(),
            series: points.clone(),
        };
        report.problems = report.judge();
        report
    }

    /// Whether the receiver has kept its word, as far as can be told.
    pub(crate) fn sound(&self) -> bool {
        self.audit.is_none_or(|audit| audit.sound()) && self.wrongly_answered() == 0
    }

    /// Answers that a request did not deserve.
    fn wrongly_answered(&self) -> u64 {
        let kept = [Fault::None.name(), Fault::Duplicate.name()];
        let taken = |answers: &&Answers| {
            !kept.contains(&answers.requests) && (200..300).contains(&answers.status)
        };
        let answered: u64 = self.answers.iter().filter(taken).map(|answers| answers.count).sum();
        answered + self.bystanders.iter().map(|(_, fates)| fates.accepted).sum::<u64>()
    }

    fn judge(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut tell = |count: u64, what: &str| {
            if count > 0 {
                problems.push(format!("{count} {what}"));
            }
        };
        if let Some(audit) = &self.audit {
            tell(audit.lost, "acknowledged events are not in the log");
            tell(audit.twice, "events are in the log more than once");
            tell(audit.unknown, "records hold an id that was never sent");
            tell(audit.altered, "events are in the log with another body");
            tell(audit.wrongly_taken, "requests that had to be refused were taken");
        }
        tell(self.wrongly_answered(), "answers by 2xx to what had to be refused");
        let Events { made, acknowledged, dropped, .. } = self.events;
        tell(dropped, "events were dropped by their own sender");
        tell(made - acknowledged - dropped, "events were never acknowledged");
        problems
    }

    /// Prints it.
    pub(crate) fn table(&self) {
        let Events { made, acknowledged, given_up, outstanding, dropped, .. } = self.events;
        let named = |value: Option<&str>, name: &str| {
            value.map_or_else(String::new, |value| format!(", {name} {value}"))
        };
        say(&format!(
            "{}: {}, {} connections, {} B bodies{}{}, {}",
            self.profile,
            self.senders.join(","),
            self.connections,
            self.body_bytes,
            named(self.driver, "driver"),
            named(self.ack, "ack"),
            self.target
        ));
        let Latency { p50, p90, p99, p999, max } = self.latency_us;
        say(&format!(
            "requests    {} due, {} sent, {} accepted, {} genuine refused, {} without an answer",
            self.due, self.sent, self.accepted, self.other, self.broken
        ));
        if let Some(error) = &self.last_error {
            say(&format!("            the last connection that ended: {error}"));
        }
        for Answers { requests, status, count } in &self.answers {
            say(&format!("            {requests}: {count} answered by {status}"));
        }
        say(&format!(
            "rate        {:.0}/s accepted, {:.0}/s at most; at most {} waited to be sent",
            self.per_second, self.per_second_most, self.backlog_most
        ));
        say(&format!(
            "latency     p50 {}, p90 {}, p99 {}, p99.9 {}, max {}, from the moment due",
            time(p50),
            time(p90),
            time(p99),
            time(p999),
            time(max)
        ));
        let Summary { median, least, most, .. } = self.interval_p99_us;
        say(&format!(
            "            p99 of each {:.2} s: {} in the median, {} to {}",
            self.series.first().map_or(0.0, |point| point.seconds),
            time(median),
            time(least),
            time(most)
        ));
        say(&format!(
            "events      {made} made, {acknowledged} acknowledged, {given_up} given up, \
             {outstanding} outstanding, {dropped} dropped by their sender"
        ));
        for (kind, fates) in &self.bystanders {
            let Fates { connections, refused, cut_off, accepted } = fates;
            say(&format!(
                "{kind:<11} {connections} connections; {refused} answers, {cut_off} cut off, \
                 {accepted} accepted"
            ));
        }
        self.table_of_sides();
        self.table_of_audit();
    }

    fn table_of_sides(&self) {
        if let Some(cpu) = self.server_cpu_us {
            say(&format!(
                "server      {cpu:.2} us of CPU for a request, {:.2} cores and {:.0} MiB at most",
                self.server_cores_most,
                real(self.server_bytes_most) / 1_048_576.0
            ));
        }
        say(&format!(
            "generator   {:.2} us of CPU for a request, late by p99 {}, max {}{}",
            self.generator_cpu_us,
            time(self.generator_late_us.p99),
            time(self.generator_late_us.max),
            if self.generator_saturated {
                " SATURATED: it fell behind itself; a lower rate or a quieter machine"
            } else {
                ""
            }
        ));
    }

    fn table_of_audit(&self) {
        match &self.audit {
            None => say("audit       none: the log cannot be read from here; name it by --log"),
            Some(audit) => say(&format!(
                "audit       {} acknowledged, {} stored once, {} lost, {} twice, {} unknown, \
                 {} altered, {} wrongly taken; {} stored without an answer",
                audit.acknowledged,
                audit.stored_once,
                audit.lost,
                audit.twice,
                audit.unknown,
                audit.altered,
                audit.wrongly_taken,
                audit.stored_unanswered
            )),
        }
        if self.problems.is_empty() {
            say("verdict     all is well");
        }
        for problem in &self.problems {
            say(&format!("verdict     {problem}"));
        }
    }
}

fn answers(trial: &Trial) -> Vec<Answers> {
    let told = |(&(fault, status), &count): (&(Fault, u16), &u64)| Answers {
        requests: fault.name(),
        status,
        count,
    };
    trial.outcome.answers.iter().map(told).collect()
}

/// The command as it was given. Reports are kept and passed on, so without the secrets in it.
fn command(arguments: impl Iterator<Item = String>) -> String {
    let mut value_follows = false;
    let told = arguments.map(|argument| {
        let is_value = std::mem::replace(&mut value_follows, argument == "--secret");
        let joined = argument.strip_prefix("--secret=");
        let Some(value) = joined.or(is_value.then_some(argument.as_str())) else { return argument };
        let flag = if joined.is_some() { "--secret=" } else { "" };
        match value.split_once('=') {
            Some((_, place)) if place.starts_with("env:") || place.starts_with("file:") => argument,
            Some((name, _)) => format!("{flag}{name}=(hidden)"),
            None => argument,
        }
    });
    told.collect::<Vec<_>>().join(" ")
}

fn events(trial: &Trial) -> Events {
    let outcome = &trial.outcome;
    let count =
        |of: fn(&Entry) -> bool| outcome.ledger.genuine().filter(|entry| of(entry)).count() as u64;
    Events {
        made: count(|_| true),
        acknowledged: count(|entry| entry.acknowledged > 0),
        given_up: outcome.given_up,
        outstanding: outcome.outstanding,
        dropped: count(|entry| entry.acknowledged == 0 && entry.dropped),
        dropped_full: outcome.dropped_full,
        dropped_old: outcome.dropped_old,
    }
}

/// Points of the latency curve, closer and closer to all.
fn curve(latency: &Histogram<u64>) -> Vec<(f64, f64)> {
    const NINES: [f64; 12] =
        [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 99.999];
    let at = |percent: f64| (percent, real(latency.value_at_quantile(percent / 100.0)) / 1e3);
    // What fewer requests than one in so many would show is not known.
    let known = 100.0 * (1.0 - 1.0 / real(latency.len().max(2)));
    NINES.into_iter().filter(|percent| *percent <= known).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_told_without_its_secrets() {
        let told = |line: &str| command(line.split(' ').map(str::to_owned));
        assert_eq!(
            told("steady --secret stripe=whsec_a=b --secret=mux=c --json"),
            "steady --secret stripe=(hidden) --secret=mux=(hidden) --json"
        );
        let elsewhere = "steady --secret stripe=env:A --secret=mux=file:/b --mix stripe=1,mux=2";
        assert_eq!(told(elsewhere), elsewhere);
    }
}
