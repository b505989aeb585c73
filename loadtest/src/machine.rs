//! The machine that a report was made on: half of what its figures mean.

use std::fs;

use serde::Serialize;

/// A machine in a few words.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) memory_bytes: u64,
}

impl Machine {
    /// This one; what it does not tell is left empty.
    pub(crate) fn this() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (cpus, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let after = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let kibibytes = after(&memory, "MemTotal")
            .and_then(|text| text.split_ascii_whitespace().next()?.parse::<u64>().ok());
        Self {
            processor: after(&cpus, "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory_bytes: kibibytes.unwrap_or(0) * 1024,
        }
    }

    /// One line.
    pub(crate) fn text(&self) -> String {
        let gibibytes = self.memory_bytes >> 30;
        let Self { processor, cores, kernel, .. } = self;
        format!("{cores} cores of {processor}, {gibibytes} GiB, kernel {kernel}")
    }
}
