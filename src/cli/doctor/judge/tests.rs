//! A machine without fault, and each fault alone.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::*;

/// A machine with nothing to find fault with.
fn sound() -> Facts {
    let port = |key, port| Port {
        key,
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        refused: None,
    };
    Facts {
        kernel: Some((6, 12)),
        ring: Ring::Cooperative,
        ring_disabled: Some(0),
        seccomp: Some(0),
        open_files: Some(1_048_576),
        locked_bytes: Some(8 << 20),
        cores: 4,
        settings: kernel_settings().map(|row| (row.name, row.wanted)).collect(),
        huge_pages: Some("madvise".to_owned()),
        swap_bytes: Some(0),
        clock: Clock::Kept,
        governors: ["performance".to_owned()].into(),
        crowded_cards: Vec::new(),
        unit: Some(Unit::OnItsCores),
        site: Some(SiteFacts {
            receivers: 4,
            driver: Driver::Auto,
            synced: true,
            data_dir: PathBuf::from("/var/lib/forebay"),
            volume: Some(Volume {
                exists: true,
                writable: true,
                file_system: "ext4".to_owned(),
                options: vec!["rw".to_owned(), "noatime".to_owned()],
                available_bytes: 1 << 39,
                all_bytes: 1 << 40,
                reserve_bytes: (1 << 40) / 20,
            }),
            ports: vec![port("receive.listen", 8080), port("admin.listen", 9464)],
        }),
    }
}

fn site(facts: &mut Facts) -> &mut SiteFacts {
    facts.site.as_mut().expect("it has one")
}

fn volume(facts: &mut Facts) -> &mut Volume {
    site(facts).volume.as_mut().expect("it has one")
}

type Harm = fn(&mut Facts);

/// Each: what is done to the sound machine, which check tells, how bad it is, and a part of what is
/// said of it, cure included.
const HARMS: [(Harm, &str, Grade, &str); 36] = [
    (|facts| facts.kernel = Some((5, 10)), "kernel", Grade::Warning, "6.1 or later"),
    (|facts| facts.kernel = Some((4, 19)), "kernel", Grade::Warning, "receivers fault"),
    (|facts| facts.kernel = Some((5, 15)), "kernel", Grade::Note, "flags"),
    (|facts| facts.kernel = None, "kernel", Grade::Note, "cannot be read"),
    (|facts| facts.ring = Ring::Plain, "io_uring", Grade::Warning, "epoll"),
    (|facts| facts.ring = Ring::Refused("EPERM".to_owned()), "io_uring", Grade::Note, "EPERM"),
    (|facts| facts.seccomp = None, "seccomp", Grade::Note, "/proc"),
    (|facts| facts.open_files = Some(1024), "open files", Grade::Warning, "LimitNOFILE"),
    (|facts| facts.open_files = Some(64), "open files", Grade::Fault, "limits"),
    (|facts| facts.cores = 3, "cores", Grade::Warning, "receive.receivers = 3"),
    (|facts| facts.huge_pages = Some("always".to_owned()), "huge pages", Grade::Note, "memory"),
    (|facts| facts.swap_bytes = Some(1 << 30), "swap", Grade::Note, "1.0 GiB"),
    (|facts| facts.swap_bytes = None, "swap", Grade::Note, "meminfo"),
    (|facts| facts.clock = Clock::Adrift, "clock", Grade::Warning, "chrony"),
    (|facts| facts.clock = Clock::Unknown, "clock", Grade::Note, "container"),
    (|facts| facts.crowded_cards.push("eth0".into()), "packets", Grade::Note, "apply net"),
    (|facts| facts.governors = ["powersave".into()].into(), "frequency", Grade::Note, "apply cpu"),
    (|facts| facts.unit = Some(Unit::Missing), "unit", Grade::Note, "apply unit"),
    (|facts| facts.unit = Some(Unit::OnAnyCore), "unit", Grade::Note, "CPUAffinity"),
    (|facts| volume(facts).options.retain(|of| of != "noatime"), "mount", Grade::Note, "noatime"),
    (|facts| facts.site = None, "configuration", Grade::Note, "--config"),
    (|facts| site(facts).volume = None, "data folder", Grade::Fault, "/var/lib/forebay"),
    (|facts| volume(facts).exists = false, "data folder", Grade::Note, "not there yet"),
    (|facts| volume(facts).writable = false, "data folder", Grade::Fault, "not for this user"),
    (|facts| volume(facts).file_system = "tmpfs".into(), "file system", Grade::Fault, "no start"),
    (
        |facts| volume(facts).file_system = "nfs4".into(),
        "file system",
        Grade::Warning,
        "not tested",
    ),
    (|facts| volume(facts).options.push("ro".into()), "mount", Grade::Fault, "rw"),
    (|facts| volume(facts).options.push("nobarrier".into()), "mount", Grade::Warning, "without"),
    (|facts| volume(facts).options.push("discard".into()), "mount", Grade::Note, "fstrim"),
    (|facts| volume(facts).available_bytes = 1 << 30, "room", Grade::Fault, "disk_reserve"),
    (|facts| volume(facts).available_bytes = 1 << 36, "room", Grade::Warning, "a burst"),
    (|facts| refuse(facts, ErrorKind::AddrInUse), "receive.listen", Grade::Fault, "ss -ltnp"),
    (|facts| refuse(facts, ErrorKind::PermissionDenied), "receive.listen", Grade::Fault, "CAP_NET"),
    (|facts| refuse(facts, ErrorKind::AddrNotAvailable), "receive.listen", Grade::Fault, "ip addr"),
    (|facts| refuse(facts, ErrorKind::Other), "receive.listen", Grade::Fault, "network"),
    (|facts| set(facts, "net.core.somaxconn", 128), "net.core.somaxconn", Grade::Warning, "4096"),
];

fn refuse(facts: &mut Facts, kind: ErrorKind) {
    site(facts).ports[0].refused = Some(kind);
}

fn set(facts: &mut Facts, name: &'static str, value: u64) {
    facts.settings.insert(name, value);
}

/// The findings that are not good.
fn told(facts: &Facts) -> Vec<Finding> {
    judge(facts).into_iter().filter(|finding| finding.grade > Grade::Good).collect()
}

#[test]
fn nothing_is_said_against_a_sound_machine() {
    assert!(told(&sound()).is_empty(), "{:?}", told(&sound()));
    assert!(judge(&sound()).len() > 20);
}

#[test]
fn each_lack_is_told_alone_with_its_grade_and_its_cure() {
    for (harm, check, grade, says) in HARMS {
        let mut facts = sound();
        harm(&mut facts);
        let told = told(&facts);
        assert_eq!(told.len(), 1, "{check}: {told:?}");
        assert_eq!((told[0].check.as_str(), told[0].grade), (check, grade));
        let cure = told[0].cure.as_deref().expect("what is not well has a cure");
        let all = format!("{} {cure}", told[0].found);
        assert!(all.contains(says), "{check}: {all}");
    }
}

#[test]
fn every_line_of_the_table_is_read_and_judged() {
    let lines = TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    assert_eq!(kernel_settings().count(), lines.count());
    for setting in kernel_settings() {
        assert!(setting.reason.contains(" [") && setting.reason.ends_with(']'), "{setting:?}");
        let worse = match setting.relation {
            "least" => setting.wanted - 1,
            "most" | "is" => setting.wanted + 1,
            other => panic!("{other} is no relation"),
        };
        let mut facts = sound();
        set(&mut facts, setting.name, worse);
        let told = told(&facts);
        assert_eq!(told.len(), 1, "{setting:?}");
        assert_eq!(told[0].check, setting.name);
    }
    for name in CONNECTIONS {
        assert!(kernel_settings().any(|setting| setting.name == name), "{name}");
    }
    // A kernel that does not have a setting is not asked about it.
    let mut facts = sound();
    facts.settings = BTreeMap::new();
    assert!(told(&facts).is_empty());
}

#[test]
fn a_ring_that_is_refused_is_a_fault_only_where_it_was_asked_for() {
    let found = |driver, disabled, seccomp| {
        let mut facts = sound();
        facts.ring = Ring::Refused("EPERM".to_owned());
        (facts.ring_disabled, facts.seccomp) = (Some(disabled), Some(seccomp));
        site(&mut facts).driver = driver;
        ring(&facts)
    };
    assert_eq!(found(Driver::Auto, 0, 0).grade, Grade::Note);
    assert_eq!(found(Driver::Epoll, 0, 0).grade, Grade::Good);
    assert_eq!(found(Driver::IoUring, 0, 0).grade, Grade::Fault);
    assert!(found(Driver::Auto, 2, 2).found.contains("io_uring_disabled"));
    assert!(found(Driver::Auto, 0, 2).found.contains("seccomp"));
}

#[test]
fn rings_count_as_locked_memory_on_old_kernels_alone() {
    let mut facts = sound();
    facts.locked_bytes = Some(64 * 1024);
    assert_eq!(locked_memory(&facts).grade, Grade::Good);
    facts.kernel = Some((5, 10));
    assert_eq!(locked_memory(&facts).grade, Grade::Warning);
    facts.locked_bytes = None;
    assert_eq!(locked_memory(&facts).grade, Grade::Good);
}

#[test]
fn a_lane_that_promises_less_asks_less_of_its_disk() {
    let mut facts = sound();
    site(&mut facts).synced = false;
    volume(&mut facts).file_system = "tmpfs".to_owned();
    volume(&mut facts).options.push("nobarrier".to_owned());
    assert!(told(&facts).is_empty());
}

#[test]
fn what_must_stay_free_is_what_the_lanes_are_told() {
    let mut facts = sound();
    volume(&mut facts).available_bytes = 1 << 33;
    assert_eq!(told(&facts)[0].grade, Grade::Fault);
    volume(&mut facts).reserve_bytes = 1 << 30;
    assert!(told(&facts).is_empty(), "{:?}", told(&facts));
}

#[test]
fn both_ports_taken_are_forebay_itself() {
    let mut facts = sound();
    for port in &mut site(&mut facts).ports {
        port.refused = Some(ErrorKind::AddrInUse);
    }
    let grades: Vec<Grade> = told(&facts).iter().map(|finding| finding.grade).collect();
    assert_eq!(grades, [Grade::Note, Grade::Note]);
}
