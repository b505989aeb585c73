//! Clocks: a signature that is right under a time that is not, and in what unit it was written.

use jiff::Timestamp;

use super::{Case, Cause, Fault, Guess, Layer};
use crate::config::duration_text;
use crate::reject::Reject;
use crate::verify::TimeUnit;

const UNITS: [(TimeUnit, &str); 3] = [
    (TimeUnit::Seconds, "seconds"),
    (TimeUnit::Milliseconds, "milliseconds"),
    (TimeUnit::Rfc3339, "RFC 3339"),
];

/// The same request with its time read in other units.
pub(super) fn guesses(case: &Case) -> Vec<Guess> {
    let Some(time) = &case.scheme.time else { return Vec::new() };
    let name = |unit| UNITS.iter().find(|(known, _)| *known == unit).map_or("", |(_, name)| name);
    let expected = name(time.unit);
    let others = UNITS.iter().filter(|(unit, _)| *unit != time.unit);
    let guess = |(unit, found): &(TimeUnit, &str)| {
        let mut other = case.clone();
        if let Some(time) = &mut other.scheme.time {
            time.unit = *unit;
        }
        let what = format!("the time is written in {found} and the scheme expects {expected}");
        let cure = "let the sender write it as its documentation says, or set time.unit in \
                    [source.scheme]";
        (Cause::new("time_unit", Layer::Clock, what, cure), other)
    };
    others.map(guess).collect()
}

/// What is wrong with the time of a request whose signature is right; nothing if nothing is.
pub(super) fn cause(case: &Case) -> Option<Cause> {
    let (code, says) = match case.judge() {
        Err(Fault::Rejected(Reject::Stale)) => ("clock_stale", "past"),
        Err(Fault::Rejected(Reject::Future)) => ("clock_future", "future"),
        _ => return None,
    };
    for (cause, other) in guesses(case) {
        if other.judge().is_ok() {
            return Some(cause);
        }
    }
    let (from, to) = window(case)?;
    let off_ns = if code == "clock_stale" { case.now_ns - to } else { from - case.now_ns };
    // To the second: nobody's clock is read finer by eye.
    let off = duration_text(std::time::Duration::from_secs(off_ns / 1_000_000_000));
    let what = format!(
        "the signature is right, but its time is in the {says}: it holds from {} to {}, and was \
         judged {off} outside of that, at {}",
        text(from),
        text(to),
        text(case.now_ns)
    );
    let cure = "of an old capture say when it arrived (--at); otherwise set this machine's clock \
                and the sender's by NTP, look for a queue on the way, or raise `tolerance`";
    Some(Cause::new(code, Layer::Clock, what, cure))
}

/// The first and last moment at which the request verifies, found by asking: whatever the scheme
/// does with its time, it is too early before and too late behind.
fn window(case: &Case) -> Option<(u64, u64)> {
    let at = |now_ns| {
        let judged = Case { now_ns, ..case.clone() }.judge();
        match judged {
            Ok(_) => Some(std::cmp::Ordering::Equal),
            Err(Fault::Rejected(Reject::Future)) => Some(std::cmp::Ordering::Less),
            Err(Fault::Rejected(Reject::Stale)) => Some(std::cmp::Ordering::Greater),
            Err(_) => None,
        }
    };
    let (mut low, mut high) = (0, u64::MAX);
    let inside = loop {
        let middle = low + (high - low) / 2;
        match at(middle)? {
            std::cmp::Ordering::Equal => break middle,
            std::cmp::Ordering::Less => low = middle.checked_add(1)?,
            std::cmp::Ordering::Greater => high = middle.checked_sub(1)?,
        }
        if low > high {
            return None;
        }
    };
    let verifies = |now_ns| at(now_ns).is_some_and(std::cmp::Ordering::is_eq);
    let edge = |mut good: u64, mut bad: u64| {
        while good.abs_diff(bad) > 1 {
            let middle = good.midpoint(bad);
            if verifies(middle) { good = middle } else { bad = middle }
        }
        good
    };
    Some((edge(inside, 0), edge(inside, u64::MAX)))
}

fn text(unix_ns: u64) -> String {
    let at = Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or_default();
    format!("{at:.0}")
}
