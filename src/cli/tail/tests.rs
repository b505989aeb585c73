//! A lane is written as the server writes it, and read as a shell does.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::thread;

use clap::Parser;
use forebay_log::{AckLevel, Appender, Key, Lane, LaneOptions, MetaWriter, NewRecord};
use serde_json::Value;
use tempfile::TempDir;

use super::*;

/// 2026-11-21T18:00:00Z.
const SIX: u64 = 1_795_284_000_000_000_000;
const SECOND: u64 = 1_000_000_000;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    tail: TailArgs,
}

fn args(words: &[&str]) -> TailArgs {
    Command::try_parse_from([&["tail"], words].concat()).unwrap().tail
}

/// A data folder with one lane and its writer.
struct Written {
    data: TempDir,
    _lane: Lane,
    appender: Appender,
}

impl Written {
    fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let options = LaneOptions {
            segment_bytes: forebay_log::SEGMENT_BYTES_MIN,
            ack: AckLevel::Written,
            disk_reserve_bytes: Some(0),
            volatile_allowed: true,
            ..LaneOptions::default()
        };
        let (lane, _) = Lane::open(data.path().join("lanes/main"), options).unwrap();
        let appender = lane.appender();
        Self { data, _lane: lane, appender }
    }

    /// Appends a record whose id is its number, and waits until readers may see it.
    fn append(&mut self, kind: Kind, number: u64, body: &[u8]) -> Position {
        let source = if number.is_multiple_of(2) { "even" } else { "odd" };
        let mut meta = MetaWriter::default();
        meta.field(Tag::Source, source.as_bytes()).unwrap();
        meta.field(Tag::Environment, b"production").unwrap();
        meta.field(Tag::EventId, number.to_string().as_bytes()).unwrap();
        meta.field(Tag::EventType, b"room.started").unwrap();
        meta.field(Tag::Secret, b"current").unwrap();
        meta.header(b"x-a", b"1").unwrap();
        meta.header(b"x-a", b"\xff").unwrap();
        meta.header_digest(b"authorization", &[0xab; 2]).unwrap();
        let record = NewRecord {
            kind,
            key: Key([0; 16]),
            received_ns: SIX + number * SECOND,
            meta: meta.as_bytes(),
            body,
        };
        let appended = self.appender.append(&record).unwrap();
        let folder = self.data.path().join("lanes/main");
        while newest(&folder).unwrap() < appended.end {
            thread::yield_now();
        }
        appended.start
    }

    fn print(&self, words: &[&str], style: Style) -> String {
        let args = args(words);
        let folder = self.data.path().join("lanes/main");
        let lane = "main".to_owned();
        let mut tail = Tail { args: &args, lane, style, out: Vec::new(), told: Skipped::default() };
        tail.run(&folder, &Clock::fixed(SIX + 10 * SECOND)).unwrap();
        String::from_utf8(tail.out).unwrap()
    }

    fn ids(&self, words: &[&str]) -> Vec<u64> {
        let id = |row: &str| {
            let row: Value = serde_json::from_str(row).unwrap();
            row["event_id"].as_str().unwrap().parse().unwrap()
        };
        self.print(words, Style::Json).lines().map(id).collect()
    }
}

#[test]
fn a_row_says_all_that_the_record_holds() {
    let mut written = Written::new();
    let position = written.append(Kind::Event, 2, b"{\"a\": 1}");
    let expected = format!(
        "{{\"position\":\"{position}\",\"key\":\"{:032x}\",\"kind\":\"event\",\
         \"received_at\":\"2026-11-21T18:00:02.000000000Z\",\"lane\":\"main\",\
         \"source\":\"even\",\"environment\":\"production\",\"tenant\":null,\"event_id\":\"2\",\
         \"event_type\":\"room.started\",\"event_time\":null,\"secret\":\"current\",\
         \"method\":null,\"target\":null,\"peer\":null,\"trace_id\":null,\
         \"headers\":[[\"x-a\",\"1\"],[\"x-a\",{{\"base64\":\"/w==\"}}],\
         [\"authorization\",{{\"digest\":\"abab\"}}]],\"body\":\"{{\\\"a\\\": 1}}\"}}\n",
        0
    );
    assert_eq!(written.print(&[], Style::Json), expected);
}

#[test]
fn a_body_that_is_not_text_survives() {
    let mut written = Written::new();
    written.append(Kind::Event, 1, b"\xff\x00");
    let row: Value = serde_json::from_str(&written.print(&[], Style::Json)).unwrap();
    assert_eq!(row["body_base64"], "/wA=");
    assert!(row.get("body").is_none());
}

#[test]
fn a_tail_begins_where_it_is_told() {
    let mut written = Written::new();
    let positions: Vec<Position> =
        (0..5).map(|number| written.append(Kind::Event, number, b"x")).collect();
    assert_eq!(written.ids(&[]), [0, 1, 2, 3, 4]);
    assert_eq!(written.ids(&["--from", "earliest"]), [0, 1, 2, 3, 4]);
    assert_eq!(written.ids(&["--from", "latest"]), [0; 0]);
    assert_eq!(written.ids(&["--from", &positions[3].to_string()]), [3, 4]);
    assert_eq!(written.ids(&["--from", "2026-11-21T18:00:02Z"]), [2, 3, 4]);
    assert_eq!(written.ids(&["--from", "2026-11-21T19:00:01.5+01:00"]), [2, 3, 4]);
    assert_eq!(written.ids(&["--from", "6s"]), [4], "six seconds before the fixed now");
}

#[test]
fn a_tail_shows_what_was_asked_for() {
    let mut written = Written::new();
    for number in 0..4 {
        let kind = if number == 2 { Kind::Delivery } else { Kind::Event };
        written.append(kind, number, b"x");
    }
    written.append(Kind::Quarantine, 4, b"x");
    assert_eq!(written.ids(&[]), [0, 1, 3]);
    assert_eq!(written.ids(&["--deliveries"]), [0, 1, 2, 3]);
    assert_eq!(written.ids(&["--source", "odd"]), [1, 3]);
    assert_eq!(written.ids(&["--type", "room.started"]), [0, 1, 3]);
    assert_eq!(written.ids(&["--type", "room.ended"]), [0; 0]);
}

#[test]
fn the_guide_names_every_field_of_a_row() {
    let mut written = Written::new();
    let mut meta = MetaWriter::default();
    let tags = [Tag::EventPosition, Tag::SuspectReplay, Tag::Quarantined, Tag::FirstReceived];
    for tag in tags {
        meta.field(tag, b"1").unwrap();
    }
    let (kind, key, received_ns) = (Kind::Event, Key([0; 16]), SIX);
    let record = NewRecord { kind, key, received_ns, meta: meta.as_bytes(), body: b"\xff" };
    written.appender.append(&record).unwrap();
    written.append(Kind::Event, 1, b"{}");
    let guide = include_str!("../../log/README.md");
    let rows = written.print(&[], Style::Json);
    let mut fields = 0;
    for row in rows.lines() {
        let row: Value = serde_json::from_str(row).unwrap();
        for name in row.as_object().unwrap().keys() {
            assert!(guide.contains(&format!("`{name}`")), "{name} is not in the guide");
            fields += 1;
        }
    }
    assert_eq!(fields, 2 * 18 + tags.len(), "{rows}");
}

#[test]
fn raw_is_the_bodies_and_nothing_else() {
    let mut written = Written::new();
    written.append(Kind::Event, 1, b"{}");
    written.append(Kind::Event, 2, b"a=b");
    assert_eq!(written.print(&[], Style::Raw), "{}\na=b\n");
}

#[test]
fn what_people_read_cannot_steer_their_terminal() {
    let mut written = Written::new();
    let position = written.append(Kind::Event, 1, b"{\n\"a\": \"\x1b[2J\"}");
    let text = written.print(&[], Style::Pretty { coloured: false });
    let expected = format!(
        "2026-11-21T18:00:01.000000000Z odd room.started 1\n  event {position} in main, \
         environment production, secret current\n  {{\n  \"a\": \"\\u{{1b}}[2J\"}}\n"
    );
    assert_eq!(text, expected);
    assert!(written.print(&[], Style::Pretty { coloured: true }).contains("\u{1b}[1m"));
}

#[test]
fn an_empty_lane_has_an_end() {
    assert_eq!(Written::new().print(&[], Style::Json), "");
}

/// Output that its reader leaves after so many rows.
struct Pipe {
    rows_left: usize,
    seen: Vec<u8>,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.seen.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let rows = self.seen.split(|byte| *byte == b'\n').count() - 1;
        if rows < self.rows_left { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }
}

#[test]
fn who_follows_sees_what_comes_until_the_pipe_is_closed() {
    let mut written = Written::new();
    written.append(Kind::Event, 0, b"before");
    let folder = written.data.path().join("lanes/main");
    let follower = thread::spawn(move || {
        let args = args(&["--follow"]);
        let out = Pipe { rows_left: 3, seen: Vec::new() };
        let (lane, style) = ("main".to_owned(), Style::Raw);
        let mut tail = Tail { args: &args, lane, style, out, told: Skipped::default() };
        let error = tail.run(&folder, &Clock::System).unwrap_err();
        assert_eq!(error.exit_code(), 0, "{error}");
        String::from_utf8(tail.out.seen).unwrap()
    });
    for number in 1..3 {
        thread::sleep(Duration::from_millis(20));
        written.append(Kind::Event, number, b"after");
    }
    assert_eq!(follower.join().unwrap(), "before\nafter\nafter\n");
}

#[test]
fn a_lane_is_found_or_the_lanes_are_named() {
    let written = Written::new();
    let data = written.data.path().to_str().unwrap();
    let found = |words: &[&str]| args(words).place.one().map(|lane| lane.name);
    assert_eq!(found(&["--dir", data]).unwrap(), "main");
    std::fs::create_dir(written.data.path().join("lanes/other")).unwrap();
    for (words, says) in [
        (&["--dir", data][..], "say which lane, with --lane: main, other"),
        (&["--dir", data, "--lane", "x"][..], "there is no lane x; there is main, other"),
        (&["--dir", "/nonexistent"][..], "give the folder that data_dir names"),
    ] {
        let error = found(words).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
    assert_eq!(found(&["--dir", data, "--lane", "other"]).unwrap(), "other");
    let folder = written.data.path().join("lanes/main");
    assert_eq!(found(&["--dir", folder.to_str().unwrap()]).unwrap(), "main", "a lane's folder");
    let error = found(&["--config", "/nonexistent.toml"]).unwrap_err();
    assert_eq!(error.exit_code(), 78);
}

#[test]
fn a_place_that_is_none_is_refused_with_examples() {
    for text in ["", "yesterday", "1-", "2026-11-21", "12", "1969-01-01T00:00:00Z"] {
        assert!(parse_start(text).is_err(), "{text}");
    }
    assert_eq!(parse_start("1-4096"), Ok(Start::Position(Position::new(1, 4096))));
    assert!(Command::try_parse_from(["tail", "--json", "--raw"]).is_err());
    assert!(Command::try_parse_from(["tail", "--dir", "a", "--config", "b"]).is_err());
}
