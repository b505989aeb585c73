//! What a server spends on each request at its ceiling: requests that were signed in advance, in a
//! closed loop, each answered by a 200 or the figure counts for nothing.

use std::collections::BTreeMap;
use std::io;
use std::thread;
use std::time::Duration;

use forebay_log::Clock;
use serde::Serialize;

use crate::closed::{self, Outcome};
use crate::figures::real;
use crate::processor::{self, Cores};
use crate::requests::{Pool, Sender};
use crate::target::{Ack, DriverChoice, Kind, Target, Wanted};
use crate::wire::{Connections, Remote};

/// After its start a server prepares pages, reads files ahead and merges them; its measurement waits
/// until it has used next to nothing for so many looks, but not for ever.
const LOOK: Duration = Duration::from_millis(100);
const LOOKS: u32 = 3;
const REST_MAX: Duration = Duration::from_millis(2);
const SETTLE_MAX: Duration = Duration::from_secs(20);

/// One server; times in microseconds for a request.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Weighed {
    pub(crate) cpu_us: f64,
    pub(crate) user_us: f64,
    pub(crate) system_us: f64,
    pub(crate) per_second: f64,
    pub(crate) generator_us: f64,
    pub(crate) threads_us: BTreeMap<String, f64>,
}

/// A server on one core that takes the requests of one sender, also old ones.
pub(crate) fn server(
    kind: Kind,
    driver: DriverChoice,
    ack: Ack,
    preset: &str,
    cores: Cores,
) -> io::Result<Wanted> {
    Ok(Wanted {
        kind,
        driver,
        ack,
        senders: vec![Sender::own(preset)?],
        cores: vec![cores.server],
        // Requests are signed before the first round, so the last may be old.
        tolerance: Some("1h"),
        idle: "15s",
        sinks: String::new(),
        planted_ns: 0,
    })
}

/// Sends the whole pool; all but its first `warm` requests count.
pub(crate) fn weigh(
    target: &Target,
    connections: u32,
    pool: &Pool,
    warm: usize,
) -> io::Result<Weighed> {
    let remote = Remote { address: target.address, tls: None };
    let mut connections = Connections::open(remote, connections as usize)?;
    let warmed = closed::drive(&mut connections, pool, 0, warm)?;
    all_accepted(target, warmed, warm)?;
    let process = target.process_id();
    settle(process)?;

    let measured = pool.len() - warm;
    let before = processor::cpu_of_threads(process)?;
    let (user_before, system_before) = processor::cpu_parts(process)?;
    let own_before = processor::cpu_time(std::process::id())?;
    let outcome = closed::drive(&mut connections, pool, warm, pool.len())?;
    let after = processor::cpu_of_threads(process)?;
    let (user, system) = processor::cpu_parts(process)?;
    let own = processor::cpu_time(std::process::id())?.saturating_sub(own_before);
    all_accepted(target, outcome, measured)?;

    let count = real(measured as u64);
    let each = |span: Duration| span.as_secs_f64() * 1e6 / count;
    let spent = |(name, total): (String, Duration)| {
        let start = before.get(&name).copied().unwrap_or_default();
        (name, each(total.saturating_sub(start)))
    };
    let threads_us: BTreeMap<String, f64> = after.into_iter().map(spent).collect();
    Ok(Weighed {
        cpu_us: threads_us.values().sum(),
        user_us: each(user.saturating_sub(user_before)),
        system_us: each(system.saturating_sub(system_before)),
        per_second: count / outcome.elapsed.as_secs_f64(),
        generator_us: each(own),
        threads_us,
    })
}

/// Waits until a process is at rest.
fn settle(process: u32) -> io::Result<()> {
    let (began, mut before) = (Clock::System.monotonic(), processor::cpu_time(process)?);
    let mut resting = 0;
    while resting < LOOKS && began.elapsed() < SETTLE_MAX {
        thread::sleep(LOOK);
        let now = processor::cpu_time(process)?;
        resting = if now.saturating_sub(before) <= REST_MAX { resting + 1 } else { 0 };
        before = now;
    }
    Ok(())
}

fn all_accepted(target: &Target, outcome: Outcome, expected: usize) -> io::Result<()> {
    if outcome.accepted == expected && outcome.other == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{:?}: {} of {expected} were answered by 200, {} by something else",
        target.kind(),
        outcome.accepted,
        outcome.other
    )))
}
