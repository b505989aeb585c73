//! Records of two tenants and two sources; what is named goes, and nothing else.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::path::PathBuf;

use clap::Parser;
use forebay_log::{
    AckLevel, Key, Kind, Lane, LaneOptions, MetaWriter, NewRecord, Position, Reader,
    SEGMENT_BYTES_MIN, Tag,
};
use tempfile::TempDir;

use super::*;

/// 2026-11-21T18:00:00Z.
const SIX: u64 = 1_795_284_000_000_000_000;
const SECOND: u64 = 1_000_000_000;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    purge: PurgeArgs,
}

fn args(data: &TempDir, words: &[&str]) -> PurgeArgs {
    let dir = data.path().to_str().unwrap();
    Command::try_parse_from([&["purge", "--dir", dir], words].concat()).unwrap().purge
}

fn options() -> LaneOptions {
    LaneOptions {
        segment_bytes: SEGMENT_BYTES_MIN,
        ack: AckLevel::Written,
        disk_reserve_bytes: Some(0),
        volatile_allowed: true,
        ..LaneOptions::default()
    }
}

/// Event `number` of twelve: tenant by its remainder of 2, source by that of 3; event 5 has a
/// later delivery.
fn written() -> (TempDir, PathBuf) {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("lanes/main");
    fill(&folder);
    (data, folder)
}

fn fill(folder: &PathBuf) {
    let (lane, _) = Lane::open(folder, options()).unwrap();
    let mut appender = lane.appender();
    for (number, kind) in (0..12).map(|number| (number, Kind::Event)).chain([(5, Kind::Delivery)]) {
        let mut meta = MetaWriter::default();
        meta.field(Tag::Source, format!("source-{}", number % 3).as_bytes()).unwrap();
        meta.field(Tag::Tenant, format!("tenant-{}", number % 2).as_bytes()).unwrap();
        meta.field(Tag::EventId, format!("evt_{number}").as_bytes()).unwrap();
        let (body, key) = (number.to_string(), Key([u8::try_from(number).unwrap(); 16]));
        let received_ns = SIX + number * SECOND;
        let (meta, body) = (meta.as_bytes(), body.as_bytes());
        appender.append(&NewRecord { kind, key, received_ns, meta, body }).unwrap();
    }
    lane.close();
}

#[test]
fn what_is_erased_is_erased_in_dead_letters_too() {
    let (data, folder) = written();
    let letters = data.path().join("dead-letters/billing");
    fill(&letters);
    assert!(purge(&args(&data, &["--event", "evt_5"]), &Clock::System).unwrap().1);
    assert_eq!(left(&letters), (0..12).filter(|number| *number != 5).collect::<Vec<_>>());
    let of_them = args(&data, &["--tenant", "tenant-0", "--lane", "dead-letters/billing"]);
    assert!(purge(&of_them, &Clock::System).unwrap().1);
    assert_eq!(left(&letters), [1, 3, 7, 9, 11]);
    assert!(left(&folder).contains(&2), "only those that were named");
}

/// The bodies that are left; that of the delivery is the event's again.
fn left(folder: &PathBuf) -> Vec<u64> {
    let mut reader = Reader::open(folder).unwrap();
    let mut bodies = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        bodies.push(std::str::from_utf8(record.body()).unwrap().parse().unwrap());
    }
    bodies
}

#[test]
fn what_is_named_goes_and_nothing_else() {
    type Stays = fn(u64) -> bool;
    let cases: [(&[&str], Stays); 8] = [
        (&["--event", "evt_5"], |number| number != 5),
        (&["--event", "05050505050505050505050505050505"], |number| number != 5),
        (&["--event", "evt_5", "--source", "source-0"], |_| true),
        (&["--tenant", "tenant-1"], |number| number % 2 != 1),
        (&["--tenant", "tenant-1", "--source", "source-0"], |number| number % 6 != 3),
        (&["--before", "2026-11-21T18:00:04Z"], |number| number >= 4),
        (&["--before", "1h", "--tenant", "nobody"], |_| true),
        (&["--before", "2026-11-21T18:00:04Z", "--tenant", "tenant-0"], |number| {
            number >= 4 || number % 2 != 0
        }),
    ];
    for (words, stays) in cases {
        let (data, folder) = written();
        let all: Vec<u64> = (0..12).chain([5]).collect();
        let expected: Vec<u64> = all.iter().copied().filter(|number| stays(*number)).collect();
        assert!(purge(&args(&data, &[words, &["--dry-run"]].concat()), &Clock::System).unwrap().1);
        assert_eq!(left(&folder), all, "a dry run erases nothing");
        assert!(purge(&args(&data, words), &Clock::System).unwrap().1);
        assert_eq!(left(&folder), expected, "{words:?}");
    }
}

/// Refused requests: one has an id in its body, one a tenant in a header, one came out as event 7,
/// and one has nothing to do with any of them.
fn quarantined(data: &TempDir) -> PathBuf {
    let folder = crate::quarantine::log_dir(data.path());
    let append = |number: u64, header: &str, text: &str| {
        let (lane, _) = Lane::open(&folder, options()).unwrap();
        let mut meta = MetaWriter::default();
        meta.field(Tag::Source, b"source-2").unwrap();
        meta.header(b"x-who", header.as_bytes()).unwrap();
        let (kind, key, meta) = (Kind::Quarantine, Key([0; 16]), meta.as_bytes());
        let body = format!("{number}{text}");
        let received_ns = SIX + number * SECOND;
        let record = NewRecord { kind, key, received_ns, meta, body: body.as_bytes() };
        let position = lane.appender().append(&record).unwrap().start;
        lane.close();
        position
    };
    append(0, "nobody", " {\"id\":\"evt_5\"}");
    append(1, "for tenant-1", "");
    let held = append(2, "nobody", "");
    append(3, "nobody", "");
    let (lane, _) = Lane::open(data.path().join("lanes/main"), options()).unwrap();
    let mut meta = MetaWriter::default();
    meta.field(Tag::Tenant, b"tenant-1").unwrap();
    meta.field(Tag::EventId, b"evt_7").unwrap();
    meta.field(Tag::Quarantined, held.to_string().as_bytes()).unwrap();
    let (kind, key, meta) = (Kind::Event, Key([77; 16]), meta.as_bytes());
    let record = NewRecord { kind, key, received_ns: SIX, meta, body: b"77" };
    lane.appender().append(&record).unwrap();
    lane.close();
    folder
}

#[test]
fn a_lane_that_was_never_served_keeps_no_other_from_being_purged() {
    let (data, folder) = written();
    let config = data.path().join("forebay.toml");
    let source = "[[source]]\nname = \"a\"\npath = \"/a\"\npreset = \"github\"\nlane = \"main\"\n\
                  secrets = [{ name = \"a\", value = \"A-LONG-SECRET-0123456789\" }]\n";
    let lanes = "[[lane]]\nname = \"main\"\n[[lane]]\nname = \"new\"\n";
    std::fs::write(&config, format!("data_dir = \".\"\n{lanes}{source}")).unwrap();
    let words = ["purge", "--event", "evt_5", "--config", config.to_str().unwrap()];
    let purged =
        |words: &[&str]| purge(&Command::try_parse_from(words).unwrap().purge, &Clock::System);
    let (text, complete) = purged(&words).unwrap();
    assert!(complete && text.contains("lane main: 2 records") && !text.contains("new"), "{text}");
    assert!(purged(&[&words[..], &["--lane", "new"]].concat()).is_err(), "it was asked for");
    // With no folder at all the place is wrong, and nobody is told that all has gone.
    std::fs::remove_dir_all(folder).unwrap();
    assert!(purged(&words).is_err());
}

#[test]
fn what_is_erased_is_erased_in_quarantine_too() {
    let cases: [(&[&str], &[&str]); 6] = [
        (&["--event", "evt_5"], &["1", "2", "3"]),
        (&["--event", "evt_7"], &["0", "1", "3"]),
        (&["--tenant", "tenant-1"], &["0", "3"]),
        (&["--tenant", "tenant-1", "--lane", "quarantine"], &["0", "2", "3"]),
        (&["--tenant", "tenant-1", "--lane", "main"], &["0", "1", "2", "3"]),
        (&["--before", "2026-11-21T18:00:02Z"], &["2", "3"]),
    ];
    for (words, left) in cases {
        let (data, main) = written();
        let folder = quarantined(&data);
        purge(&args(&data, words), &Clock::System).unwrap();
        let mut reader = Reader::open(&folder).unwrap();
        let mut found = Vec::new();
        while let Some(record) = reader.next().unwrap() {
            found.push(String::from_utf8_lossy(&record.body()[..1]).into_owned());
        }
        assert_eq!(found, left, "{words:?}");
        let within = forebay_log::segments(&folder).unwrap().into_iter().any(|file| {
            std::fs::read(file.path).unwrap().windows(5).any(|window| window == b"evt_5")
        });
        assert_eq!(within, left.contains(&"0"), "{words:?}");
        assert_eq!(self::left(&main).len() < 14, !words.contains(&"quarantine"), "{words:?}");
    }
}

#[test]
fn the_journal_tells_what_was_purged_and_not_the_id() {
    let (data, folder) = written();
    purge(&args(&data, &["--event", "evt_5", "--tenant", "tenant-1"]), &Clock::System).unwrap();
    let text = std::fs::read_to_string(folder.join("purges")).unwrap();
    assert!(!text.contains("evt_5"), "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["event_keys"], json!([Key([5; 16]).to_string()]));
    assert_eq!((&lines[0]["state"], &lines[0]["tenant"]), (&json!("begun"), &json!("tenant-1")));
    assert_eq!((&lines[1]["state"], &lines[1]["records"]), (&json!("done"), &json!(2)));
}

#[test]
fn what_cannot_be_read_is_told_unless_its_key_was_named() {
    use std::os::unix::fs::FileExt;
    let (data, folder) = written();
    let mut reader = Reader::open(&folder).unwrap();
    let position: Position = loop {
        let record = reader.next().unwrap().unwrap();
        if record.body() == b"3" {
            break record.position();
        }
    };
    let path = forebay_log::segments(&folder).unwrap().remove(0).path;
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0xa5; 4], position.offset() + 70).unwrap();
    assert!(!purge(&args(&data, &["--tenant", "tenant-1"]), &Clock::System).unwrap().1);
    assert!(purge(&args(&data, &["--event", &"03".repeat(16)]), &Clock::System).unwrap().1);
    assert!(purge(&args(&data, &["--tenant", "tenant-1"]), &Clock::System).unwrap().1);
}

#[test]
fn nothing_named_and_times_that_are_none_are_refused() {
    let (data, _) = written();
    let dir = data.path().to_str().unwrap();
    for words in [&["--dir", dir][..], &["--dir", dir, "--source", "a"][..]] {
        assert!(Command::try_parse_from([&["purge"], words].concat()).is_err());
    }
    let error = purge(&args(&data, &["--before", "yesterday"]), &Clock::System).unwrap_err();
    assert!(error.to_string().contains("write a time"), "{error}");
}

/// An event, the same signed bytes under another id, one more delivery of that, an event of its own,
/// and in quarantine a request with the body of the first and one with that of the last.
fn replayed() -> (TempDir, PathBuf) {
    let data = tempfile::tempdir().unwrap();
    let (folder, held) = (data.path().join("lanes/main"), crate::quarantine::log_dir(data.path()));
    let append = |folder: &PathBuf, kind, (key, signed): (u8, Option<u8>), body: &[u8]| {
        let (lane, _) = Lane::open(folder, options()).unwrap();
        let mut meta = MetaWriter::default();
        if let Some(signed) = signed {
            meta.field(Tag::SignedKey, &[signed; 16]).unwrap();
        }
        meta.field(Tag::Source, b"github").unwrap();
        meta.field(Tag::EventId, format!("evt_{key}").as_bytes()).unwrap();
        let (key, meta) = (Key([key; 16]), meta.as_bytes());
        let record = NewRecord { kind, key, received_ns: SIX, meta, body };
        lane.appender().append(&record).unwrap();
        lane.close();
    };
    append(&folder, Kind::Event, (1, Some(9)), b"100");
    append(&folder, Kind::Event, (2, Some(9)), b"100");
    append(&folder, Kind::Delivery, (2, None), b"2");
    append(&folder, Kind::Event, (3, Some(8)), b"300");
    append(&held, Kind::Quarantine, (0, None), b"100");
    append(&held, Kind::Quarantine, (0, None), b"300");
    (data, folder)
}

#[test]
fn what_came_under_another_id_goes_whichever_of_them_is_named_and_it_is_told_why() {
    let key = |of: u8| format!("{of:02x}").repeat(16);
    let copies = |bytes: u64, body: u64| json!({ "same_signed_bytes": bytes, "same_body": body });
    let by_key = key(1);
    for (name, tied) in [("evt_1", 2), ("evt_2", 1), (&by_key, 2)] {
        let (data, folder) = replayed();
        let words = ["--event", name, "--json"];
        let (told, complete) = purge(&args(&data, &words), &Clock::System).unwrap();
        let told: Value = serde_json::from_str(&told).unwrap();
        assert!(complete);
        assert_eq!(left(&folder), [300]);
        assert_eq!(left(&crate::quarantine::log_dir(data.path())), [300]);
        let of = |lane: usize| &told["lanes"][lane]["copies"];
        assert_eq!((of(0), of(1)), (&copies(0, 1), &copies(tied, 0)), "{name}");
        let text = std::fs::read_to_string(folder.join("purges")).unwrap();
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["event_keys"], json!([key(1), key(2), key(9)]));
        assert_eq!(lines[1]["copies"], copies(tied, 0));
    }
}

#[test]
fn the_key_of_what_was_purged_before_still_finds_what_came_since() {
    let (data, folder) = replayed();
    let named = |name: &str| purge(&args(&data, &["--event", name]), &Clock::System).unwrap().0;
    named("evt_1");
    let (lane, _) = Lane::open(&folder, options()).unwrap();
    let mut meta = MetaWriter::default();
    meta.field(Tag::SignedKey, &[9; 16]).unwrap();
    let (kind, key, meta) = (Kind::Event, Key([4; 16]), meta.as_bytes());
    let record = NewRecord { kind, key, received_ns: SIX, meta, body: b"100" };
    lane.appender().append(&record).unwrap();
    lane.close();
    let told = named(&"01".repeat(16));
    assert!(
        told.contains("  1 of them came under another id with the same signed bytes\n"),
        "{told}"
    );
    assert_eq!(left(&folder), [300]);
    // An id of the same form is not written down.
    let stranger = "ab".repeat(16);
    named(&stranger);
    assert!(!std::fs::read_to_string(folder.join("purges")).unwrap().contains(&stranger));
}
