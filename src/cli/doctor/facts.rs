//! What the machine is, as far as forebay cares. Nothing is judged here, and nothing changed; what
//! cannot be learned is absent.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use forebay_log::AckLevel;
use rustix::fs::{Access, access};
use rustix::process::{Resource, getrlimit};

use super::judge::kernel_settings;
use crate::config::{AdminConfig, Driver, LaneConfig, ReceiveConfig, Site};
use crate::runtime;

/// All that is judged.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The kernel's version, without what follows the second number.
    pub kernel: Option<(u32, u32)>,
    pub ring: Ring,
    /// `kernel.io_uring_disabled`; absent before Linux 6.6.
    pub ring_disabled: Option<u64>,
    /// 0 none, 1 strict, 2 a filter.
    pub seccomp: Option<u64>,
    /// Open files that this user may have; absent where there is no bound.
    pub open_files: Option<u64>,
    /// Memory that this user may lock; absent where there is no bound.
    pub locked_bytes: Option<u64>,
    /// The cores that this process may use.
    pub cores: usize,
    /// Kernel settings by name, those of `tuning/sysctl.table` that are there.
    pub settings: BTreeMap<&'static str, u64>,
    /// `always`, `madvise` or `never`.
    pub huge_pages: Option<String>,
    pub swap_bytes: Option<u64>,
    pub clock: Clock,
    /// Governors of the cores' frequency; none where it is not in the hands of this system.
    pub governors: BTreeSet<String>,
    /// Network cards whose packets one core has to take.
    pub crowded_cards: Vec<String>,
    /// The unit of systemd; absent where systemd does not run.
    pub unit: Option<Unit>,
    /// What the configuration adds.
    pub site: Option<SiteFacts>,
}

/// What receivers get of `io_uring`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ring {
    /// With the flags that make it cheap.
    Cooperative,
    Plain,
    Refused(String),
}

/// Whether somebody keeps the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    Kept,
    Adrift,
    Unknown,
}

/// What systemd knows of forebay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Missing,
    OnAnyCore,
    OnItsCores,
}

/// What a configuration asks of the machine, and what it finds there.
#[derive(Clone, Debug)]
pub(super) struct SiteFacts {
    pub receivers: usize,
    pub driver: Driver,
    /// Whether any lane promises `synced`.
    pub synced: bool,
    pub data_dir: PathBuf,
    pub volume: Option<Volume>,
    pub ports: Vec<Port>,
}

/// Where the data folder is, or would be made.
#[derive(Clone, Debug)]
pub(super) struct Volume {
    /// Whether the data folder is there yet.
    pub exists: bool,
    /// Whether this user may write in it, if it is there.
    pub writable: bool,
    pub file_system: String,
    pub options: Vec<String>,
    pub available_bytes: u64,
    pub all_bytes: u64,
    /// What the lane that leaves the most free leaves free.
    pub reserve_bytes: u64,
}

/// An address to listen on.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub key: &'static str,
    pub address: SocketAddr,
    /// Why it cannot be had.
    pub refused: Option<io::ErrorKind>,
}

impl Facts {
    /// Looks.
    pub(super) fn gather(site: Option<&Site>) -> Self {
        Self {
            kernel: version(&rustix::system::uname().release().to_string_lossy()),
            ring: match runtime::probe_ring() {
                Ok(true) => Ring::Cooperative,
                Ok(false) => Ring::Plain,
                Err(error) => Ring::Refused(error.to_string()),
            },
            ring_disabled: number("/proc/sys/kernel/io_uring_disabled"),
            seccomp: field("/proc/self/status", "Seccomp:"),
            open_files: getrlimit(Resource::Nofile).current,
            locked_bytes: getrlimit(Resource::Memlock).current,
            cores: runtime::cores().len(),
            settings: kernel_settings()
                .filter_map(|row| Some((row.name, setting(row.name, number)?)))
                .collect(),
            huge_pages: text("/sys/kernel/mm/transparent_hugepage/enabled")
                .map(|text| chosen(&text)),
            swap_bytes: field("/proc/meminfo", "SwapTotal:").map(|kibibytes| kibibytes * 1024),
            clock: clock(),
            governors: governors(),
            crowded_cards: crowded_cards(),
            unit: unit(),
            site: site.map(site_facts),
        }
    }
}

fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn number(path: &str) -> Option<u64> {
    text(path)?.parse().ok()
}

/// The value of a kernel setting. Of a pair as `vm.dirty_ratio` and `vm.dirty_bytes` one holds at a
/// time; where the bytes do, the ratio reads 0 and says nothing.
fn setting(name: &str, number: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    let bytes = path.strip_suffix("_ratio").map(|path| format!("{path}_bytes"));
    if bytes.and_then(|path| number(&path)).is_some_and(|bytes| bytes > 0) {
        return None;
    }
    number(&path)
}

/// The number behind a name at the start of a line.
fn field(path: &str, name: &str) -> Option<u64> {
    let text = text(path)?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// `6.1` of `6.1.0-18-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-', '+']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// `madvise` of `always [madvise] never`.
fn chosen(text: &str) -> String {
    let inside = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inside.map_or(text, |(chosen, _)| chosen).to_owned()
}

/// Asks those who keep it, and then the kernel, whose word holds in a container too. That is one
/// system call, adjtimex, which takes unsafe code; perl, which every Debian has, makes it.
fn clock() -> Clock {
    const ADJTIMEX: &str = "my $t = \"\\0\" x 256; print 'state ', syscall($ARGV[0], $t)";
    // Leap seconds to come, or none. 5 is TIME_ERROR, and -1 that the call failed.
    const STATES_KEPT: [&str; 5] = ["state 0", "state 1", "state 2", "state 3", "state 4"];
    let number = match std::env::consts::ARCH {
        "x86_64" => "159",
        "aarch64" | "riscv64" => "171",
        // No such call.
        _ => "-1",
    };
    // What it answers where somebody keeps the clock, and where nobody does.
    let words: [(&[&str], &[&str], &str); 3] = [
        (&["timedatectl", "show", "--property=NTPSynchronized", "--value"], &["yes"], "no"),
        (&["chronyc", "-c", "tracking"], &[",Normal"], ",Not synchronised"),
        (&["perl", "-e", ADJTIMEX, number], &STATES_KEPT, "state 5"),
    ];
    for (command, kept, adrift) in words {
        let asked = Command::new(command[0])
            .args(&command[1..])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        let Ok(answer) = asked else { continue };
        let answer = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
        if kept.iter().any(|kept| answer.ends_with(kept)) {
            return Clock::Kept;
        } else if answer.ends_with(adrift) {
            return Clock::Adrift;
        }
    }
    Clock::Unknown
}

/// What a folder holds, by name; nothing where there is none.
fn listed(folder: &str) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

fn governors() -> BTreeSet<String> {
    const CPUS: &str = "/sys/devices/system/cpu";
    listed(CPUS).filter_map(|cpu| text(&format!("{CPUS}/{cpu}/cpufreq/scaling_governor"))).collect()
}

/// Cards, and no bridges, that have fewer queues than there are cores and do not spread what comes
/// by RPS; or as many, whose interrupts all go to one core.
fn crowded_cards() -> Vec<String> {
    const CARDS: &str = "/sys/class/net";
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let crowded = |card: &String| {
        let place = format!("{CARDS}/{card}");
        let queues: Vec<String> =
            listed(&format!("{place}/queues")).filter(|queue| queue.starts_with("rx-")).collect();
        let spread = |queue: &String| {
            let set = text(&format!("{place}/queues/{queue}/rps_cpus")).unwrap_or_default();
            set.contains(|digit: char| digit.is_ascii_hexdigit() && digit != '0')
        };
        if queues.len() < cores {
            return !queues.is_empty() && !queues.iter().all(spread);
        }
        let goes_to = |irq| text(&format!("/proc/irq/{irq}/effective_affinity_list"));
        let mut irqs = listed(&format!("{place}/device/msi_irqs")).filter_map(goes_to);
        let first = irqs.next();
        cores > 1 && first.is_some() && irqs.all(|cores| Some(cores) == first)
    };
    let is_card = |card: &String| Path::new(&format!("{CARDS}/{card}/device")).exists();
    let mut cards: Vec<String> = listed(CARDS).filter(is_card).filter(crowded).collect();
    cards.sort();
    cards
}

fn unit() -> Option<Unit> {
    let folders = ["/etc/systemd/system", "/usr/lib/systemd/system"];
    let any = |name: &str| folders.map(|folder| format!("{folder}/{name}")).map(|path| text(&path));
    if !Path::new("/run/systemd/system").is_dir() {
        return None;
    }
    let parts = any("forebay.service").into_iter().chain(any("forebay.service.d/60-cores.conf"));
    let text: String = parts.flatten().collect::<Vec<_>>().join("\n");
    Some(match text.lines().any(|line| line.starts_with("CPUAffinity=")) {
        _ if text.is_empty() => Unit::Missing,
        true => Unit::OnItsCores,
        false => Unit::OnAnyCore,
    })
}

fn site_facts(site: &Site) -> SiteFacts {
    let Site { kept, receive, admin } = site;
    SiteFacts {
        receivers: receive.receivers,
        driver: receive.driver,
        synced: kept.lanes.iter().any(|lane| lane.ack == AckLevel::Synced),
        volume: volume(&kept.data_dir, &kept.lanes),
        data_dir: kept.data_dir.clone(),
        ports: ports(receive, admin),
    }
}

fn ports(receive: &ReceiveConfig, admin: &AdminConfig) -> Vec<Port> {
    let wanted = [("receive.listen", receive.listen), ("admin.listen", admin.listen)];
    let tried = |(key, address)| {
        // Without SO_REUSEPORT: a forebay that runs already is in the way, and is to be seen.
        let refused = TcpListener::bind(address).err().map(|error| error.kind());
        Port { key, address, refused }
    };
    wanted.into_iter().map(tried).collect()
}

fn volume(data_dir: &Path, lanes: &[LaneConfig]) -> Option<Volume> {
    let absolute = std::path::absolute(data_dir).ok()?;
    let folder = absolute.ancestors().find(|folder| folder.is_dir())?;
    let whole = fs::canonicalize(folder).ok()?;
    let (file_system, options) = mount(&text("/proc/self/mountinfo")?, &whole)?;
    let sizes = rustix::fs::statvfs(&whole).ok()?;
    let all_bytes = sizes.f_blocks.saturating_mul(sizes.f_frsize);
    Some(Volume {
        exists: folder == absolute,
        writable: access(&whole, Access::WRITE_OK | Access::EXEC_OK).is_ok(),
        file_system,
        options,
        available_bytes: sizes.f_bavail.saturating_mul(sizes.f_frsize),
        all_bytes,
        reserve_bytes: lanes.iter().map(|lane| lane.reserve_bytes(all_bytes)).max().unwrap_or(0),
    })
}

/// The type and the options, of the mount and of the file system, of the innermost mount that holds
/// a folder; the last of those on one place, which hides the others.
fn mount(mountinfo: &str, folder: &Path) -> Option<(String, Vec<String>)> {
    let holds = |line: &&str| {
        let place = line.split(' ').nth(4).map(|place| place.replace("\\040", " "));
        place.is_some_and(|place| folder.starts_with(place))
    };
    let depth = |line: &&str| {
        line.split(' ').nth(4).map_or(0, |place| Path::new(place).components().count())
    };
    // max_by_key takes the last of equals.
    let line = mountinfo.lines().filter(holds).max_by_key(depth)?;
    let (before, behind) = line.split_once(" - ")?;
    let mut behind = behind.split(' ');
    let (file_system, inner) = (behind.next()?.to_owned(), behind.nth(1)?);
    let outer = before.split(' ').nth(5)?;
    let options = outer.split(',').chain(inner.split(',')).map(str::to_owned).collect();
    Some((file_system, options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("5.10+deb"), Some((5, 10)));
        assert_eq!(version("plan9"), None);
        assert_eq!(chosen("always [madvise] never"), "madvise");
        assert_eq!(chosen("never"), "never");
    }

    #[test]
    fn a_ratio_says_nothing_where_bytes_hold_in_its_place() {
        let kernel = |path: &str| match path {
            "/proc/sys/vm/dirty_bytes" => Some(1 << 30),
            "/proc/sys/vm/dirty_ratio" | "/proc/sys/vm/dirty_background_bytes" => Some(0),
            "/proc/sys/vm/dirty_background_ratio" => Some(10),
            _ => None,
        };
        assert_eq!(setting("vm.dirty_ratio", kernel), None);
        assert_eq!(setting("vm.dirty_background_ratio", kernel), Some(10));
        assert_eq!(setting("vm.swappiness", kernel), None);
    }

    #[test]
    fn a_folder_is_on_the_innermost_mount_that_holds_it() {
        let mounts = "21 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n\
                      22 21 0:5 / /srv/my\\040data rw - tmpfs none rw,size=1k\n\
                      23 21 254:1 / /srv/log rw,noatime shared:1 - ext4 /dev/vdb rw\n\
                      24 23 254:2 / /srv/log rw,noatime - xfs /dev/vdc rw,nobarrier\n";
        let kind = |folder| mount(mounts, Path::new(folder)).expect("it is mounted").0;
        assert_eq!(kind("/srv"), "ext4");
        assert_eq!(kind("/srv/logs"), "ext4");
        assert_eq!(kind("/srv/my data/a"), "tmpfs");
        let (kind, options) = mount(mounts, Path::new("/srv/log/main")).expect("it is mounted");
        assert_eq!(kind, "xfs");
        assert_eq!(options, ["rw", "noatime", "rw", "nobarrier"]);
    }

    #[test]
    fn this_machine_has_facts() {
        let facts = Facts::gather(None);
        assert!(facts.kernel.is_some() && facts.cores > 0 && facts.site.is_none());
        assert!(facts.settings.contains_key("vm.swappiness"));
        let here = volume(Path::new("/tmp/not/there/yet"), &[]).expect("it would be somewhere");
        assert!(!here.exists && here.all_bytes >= here.available_bytes);
    }
}
