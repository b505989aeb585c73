//! Facts to findings: what is well, what is not, and what to do about it. Looks at nothing itself.
//!
//! | grade | when |
//! |---|---|
//! | good | nothing to do |
//! | note | it works; something could be better, or could not be learned |
//! | warning | a burst, or a loss of power, would cost connections, latency or a promise |
//! | fault | `serve` would not start, or would take nothing |

use bytesize::ByteSize;

use super::facts::{Clock, Facts, Port, Ring, SiteFacts, Unit, Volume};
use crate::config::Driver;

/// The kernel settings, as `tuning/tune` applies them: one table for both.
const TABLE: &str = include_str!("../../../tuning/sysctl.table");
/// Those whose lack drops or delays connections; the others smooth latency.
const CONNECTIONS: [&str; 4] = [
    "net.core.somaxconn",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_abort_on_overflow",
    "net.netfilter.nf_conntrack_max",
];
/// Fewer open files than this do not even start on most machines.
const FILES_MIN: u64 = 256;
/// Each connection is one; a large event brings tens of thousands.
const FILES_WANTED: u64 = 65_536;
/// What the ring of one receiver locks before Linux 5.12: 4,096 entries and 8,192 completions.
const RING_BYTES: u64 = 512 * 1024;

/// How bad it is; in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grade {
    Good,
    Note,
    Warning,
    Fault,
}

impl Grade {
    /// The name in tables and JSON.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Fault => "fault",
        }
    }

    /// The colour on a terminal.
    pub(super) const fn colour(self) -> &'static str {
        match self {
            Self::Good => "\x1b[32m",
            Self::Note => "\x1b[36m",
            Self::Warning => "\x1b[33m",
            Self::Fault => "\x1b[31m",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub check: String,
    pub grade: Grade,
    pub found: String,
    /// What to do; there is something unless all is well.
    pub cure: Option<String>,
}

fn good(check: &str, found: impl Into<String>) -> Finding {
    Finding { check: check.to_owned(), grade: Grade::Good, found: found.into(), cure: None }
}

fn bad(grade: Grade, check: &str, found: impl Into<String>, cure: impl Into<String>) -> Finding {
    let (found, cure) = (found.into(), Some(cure.into()));
    Finding { check: check.to_owned(), grade, found, cure }
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub name: &'static str,
    relation: &'static str,
    wanted: u64,
    reason: &'static str,
}

impl Setting {
    fn fits(&self, value: u64) -> bool {
        match self.relation {
            "least" => value >= self.wanted,
            "most" => value <= self.wanted,
            _ => value == self.wanted,
        }
    }

    /// What it should be, in words.
    fn asked(&self) -> String {
        match self.relation {
            "least" | "most" => format!("at {} {}", self.relation, self.wanted),
            _ => self.wanted.to_string(),
        }
    }
}

/// The table; a test sees to it that every line of it is read.
pub(super) fn kernel_settings() -> impl Iterator<Item = Setting> {
    TABLE.lines().filter_map(|line| {
        let mut cells = line.splitn(4, '|').map(str::trim);
        let (name, relation) = (cells.next()?, cells.next()?);
        Some(Setting { name, relation, wanted: cells.next()?.parse().ok()?, reason: cells.next()? })
    })
}

/// Everything, in the order of a table.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![kernel(facts), ring(facts), seccomp(facts), open_files(facts)];
    findings.push(locked_memory(facts));
    findings.push(cores(facts));
    findings.extend(settings(facts));
    findings.extend([packets(facts), frequency(facts), huge_pages(facts), swap(facts)]);
    findings.extend([clock(facts), unit(facts)]);
    match &facts.site {
        None => findings.push(bad(
            Grade::Note,
            "configuration",
            "there is none: data folder and ports were not looked at",
            "name it with --config",
        )),
        Some(site) => {
            findings.extend(data_folder(site));
            findings.extend(ports(&site.ports));
        }
    }
    findings
}

fn kernel(facts: &Facts) -> Finding {
    const CHECK: &str = "kernel";
    let Some((major, minor)) = facts.kernel else {
        return bad(Grade::Note, CHECK, "its version cannot be read", "run Linux 6.1 or later");
    };
    let found = format!("Linux {major}.{minor}");
    match (major, minor) {
        (..=5, ..=13) | (..=4, _) => bad(
            Grade::Warning,
            CHECK,
            format!("{found}: pages of the log cannot be made ready, so receivers fault"),
            "run Linux 6.1 or later",
        ),
        (..=5, _) => bad(
            Grade::Note,
            CHECK,
            format!("{found}: io_uring without the flags that make it cheap"),
            "run Linux 6.1 or later, or say receive.driver = \"epoll\"",
        ),
        _ => good(CHECK, found),
    }
}

fn ring(facts: &Facts) -> Finding {
    const CHECK: &str = "io_uring";
    let driver = facts.site.as_ref().map_or(Driver::Auto, |site| site.driver);
    match (&facts.ring, driver) {
        (Ring::Cooperative, _) => good(CHECK, "allowed, with coop_taskrun and single_issuer"),
        (_, Driver::Epoll) => good(CHECK, "not asked for: receive.driver is epoll"),
        (Ring::Plain, _) => bad(
            Grade::Warning,
            CHECK,
            "allowed without coop_taskrun and single_issuer: half as much CPU again as epoll",
            "say receive.driver = \"epoll\", or run Linux 6.0 or later",
        ),
        (Ring::Refused(error), driver) => {
            let (why, cure) = refusal(facts);
            let (grade, so) = match driver {
                Driver::IoUring => (Grade::Fault, "receive.driver asks for it: no start"),
                _ => (Grade::Note, "receivers use epoll"),
            };
            bad(grade, CHECK, format!("refused ({error}{why}): {so}"), cure)
        }
    }
}

/// Who refuses a ring, as far as that shows.
fn refusal(facts: &Facts) -> (&'static str, &'static str) {
    match (facts.ring_disabled, facts.seccomp) {
        (Some(1..), _) => (
            ", kernel.io_uring_disabled is set",
            "keep epoll, or sysctl -w kernel.io_uring_disabled=0 where your security rules allow it",
        ),
        (_, Some(1..)) => (
            ", a seccomp filter is in place",
            "keep epoll, or allow the three calls of io_uring: tuning/compose.yaml says how",
        ),
        _ => ("", "keep epoll, or run a kernel with CONFIG_IO_URING and enough locked memory"),
    }
}

fn seccomp(facts: &Facts) -> Finding {
    const CHECK: &str = "seccomp";
    match facts.seccomp {
        Some(0) => good(CHECK, "no filter on this shell; the unit in tuning/ has one"),
        Some(_) => good(CHECK, "a filter is in place"),
        None => {
            let cure = "mount /proc, or ask on the host";
            bad(Grade::Note, CHECK, "/proc/self/status does not tell", cure)
        }
    }
}

fn open_files(facts: &Facts) -> Finding {
    const CHECK: &str = "open files";
    const CURE: &str = "LimitNOFILE=1048576 in the unit, or tuning/tune apply limits";
    match facts.open_files {
        None => good(CHECK, "no bound"),
        Some(count) if count >= FILES_WANTED => good(CHECK, format!("{count}")),
        Some(count) => {
            let grade = if count < FILES_MIN { Grade::Fault } else { Grade::Warning };
            let found = format!("{count} for this shell: each connection is one");
            bad(grade, CHECK, found, CURE)
        }
    }
}

fn locked_memory(facts: &Facts) -> Finding {
    const CHECK: &str = "locked memory";
    let receivers = facts.site.as_ref().map_or(facts.cores, |site| site.receivers);
    let wanted = RING_BYTES * receivers as u64;
    let counted = facts.kernel.is_some_and(|version| version < (5, 12));
    match facts.locked_bytes {
        Some(bytes) if counted && bytes < wanted => bad(
            Grade::Warning,
            CHECK,
            format!("{} for {receivers} rings of io_uring, which count here", ByteSize(bytes)),
            format!("LimitMEMLOCK={} in the unit, or tuning/tune apply limits", 2 * wanted),
        ),
        Some(bytes) => good(CHECK, ByteSize(bytes).to_string()),
        None => good(CHECK, "no bound"),
    }
}

fn cores(facts: &Facts) -> Finding {
    const CHECK: &str = "cores";
    let cores = facts.cores;
    let receivers = facts.site.as_ref().map_or(cores, |site| site.receivers);
    let found = format!("{receivers} receivers on {cores} cores");
    if receivers > cores {
        let cure = format!("receive.receivers = {cores}, or leave it out");
        return bad(Grade::Warning, CHECK, format!("{found}: they wait for one another"), cure);
    }
    if cores == 1 {
        let found = format!("{found}: the keeper of the log takes turns with it");
        return bad(Grade::Note, CHECK, found, "two cores");
    }
    good(CHECK, found)
}

fn settings(facts: &Facts) -> Vec<Finding> {
    let judged = |setting: Setting| {
        let value = *facts.settings.get(setting.name)?;
        let Setting { name, reason, .. } = setting;
        if setting.fits(value) {
            return Some(good(name, value.to_string()));
        }
        let grade = if CONNECTIONS.contains(&name) { Grade::Warning } else { Grade::Note };
        // What stands in brackets is the source.
        let reason = reason.split(" [").next().unwrap_or(reason);
        let found = format!("{value}, not {}: {reason}", setting.asked());
        Some(bad(grade, name, found, format!("tuning/tune apply sysctl {name}")))
    };
    kernel_settings().filter_map(judged).collect()
}

/// With this many cores one is kept for others, as `tuning/tune apply unit` does.
const CORES_TO_SHARE: usize = 4;

fn packets(facts: &Facts) -> Finding {
    const CHECK: &str = "packets";
    if facts.crowded_cards.is_empty() {
        return good(CHECK, "no card seen here leaves them to one core");
    }
    let cards = facts.crowded_cards.join(", ");
    let found = format!("{cards}: one core takes what comes for all");
    bad(Grade::Note, CHECK, found, "tuning/tune apply net")
}

fn frequency(facts: &Facts) -> Finding {
    const CHECK: &str = "frequency";
    let others: Vec<&str> =
        facts.governors.iter().map(String::as_str).filter(|name| *name != "performance").collect();
    match (facts.governors.is_empty(), others.is_empty()) {
        (true, _) => good(CHECK, "not in the hands of this system"),
        (false, true) => good(CHECK, "performance"),
        (false, false) => {
            let found = format!("{}: an idle core meets a burst slowly", others.join(", "));
            bad(Grade::Note, CHECK, found, "tuning/tune apply cpu")
        }
    }
}

fn unit(facts: &Facts) -> Finding {
    const CHECK: &str = "unit";
    const CURE: &str = "tuning/tune apply unit";
    match facts.unit {
        None => good(CHECK, "systemd does not run here"),
        Some(Unit::Missing) => {
            bad(Grade::Note, CHECK, "systemd has none: nothing starts forebay again", CURE)
        }
        Some(Unit::OnAnyCore) if facts.cores >= CORES_TO_SHARE => {
            bad(Grade::Note, CHECK, "no CPUAffinity: interrupts share its cores", CURE)
        }
        Some(Unit::OnAnyCore | Unit::OnItsCores) => good(CHECK, "forebay.service"),
    }
}

fn huge_pages(facts: &Facts) -> Finding {
    const CHECK: &str = "huge pages";
    match facts.huge_pages.as_deref() {
        Some("always") => bad(
            Grade::Note,
            CHECK,
            "always: a first touch may clear 2 MiB, or compact memory, within a request",
            "tuning/tune apply memory",
        ),
        Some(other) => good(CHECK, other),
        None => good(CHECK, "this kernel has none"),
    }
}

fn swap(facts: &Facts) -> Finding {
    const CHECK: &str = "swap";
    match facts.swap_bytes {
        Some(0) => good(CHECK, "none"),
        Some(bytes) => bad(
            Grade::Note,
            CHECK,
            format!(
                "{}: a page that was swapped out is read back within a request",
                ByteSize(bytes)
            ),
            "vm.swappiness at most 10, or MemorySwapMax=0 in the unit",
        ),
        None => bad(Grade::Note, CHECK, "/proc/meminfo does not tell", "mount /proc"),
    }
}

fn clock(facts: &Facts) -> Finding {
    const CHECK: &str = "clock";
    const CURE: &str = "systemctl enable --now systemd-timesyncd, or chrony";
    match facts.clock {
        Clock::Kept => good(CHECK, "synchronised"),
        Clock::Adrift => bad(
            Grade::Warning,
            CHECK,
            "not synchronised: beyond the tolerance of a source every signed time is refused",
            CURE,
        ),
        Clock::Unknown => bad(
            Grade::Note,
            CHECK,
            "neither timedatectl nor chronyc nor the kernel, by perl, tells whether anybody keeps it; \
             in a container the host has to",
            CURE,
        ),
    }
}

fn data_folder(site: &SiteFacts) -> Vec<Finding> {
    const CHECK: &str = "data folder";
    let place = site.data_dir.display();
    let Some(volume) = &site.volume else {
        let cure = "make the folder, and let this user read it";
        return vec![bad(Grade::Fault, CHECK, format!("{place} cannot be looked at"), cure)];
    };
    let mut findings = vec![match (volume.exists, volume.writable) {
        (true, true) => good(CHECK, format!("{place} on {}", volume.file_system)),
        (true, false) => {
            let found = format!("{place} is not for this user to write");
            bad(Grade::Fault, CHECK, found, "ask as the user that serves, or give it the folder")
        }
        (false, _) => {
            let found = format!("{place} is not there yet; it would be on {}", volume.file_system);
            bad(Grade::Note, CHECK, found, "serve makes it where its user may; the unit does, too")
        }
    }];
    findings.extend(file_system(volume, site.synced));
    findings.extend(mount_options(volume, site.synced));
    findings.push(room(volume));
    findings
}

fn file_system(volume: &Volume, synced: bool) -> Option<Finding> {
    const CHECK: &str = "file system";
    let kind = volume.file_system.as_str();
    let cure = "put data_dir on ext4 or XFS; forebay doctor disk PATH tries a volume";
    match kind {
        "ext4" | "xfs" | "btrfs" => None,
        "tmpfs" | "ramfs" if !synced => Some(good(CHECK, format!("{kind}: enough for written"))),
        "tmpfs" | "ramfs" => {
            let found =
                format!("{kind} forgets with the power what a lane promises to keep: no start");
            Some(bad(Grade::Fault, CHECK, found, cure))
        }
        _ => Some(bad(Grade::Warning, CHECK, format!("{kind}: the log is not tested on it"), cure)),
    }
}

fn mount_options(volume: &Volume, synced: bool) -> Vec<Finding> {
    const CHECK: &str = "mount";
    let has = |names: &[&'static str]| {
        names.iter().copied().find(|name| volume.options.iter().any(|option| option == name))
    };
    let mut findings = Vec::new();
    if has(&["ro"]).is_some() {
        findings.push(bad(Grade::Fault, CHECK, "ro: nothing can be kept", "mount it rw"));
    }
    if let Some(option) = has(&["nobarrier", "barrier=0", "data=writeback"]).filter(|_| synced) {
        let found = format!("{option}: a loss of power takes what was synced");
        findings.push(bad(Grade::Warning, CHECK, found, format!("mount it without {option}")));
    }
    if has(&["noatime", "relatime"]).is_none() {
        let found = "strictatime: each read of the log writes";
        findings.push(bad(Grade::Note, CHECK, found, "mount it noatime"));
    }
    if has(&["discard"]).is_some() {
        let found = "discard: each segment that goes is trimmed at once, beside the syncs";
        let cure = "mount it without, and systemctl enable --now fstrim.timer";
        findings.push(bad(Grade::Note, CHECK, found, cure));
    }
    findings
}

fn room(volume: &Volume) -> Finding {
    const CHECK: &str = "room";
    let (free, all) = (volume.available_bytes, volume.all_bytes);
    let found = format!("{} of {} are free", ByteSize(free), ByteSize(all));
    let reserve = volume.reserve_bytes;
    if free < reserve {
        let found = format!("{found}, less than the {} that a lane leaves free", ByteSize(reserve));
        return bad(Grade::Fault, CHECK, found, "make room, or set lane.disk_reserve");
    }
    if free < reserve.saturating_mul(2) {
        let cure = "make room, or lower retention.size";
        return bad(Grade::Warning, CHECK, format!("{found}: little for a burst"), cure);
    }
    good(CHECK, found)
}

fn ports(ports: &[Port]) -> Vec<Finding> {
    use std::io::ErrorKind;
    let taken = |port: &Port| port.refused == Some(ErrorKind::AddrInUse);
    // forebay itself has both.
    let runs = ports.iter().all(taken);
    let judged = |port: &Port| {
        let Port { key, address, refused } = port;
        let Some(refused) = refused else { return good(key, format!("{address} is free")) };
        let (grade, found, cure) = match refused {
            ErrorKind::AddrInUse if runs => {
                (Grade::Note, "is in use, by forebay itself if it runs", "none, if it does")
            }
            ErrorKind::AddrInUse => {
                (Grade::Fault, "is in use", "ss -ltnp tells by whom; end it, or take another port")
            }
            ErrorKind::PermissionDenied => (
                Grade::Fault,
                "is not for this user",
                "a port from 1024 on, or CAP_NET_BIND_SERVICE as in tuning/forebay.service",
            ),
            ErrorKind::AddrNotAvailable => {
                (Grade::Fault, "is no address of this machine", "ip address lists those it has")
            }
            _ => (Grade::Fault, "cannot be listened on", "see that the network is up"),
        };
        bad(grade, key, format!("{address} {found}"), cure)
    };
    ports.iter().map(judged).collect()
}

#[cfg(test)]
mod tests;
