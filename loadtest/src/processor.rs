//! Who runs on which core, and what CPU time a process has used.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The core of the server and the core of the generator, which differ where there are two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) server: usize,
    pub(crate) generator: usize,
}

impl Cores {
    /// The first and the last core that this process may use.
    pub(crate) fn choose() -> io::Result<Self> {
        let cores = usable()?;
        let server = cores.first().copied().unwrap_or(0);
        Ok(Self { server, generator: cores.last().copied().unwrap_or(server) })
    }

    /// Whether server and generator disturb each other's measurement.
    pub(crate) fn shared(self) -> bool {
        self.server == self.generator
    }
}

/// The cores that this process may use.
pub(crate) fn usable() -> io::Result<Vec<usize>> {
    let usable = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| usable.is_set(*core)).collect())
}

/// Keeps this thread, and every thread that it starts from now on, on these cores.
pub(crate) fn stay_on(cores: &[usize]) -> io::Result<()> {
    let mut only = CpuSet::new();
    for core in cores {
        only.set(*core);
    }
    Ok(sched_setaffinity(None, &only)?)
}

/// The memory that a process holds in RAM, mapped files included, and what of it is its own.
pub(crate) fn memory(process_id: u32) -> io::Result<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{process_id}/status"))?;
    let kibibytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    let bytes = |name| kibibytes(name).unwrap_or(0) * 1024;
    Ok((bytes("VmRSS:"), bytes("RssAnon:")))
}

/// The CPU time, user and system, that the living threads of a process have used.
///
/// `schedstat` counts nanoseconds, where `/proc/PID/stat` counts in ticks of 10 ms. A thread that
/// has ended is not in it, so a difference of two readings is sound only while threads stay; the
/// servers measured here start all of theirs before they say that they are ready.
pub(crate) fn cpu_time(process_id: u32) -> io::Result<Duration> {
    Ok(cpu_of_threads(process_id)?.values().sum())
}

/// The same by the name of the thread; threads that share a name are summed up.
pub(crate) fn cpu_of_threads(process_id: u32) -> io::Result<BTreeMap<String, Duration>> {
    let mut threads: BTreeMap<String, Duration> = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{process_id}/task"))? {
        let task = task?.path();
        // A thread may end between the listing and the reading.
        let Ok(text) = fs::read_to_string(task.join("schedstat")) else { continue };
        let Ok(name) = fs::read_to_string(task.join("comm")) else { continue };
        let first = text.split_ascii_whitespace().next();
        let nanos = first.and_then(|digits| digits.parse().ok()).unwrap_or(0);
        *threads.entry(name.trim_end().to_owned()).or_default() += Duration::from_nanos(nanos);
    }
    if threads.values().all(Duration::is_zero) {
        return Err(io::Error::other("the kernel keeps no /proc/PID/task/*/schedstat"));
    }
    Ok(threads)
}

/// The user and system parts of a process's CPU time, in ticks of 10 ms.
pub(crate) fn cpu_parts(process_id: u32) -> io::Result<(Duration, Duration)> {
    let text = fs::read_to_string(format!("/proc/{process_id}/stat"))?;
    // The second field is the name in parentheses, which may itself hold spaces.
    let fields = text.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks = |index: usize| {
        let field = fields.split_ascii_whitespace().nth(index);
        field.and_then(|digits| digits.parse::<u64>().ok()).unwrap_or(0)
    };
    let span = |ticks| Duration::from_millis(10 * ticks);
    Ok((span(ticks(11)), span(ticks(12))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_uses_cpu_time() {
        let process = std::process::id();
        let before = cpu_time(process).expect("schedstat is kept");
        let mut sum = 0_u64;
        for number in 0..20_000_000_u64 {
            sum = std::hint::black_box(sum.wrapping_add(number));
        }
        assert!(cpu_time(process).expect("schedstat is kept") > before);
        assert!(cpu_parts(process).is_ok());
        let (whole, own) = memory(process).expect("status is kept");
        assert!(whole >= own && own > 0);
    }
}
