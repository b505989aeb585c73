//! `forebay doctor disk PATH`: which ack level a volume can carry, why, and what to change.
//!
//! Tries in a folder of its own what the log does all day: allocation, stores through a mapping,
//! syncs of it, renames. Exit codes: 0 it carries `synced`, 3 only `written`, 4 neither, 1 the
//! output cannot be written, 2 wrong usage, 75 it cannot be tried now.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use forebay_log::{SAMPLES_MAX, Trial, VolumeFacts, probe};
use serde_json::{Value, json};

use super::super::{EXIT_BLOCKING, EXIT_DAMAGE, EXIT_TEMPORARY, terminal};

/// Slower than this, acknowledgements at `synced` are felt by senders with short timeouts.
const SLOW: Duration = Duration::from_millis(100);
/// Faster than this, no medium was reached.
const TOO_FAST: Duration = Duration::from_micros(15);

/// What `doctor disk` takes.
#[derive(Clone, Debug, Args)]
pub(super) struct DiskArgs {
    /// A folder on the volume, such as the data folder; nothing is left in it
    path: PathBuf,
    /// How many syncs of each sort are timed
    #[arg(long, value_name = "N", default_value_t = 200,
        value_parser = clap::value_parser!(u64).range(1..=SAMPLES_MAX as u64))]
    samples: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub(super) fn run(args: &DiskArgs) -> ExitCode {
    if !args.path.is_dir() {
        terminal::warn(&format!("error: {} is not a folder", args.path.display()));
        return ExitCode::from(2);
    }
    let facts = match probe(&args.path, usize::try_from(args.samples).unwrap_or(SAMPLES_MAX)) {
        Ok(facts) => facts,
        Err(error) => {
            terminal::warn(&format!("error: {}: {error}", args.path.display()));
            return ExitCode::from(EXIT_TEMPORARY);
        }
    };
    let verdict = judge(&facts);
    let text = if args.json {
        format!("{:#}\n", json_of(&facts, &verdict))
    } else {
        text_of(&facts, &verdict)
    };
    terminal::print(text.as_bytes(), verdict.exit_code())
}

/// What the facts come to.
struct Verdict {
    /// The highest ack level that can be kept.
    carries: Option<&'static str>,
    /// What is in the way of a higher one, or is worth knowing, each with what to do.
    advice: Vec<String>,
}

impl Verdict {
    fn exit_code(&self) -> u8 {
        match self.carries {
            Some("synced") => 0,
            Some(_) => EXIT_DAMAGE,
            None => EXIT_BLOCKING,
        }
    }
}

fn judge(facts: &VolumeFacts) -> Verdict {
    let mut advice = Vec::new();
    let mut needs = |trial: &Trial, without: &str| {
        if let Trial::Fails(error) = trial {
            advice.push(format!("{without} ({error})"));
        }
        trial.passes()
    };
    let written = [
        (
            &facts.allocate,
            "files cannot be allocated whole, so that a full disk would end the process in the \
             middle of a store: use ext4 or XFS",
        ),
        (
            &facts.no_cow,
            "files cannot be exempt from copy-on-write, so that a store may need blocks that a \
             full disk has not: mount without forced compression, or use ext4 or XFS",
        ),
        (
            &facts.coherent,
            "a mapping and a read disagree: use a local file system instead of this one",
        ),
    ];
    let written = written.map(|(trial, without)| needs(trial, without)).iter().all(|is| *is);
    let synced = [
        (&facts.rename, "a new name cannot be made durable: use a local file system"),
        (&facts.map_sync, "a mapped file cannot be synced: use a local file system"),
    ];
    let synced = synced.map(|(trial, without)| needs(trial, without)).iter().all(|is| *is);
    needs(&facts.make_ready, "pages cannot be made ready: stores fault; Linux 5.14 can");
    needs(&facts.futex, "readers poll, 2 ms apart: the kernel does not let them wait");
    if facts.volatile {
        advice.push(format!(
            "{} forgets everything with the power: put data_dir on a disk, or say ack = \"written\"",
            facts.file_system
        ));
    }
    advice.extend(warnings(facts));
    let carries = match (written, synced && !facts.volatile) {
        (false, _) => None,
        (true, false) => Some("written"),
        (true, true) => Some("synced"),
    };
    Verdict { carries, advice }
}

/// What takes no ack level away.
fn warnings(facts: &VolumeFacts) -> Vec<String> {
    let mut warnings = Vec::new();
    if !facts.tested {
        warnings.push(format!(
            "the log is not tested on {}; it is on ext4, XFS and btrfs",
            facts.file_system
        ));
    }
    let reserve_bytes = facts.all_bytes / 20;
    if facts.available_bytes < reserve_bytes {
        warnings.push(format!(
            "{} of {} are free, less than the 5 % that a lane leaves free: it would take nothing; \
             make room, or set lane.disk_reserve",
            ByteSize(facts.available_bytes),
            ByteSize(facts.all_bytes)
        ));
    }
    match (percentile(&facts.map_syncs, 50), percentile(&facts.map_syncs, 99)) {
        (Some(middle), _) if middle < TOO_FAST && !facts.volatile => warnings.push(format!(
            "a sync takes {middle:?}, which no medium can: see that the disk's or the hypervisor's \
             cache is flushed (no `nobarrier`, no cache=unsafe), or a loss of power loses events"
        )),
        (_, Some(slow)) if slow > SLOW => warnings.push(format!(
            "one sync in a hundred takes {slow:?} or more, and acknowledgements at synced with it: \
             use a disk of its own, or an SSD with power-loss protection"
        )),
        _ => {}
    }
    warnings
}

/// The value below which so many in a hundred lie, of durations in order.
fn percentile(sorted: &[Duration], of: usize) -> Option<Duration> {
    let index = (sorted.len() * of).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied()
}

const PERCENTILES: [(&str, usize); 4] = [("p50", 50), ("p90", 90), ("p99", 99), ("max", 100)];

fn trials(facts: &VolumeFacts) -> [(&'static str, &Trial); 8] {
    [
        ("allocate", &facts.allocate),
        ("no_cow", &facts.no_cow),
        ("coherent", &facts.coherent),
        ("rename", &facts.rename),
        ("map_sync", &facts.map_sync),
        ("make_ready", &facts.make_ready),
        ("futex", &facts.futex),
        ("direct", &facts.direct),
    ]
}

fn trial_text(trial: &Trial) -> String {
    match trial {
        Trial::Works => "works".to_owned(),
        Trial::NotNeeded => "not needed".to_owned(),
        Trial::Fails(error) => format!("fails: {error}"),
    }
}

fn json_of(facts: &VolumeFacts, verdict: &Verdict) -> Value {
    let micros = |syncs: &[Duration]| -> Value {
        let of = |(name, of): (&str, usize)| {
            let took = percentile(syncs, of).and_then(|took| u64::try_from(took.as_micros()).ok());
            (name.to_owned(), json!(took))
        };
        Value::Object(PERCENTILES.into_iter().map(of).collect())
    };
    let tried = trials(facts).map(|(name, trial)| (name.to_owned(), json!(trial_text(trial))));
    json!({
        "carries": verdict.carries,
        "advice": verdict.advice,
        "file_system": facts.file_system,
        "volatile": facts.volatile,
        "available_bytes": facts.available_bytes,
        "all_bytes": facts.all_bytes,
        "trials": Value::Object(tried.into_iter().collect()),
        "map_sync_us": micros(&facts.map_syncs),
        "file_sync_us": micros(&facts.file_syncs),
    })
}

fn text_of(facts: &VolumeFacts, verdict: &Verdict) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let (free, all) = (ByteSize(facts.available_bytes), ByteSize(facts.all_bytes));
    _ = writeln!(text, "  {:<12}  {}, {free} of {all} free", "file system", facts.file_system);
    for (name, trial) in trials(facts) {
        _ = writeln!(text, "  {name:<12}  {}", trial_text(trial));
    }
    for (name, syncs) in [("msync", &facts.map_syncs), ("fdatasync", &facts.file_syncs)] {
        let told: Vec<String> = PERCENTILES
            .into_iter()
            .filter_map(|(name, of)| Some(format!("{name} {:.1?}", percentile(syncs, of)?)))
            .collect();
        _ = writeln!(text, "  {name:<12}  {} of a page: {}", syncs.len(), told.join(", "));
    }
    match verdict.carries {
        Some("synced") => _ = writeln!(text, "\ncarries synced, and so written"),
        Some(level) => _ = writeln!(text, "\ncarries {level} only"),
        None => _ = writeln!(text, "\ncarries no ack level"),
    }
    for advice in &verdict.advice {
        _ = writeln!(text, "- {advice}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> VolumeFacts {
        VolumeFacts {
            file_system: "ext4".to_owned(),
            volatile: false,
            tested: true,
            available_bytes: 1 << 40,
            all_bytes: 1 << 41,
            no_cow: Trial::NotNeeded,
            allocate: Trial::Works,
            rename: Trial::Works,
            make_ready: Trial::Works,
            coherent: Trial::Works,
            futex: Trial::Works,
            direct: Trial::Works,
            map_sync: Trial::Works,
            map_syncs: (1..=200).map(|step| Duration::from_micros(step * 10)).collect(),
            file_syncs: Vec::new(),
        }
    }

    #[test]
    fn each_lack_takes_the_level_that_needs_it_and_is_explained() {
        type Harm = fn(&mut VolumeFacts);
        let fails = || Trial::Fails("not supported".to_owned());
        assert!(judge(&sound()).advice.is_empty());
        let cases: [(Harm, u8, &str); 9] = [
            (|_| (), 0, ""),
            (|facts| facts.volatile = true, 3, "forgets everything"),
            (|facts| facts.rename = Trial::Fails(String::new()), 3, "durable"),
            (|facts| facts.map_sync = Trial::Fails(String::new()), 3, "synced"),
            (|facts| facts.allocate = Trial::Fails(String::new()), 4, "allocated whole"),
            (|facts| facts.no_cow = Trial::Fails(String::new()), 4, "copy-on-write"),
            (|facts| facts.available_bytes = 5, 0, "make room"),
            (|facts| facts.map_syncs = vec![Duration::from_micros(1); 9], 0, "no medium can"),
            (|facts| facts.map_syncs = vec![Duration::from_secs(1); 9], 0, "disk of its own"),
        ];
        for (harm, code, says) in cases {
            let mut facts = sound();
            harm(&mut facts);
            let verdict = judge(&facts);
            assert_eq!(verdict.exit_code(), code, "{says}");
            let text = text_of(&facts, &verdict);
            assert!(text.contains(says), "{text}");
        }
        let mut facts = sound();
        facts.futex = fails();
        let json = json_of(&facts, &judge(&facts));
        assert_eq!(
            (&json["carries"], &json["trials"]["futex"]),
            (&json!("synced"), &json!("fails: not supported"))
        );
        assert_eq!(
            json["map_sync_us"],
            json!({"p50": 1000, "p90": 1800, "p99": 1980, "max": 2000})
        );
    }
}
