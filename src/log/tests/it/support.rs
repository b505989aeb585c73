//! What the tests share: small lanes, records that can be recognised, and patience.

use std::path::Path;
use std::time::Duration;

use forebay_log::{
    AckLevel, AppendError, Appended, Appender, Clock, Key, Kind, Lane, LaneOptions, NewRecord,
    Reader, Retention,
};

/// The smallest segments there are.
pub(crate) const SMALL: u64 = forebay_log::SEGMENT_BYTES_MIN;

/// Options of a small lane.
pub(crate) fn options(ack: AckLevel) -> LaneOptions {
    LaneOptions {
        segment_bytes: SMALL,
        ack,
        retention: Retention::default(),
        disk_reserve_bytes: Some(0),
        volatile_allowed: true,
        clock: Clock::System,
        ..LaneOptions::default()
    }
}

/// A small lane.
pub(crate) fn open(dir: &Path, ack: AckLevel) -> Lane {
    Lane::open(dir, options(ack)).expect("the lane opens").0
}

/// A body that tells its number and has a length that depends on it.
pub(crate) fn body(number: u64) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    let length = usize::try_from(number * 37 % 1500).expect("small");
    body.resize(8 + length, number.to_le_bytes()[0]);
    body
}

/// The number in a body, after making sure that the rest of it is right.
pub(crate) fn number(body: &[u8]) -> u64 {
    let number = u64::from_le_bytes(body[..8].try_into().expect("eight bytes"));
    assert_eq!(body, self::body(number), "the body of record {number} is not what was appended");
    number
}

/// The key of a numbered record.
pub(crate) fn key(number: u64) -> Key {
    let mut bytes = [0xee; 16];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Key(bytes)
}

/// Appends a numbered record; a lane that is full for the moment is asked again.
pub(crate) fn append(appends: &mut Appender, number: u64) -> Appended {
    let body = body(number);
    let record = NewRecord {
        kind: Kind::Event,
        key: key(number),
        received_ns: 1_000 + number,
        meta: b"",
        body: &body,
    };
    for _ in 0..20_000 {
        match appends.append(&record) {
            Ok(appended) => return appended,
            Err(AppendError::Full) => std::thread::sleep(Duration::from_micros(200)),
            Err(error) => panic!("record {number}: {error}"),
        }
    }
    panic!("the lane stayed full");
}

/// Waits until the lane has acknowledged up to `end`.
pub(crate) fn wait_acked(lane: &Lane, end: u64) {
    wait_for("the acknowledgement", || lane.acked() >= end);
}

/// Waits for something that must come soon.
pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    panic!("waited in vain for {what}");
}

/// The numbers of all records that a reader still finds.
pub(crate) fn drain(reader: &mut Reader) -> Vec<u64> {
    let mut numbers = Vec::new();
    while let Some(record) = reader.next().expect("readable") {
        numbers.push(number(record.body()));
    }
    numbers
}

/// A copy of the files of a lane's directory, folders left out, as they are
/// on disk right now, as after a kill of the writer.
pub(crate) fn copy_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    for entry in std::fs::read_dir(dir).expect("a lane") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            continue;
        }
        let name = path.file_name().expect("a name");
        match std::fs::copy(&path, copy.path().join(name)) {
            Ok(_) => {}
            // Renamed or retired since the directory was listed: so it is for a crash.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
    copy
}
