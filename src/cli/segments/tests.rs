//! A lane is written as the server writes it, harmed, and looked at as a shell does.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use clap::Parser;
use forebay_log::{AckLevel, Key, Kind, Lane, LaneOptions, NewRecord};
use tempfile::TempDir;

use super::*;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    segments: SegmentsArgs,
}

fn written() -> (TempDir, PathBuf) {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("lanes/main");
    let options = LaneOptions {
        segment_bytes: forebay_log::SEGMENT_BYTES_MIN,
        ack: AckLevel::Written,
        disk_reserve_bytes: Some(0),
        volatile_allowed: true,
        ..LaneOptions::default()
    };
    let (lane, _) = Lane::open(&folder, options).unwrap();
    let mut appender = lane.appender();
    for number in 0..300_u64 {
        let body = [7; 600];
        let record = NewRecord {
            kind: Kind::Event,
            key: Key([1; 16]),
            received_ns: 1_795_284_000_000_000_000 + number,
            meta: b"",
            body: &body,
        };
        while appender.append(&record).is_err() {
            std::thread::yield_now();
        }
    }
    lane.close();
    (data, folder)
}

fn run_words(data: &TempDir, words: &[&str]) -> Result<Option<Severity>, SegmentsError> {
    let dir = data.path().to_str().unwrap();
    let words = [&["segments"], words, &["--dir", dir]].concat();
    let (text, worst) = match Command::try_parse_from(words).unwrap().segments.verb {
        Verb::List(args) => list(&args)?,
        Verb::Verify(args) => check(&args)?,
        Verb::Repair(args) => mend(&args)?,
        Verb::Export(args) => {
            let mut rows = Vec::new();
            let worst = export(&args, &mut rows)?;
            (String::from_utf8(rows).unwrap(), worst)
        }
    };
    assert!(text.contains("main"), "{text}");
    Ok(worst)
}

fn harm(path: &Path, at: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0xa5; 2], at).unwrap();
}

#[test]
fn the_exit_code_says_how_bad_it_is_until_it_is_repaired() {
    let (data, folder) = written();
    for verb in ["list", "verify", "repair", "export"] {
        assert_eq!(exit_code(run_words(&data, &[verb]).unwrap()), 0, "{verb}");
    }
    let paths: Vec<PathBuf> =
        segments(&folder).unwrap().into_iter().map(|facts| facts.path).collect();
    harm(&paths[1], 30);
    for (words, code) in [
        (&["list"][..], 3),
        (&["verify", "--json"][..], 3),
        (&["repair", "--dry-run"][..], 3),
        (&["repair"][..], 0),
        (&["verify"][..], 0),
    ] {
        assert_eq!(exit_code(run_words(&data, words).unwrap()), code, "{words:?}");
    }
    harm(&paths[0], 4096 + 70);
    assert_eq!(exit_code(run_words(&data, &["export"]).unwrap()), 3);
    assert_eq!(exit_code(run_words(&data, &["export", "--json"]).unwrap()), 3, "as for all verbs");
    assert_eq!(exit_code(run_words(&data, &["verify"]).unwrap()), 3, "a payload stays lost");
    let (_other, folder_of_other) = written();
    std::fs::copy(segments(&folder_of_other).unwrap()[1].path.clone(), &paths[1]).unwrap();
    for (words, code) in [(&["verify"][..], 4), (&["repair", "--dry-run"][..], 4)] {
        assert_eq!(exit_code(run_words(&data, words).unwrap()), code, "{words:?}");
    }
    assert_eq!(exit_code(run_words(&data, &["repair", "--json"]).unwrap()), 0);
    assert_eq!(exit_code(run_words(&data, &["list"]).unwrap()), 0);
    let missing = tempfile::tempdir().unwrap();
    assert!(matches!(run_words(&missing, &["list"]), Err(SegmentsError::Place(_))));
}

#[test]
fn people_and_programs_are_told_the_same() {
    let (_data, folder) = written();
    let facts = segments(&folder).unwrap();
    let text = facts_text(&facts);
    assert_eq!(text.lines().count(), facts.len() + 1);
    assert!(text.contains("0000000000000000.seg     64KiB  sealed          1 "), "{text}");
    assert!(text.contains("2026-11-21T18:00:00"), "{text}");
    let json = facts_json(&facts[0]);
    assert_eq!((json["state"].as_str(), json["epoch"].as_u64()), (Some("sealed"), Some(1)));
    assert_eq!(json["first_at"], "2026-11-21T18:00:00.000000000Z");
    harm(&facts[0].path, 4096 + 70);
    let verified = verify(&folder, &mut |_, _| ()).unwrap();
    let text = verified_text(&verified);
    let line = "  damage    0000000000000000.seg at 4096: a record whose payload does not hold its \
                checksum";
    assert!(text.lines().any(|shown| shown == line), "{text}");
    assert!(text.contains("299 records (0 purged), 1 damaged, 0 gaps"), "{text}");
    let json = verified_json(&verified);
    assert_eq!((&json["verdict"], &json["records"]), (&json!("damage"), &json!(299)));
    assert_eq!(json["findings"][0]["offset"], 4096);
}
