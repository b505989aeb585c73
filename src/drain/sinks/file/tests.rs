//! Lines are there once, whatever happens to their writer.

use std::fs;
use std::hash::BuildHasher as _;
use std::path::Path;
use std::process::{Command, Stdio};

use forebay_log::{Key, Reader};
use serde_json::Value;

use super::*;
use crate::drain::sinks::line;
use crate::drain::testing::{RECEIVED_NS, Written};

fn settings(folder: &Path) -> Settings {
    Settings {
        folder: folder.to_owned(),
        sync: true,
        rotate_bytes: 1 << 20,
        rotate_age: Duration::from_secs(3600),
    }
}

fn deliver(sink: &File, batch: &[Event]) -> Delivered {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(sink.deliver(batch))
}

fn events(count: u8) -> Vec<Event> {
    let mut log = Written::new();
    (0..count).map(|number| log.event(number, &format!("{{\"n\":{number}}}"))).collect()
}

/// The numbers of the lines of a file.
fn numbers(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).expect("readable");
    assert!(text.is_empty() || text.ends_with('\n'));
    let number = |line: &str| {
        let row: Value = serde_json::from_str(line).expect("is JSON");
        row["data"]["n"].as_u64().expect("a number")
    };
    text.lines().map(number).collect()
}

/// All files of a lane, oldest first.
fn all_numbers(folder: &Path) -> Vec<u64> {
    let mut complete: Vec<(forebay_log::Position, PathBuf)> = fs::read_dir(folder)
        .expect("a folder")
        .filter_map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name()?.to_str()?;
            let last = name.strip_prefix("main.")?.strip_suffix(".ndjson")?.parse().ok()?;
            Some((last, path))
        })
        .collect();
    complete.sort();
    let paths = complete.into_iter().map(|(_, path)| path).chain([folder.join("main.ndjson")]);
    paths.filter(|path| path.exists()).flat_map(|path| numbers(&path)).collect()
}

#[test]
fn what_is_there_is_not_written_again_by_the_next_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let events = events(6);
    let sink = File::new(&settings(folder.path()));
    assert_eq!(deliver(&sink, &events[..3]), Delivered::All);
    // An answer was lost: the same batch again, and then another process.
    assert_eq!(deliver(&sink, &events[..3]), Delivered::All);
    drop(sink);
    let sink = File::new(&settings(folder.path()));
    assert_eq!(deliver(&sink, &events[1..5]), Delivered::All);
    assert_eq!(deliver(&sink, &events[5..]), Delivered::All);
    assert_eq!(numbers(&folder.path().join("main.ndjson")), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_torn_line_and_a_hole_are_cut_off_and_come_again() {
    let events = events(5);
    let full = tempfile::tempdir().expect("a folder");
    assert_eq!(deliver(&File::new(&settings(full.path())), &events), Delivered::All);
    let text = fs::read(full.path().join("main.ndjson")).expect("readable");
    let line_ends: Vec<usize> =
        text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    let damaged = |change: &dyn Fn(&mut Vec<u8>)| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("main.ndjson");
        let mut text = text.clone();
        change(&mut text);
        fs::write(&path, text).expect("written");
        let sink = File::new(&Settings { sync: false, ..settings(folder.path()) });
        assert_eq!(deliver(&sink, &events[1..]), Delivered::All);
        assert_eq!(numbers(&path), [0, 1, 2, 3, 4]);
    };
    // Every cut behind the first line.
    for cut in line_ends[0]..text.len() {
        damaged(&|text| text.truncate(cut));
    }
    // A page that never reached the medium, though later ones did.
    damaged(&|text| text[line_ends[1] + 20..line_ends[2] + 20].fill(0));
    damaged(&|text| text[line_ends[2]..].fill(0));
}

#[test]
fn files_are_complete_by_size_and_by_age_and_named_by_their_last_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let events = events(9);
    let clock = Clock::fixed(RECEIVED_NS);
    let small = Settings { rotate_bytes: 400, ..settings(folder.path()) };
    let sink = File::with_clock(&small, clock.clone());
    for event in &events[..4] {
        assert_eq!(deliver(&sink, std::slice::from_ref(event)), Delivered::All);
    }
    let complete = folder.path().join(format!("main.{}.ndjson", events[1].position()));
    assert_eq!(numbers(&complete), [0, 1]);
    let large = Settings { rotate_age: Duration::from_secs(60), ..settings(folder.path()) };
    drop(sink);
    let sink = File::with_clock(&large, clock.clone());
    assert_eq!(deliver(&sink, &events[2..5]), Delivered::All);
    let Clock::Fixed(now_ns) = &clock else { unreachable!("is fixed") };
    now_ns.fetch_add(1 << 60, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(deliver(&sink, &events[5..6]), Delivered::All);
    assert_eq!(numbers(&folder.path().join("main.ndjson")), [5]);
    assert_eq!(all_numbers(folder.path()), [0, 1, 2, 3, 4, 5]);
    // A crash between the two steps leaves no current file: the names say what is there.
    drop(sink);
    fs::remove_file(folder.path().join("main.ndjson")).expect("removed");
    let sink = File::new(&settings(folder.path()));
    assert_eq!(deliver(&sink, &events[3..]), Delivered::All);
    assert_eq!(all_numbers(folder.path()), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn a_replay_is_written_again_beside_the_lane_s_own_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut events = events(3);
    let sink = File::new(&settings(folder.path()));
    assert_eq!(deliver(&sink, &events), Delivered::All);
    for event in &mut events {
        event.pass = Pass::Replay;
    }
    assert_eq!(deliver(&sink, &events[..1]), Delivered::All);
    assert_eq!(deliver(&sink, &events[..1]), Delivered::All);
    assert_eq!(numbers(&folder.path().join("main.ndjson")), [0, 1, 2]);
    assert_eq!(numbers(&folder.path().join("main.replay.ndjson")), [0, 0]);
}

#[test]
fn a_lane_that_begins_anew_finds_the_files_of_the_old_one_set_aside() {
    let folder = tempfile::tempdir().expect("a folder");
    let small = Settings { rotate_bytes: 300, ..settings(folder.path()) };
    let lanes = [events(4), events(3)];
    assert_eq!(lanes[0][0].position(), lanes[1][0].position());
    let id = |lane: &[Event]| Key(lane[0].record.get().lane_id()).to_string()[..8].to_owned();
    // The old lane once more, as from a backup: what it had is kept, and comes again beside it.
    for lane in [&lanes[0], &lanes[1], &lanes[0], &lanes[1]] {
        let sink = File::new(&small);
        for event in lane {
            assert_eq!(deliver(&sink, std::slice::from_ref(event)), Delivered::All);
        }
        let count = u64::try_from(lane.len()).expect("small");
        assert!(all_numbers(folder.path()).into_iter().eq(0..count));
    }
    let aside = |name: String| numbers(&folder.path().join(format!("main.{name}.ndjson")));
    assert_eq!(aside(id(&lanes[0])), [3]);
    assert_eq!(aside(format!("{}.1", id(&lanes[0]))), [3]);
    let first = lanes[0][2].position();
    assert_eq!(aside(format!("{}.{first}", id(&lanes[0]))), [2]);
    assert_eq!(aside(format!("{}.1.{first}", id(&lanes[0]))), [2]);
}

#[test]
fn a_file_of_somebody_else_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("main.ndjson");
    fs::write(&path, "{\"mine\":1}\n{\"mine\":2}\n").expect("written");
    let sink = File::new(&settings(folder.path()));
    let Delivered::None(failure) = deliver(&sink, &events(1)) else { panic!("is refused") };
    assert_eq!(failure.class, Class::Misconfigured);
    assert_eq!(fs::read_to_string(&path).expect("readable").lines().count(), 2);
    // So is a file that another process writes.
    fs::remove_file(&path).expect("removed");
    let held = fs::File::create(&path).expect("made");
    held.try_lock().expect("locked");
    let Delivered::None(failure) = deliver(&sink, &events(1)) else { panic!("is refused") };
    assert_eq!(failure.class, Class::Temporary);
    drop(held);
    assert_eq!(deliver(&sink, &events(1)), Delivered::All);
}

/// Rounds of the campaign below; each kills one writer.
const ROUNDS: u64 = 30;
const EVENTS: u64 = 100_000;
const FOLDER: &str = "FOREBAY_TEST_FILE_SINK";
const NAIVE: &str = "FOREBAY_TEST_FILE_SINK_NAIVE";

/// The child: brings the log to the file in batches, keeps a cursor as the engine does, and is
/// killed on the way.
#[test]
#[ignore = "the child of the campaign"]
fn writes_until_it_is_killed() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("a folder"));
    let cursor = folder.join("cursor");
    let done: u64 =
        fs::read_to_string(&cursor).ok().and_then(|text| text.parse().ok()).unwrap_or_default();
    let mut reader = Reader::open(folder.join("lane")).expect("a reader");
    let naive = std::env::var_os(NAIVE).is_some();
    let small = Settings { rotate_bytes: 1 << 20, ..settings(&folder.join("out")) };
    let sink = File::new(&small);
    let mut batch = Vec::new();
    for number in 0..EVENTS {
        let record = reader.next_held().expect("readable").expect("is there");
        if number < done {
            continue;
        }
        batch.push(Written::event_of(record));
        if number % 61 == 0 || number + 1 == EVENTS {
            if naive {
                write_naively(&folder.join("out"), &batch);
            } else {
                assert_eq!(deliver(&sink, &batch), Delivered::All);
            }
            // Some cursors are lost, as they are between two syncs of it.
            if number % 3 == 0 || number + 1 == EVENTS {
                let next = folder.join("cursor.next");
                fs::write(&next, (number + 1).to_string()).expect("written");
                fs::rename(&next, &cursor).expect("renamed");
            }
            batch.clear();
        }
    }
}

/// What a sink would do that knows nothing of positions.
fn write_naively(folder: &Path, batch: &[Event]) {
    use std::io::Write as _;
    fs::create_dir_all(folder).expect("made");
    let path = folder.join("main.ndjson");
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).expect("open");
    for event in batch {
        let mut lines = Vec::new();
        line::write(&mut lines, event);
        file.write_all(&lines).expect("written");
    }
    file.sync_data().expect("synced");
}

fn killed_rounds(naive: bool) -> (u64, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    Written::fill(&folder.path().join("lane"), EVENTS);
    let mut seed = std::hash::RandomState::new().hash_one(0_u8);
    let mut killed = 0;
    loop {
        let mut child = Command::new(std::env::current_exe().expect("known"));
        child.args([
            "--exact",
            "--ignored",
            "drain::sinks::file::tests::writes_until_it_is_killed",
        ]);
        child.env(FOLDER, folder.path()).stdout(Stdio::null());
        if naive {
            child.env(NAIVE, "1");
        }
        let mut child = child.spawn().expect("a child");
        if killed == ROUNDS {
            assert!(child.wait().expect("waited").success());
            break;
        }
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Not before it has done something, and then at any moment.
        let progress = || fs::read_to_string(folder.path().join("cursor")).ok();
        let before = progress();
        while progress() == before && child.try_wait().expect("waited").is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros((seed >> 33) % 20_000));
        child.kill().expect("killed");
        let ended = child.wait().expect("waited");
        if ended.success() {
            break;
        }
        killed += 1;
    }
    (killed, folder)
}

#[test]
fn a_writer_that_is_killed_at_random_leaves_every_line_once() {
    let (killed, folder) = killed_rounds(false);
    assert!(killed > ROUNDS / 2, "{killed} rounds: the log is too short for a campaign");
    let numbers = all_numbers(&folder.path().join("out"));
    assert!(numbers.iter().copied().eq(0..EVENTS), "{} lines", numbers.len());
}

#[test]
fn the_campaign_would_see_a_line_that_is_there_twice() {
    let (killed, folder) = killed_rounds(true);
    assert!(killed > 0);
    // A line that was cut is no JSON, and the reader of the lines says so by a panic.
    let seen = std::panic::catch_unwind(|| all_numbers(&folder.path().join("out")));
    assert!(seen.map_or(true, |numbers| !numbers.into_iter().eq(0..EVENTS)));
}
