//! The second key of an event, of its signed bytes: it comes back with the first, over a crash and
//! a purge, and where it does not hold it is none.

use std::path::Path;

use forebay_log::{
    AckLevel, Appender, Key, Kind, Lane, MetaWriter, NewRecord, Purger, Severity, Tag, verify,
};

use crate::damage::flip_in_lane;
use crate::support::{copy_of, key, open, wait_acked};

const RECORDS: u64 = 200;
/// Where the field of the second key begins in a record.
const FIELD_AT: u64 = 64;

/// Every second event has one.
fn signed_key(number: u64) -> Option<Key> {
    number.is_multiple_of(2).then(|| key(1_000_000 + number))
}

/// Appends a record, and tells where it starts and ends.
fn append(appends: &mut Appender, number: u64) -> (u64, u64) {
    let mut meta = MetaWriter::default();
    if let Some(key) = signed_key(number) {
        meta.field(Tag::SignedKey, &key.0).expect("short");
    }
    meta.field(Tag::Source, b"github").expect("short");
    let body = vec![b'.'; 500];
    let (key, meta) = (key(number), meta.as_bytes());
    let record = NewRecord { kind: Kind::Event, key, received_ns: number, meta, body: &body };
    loop {
        match appends.append(&record) {
            Ok(appended) => return (appended.start.offset(), appended.end),
            Err(forebay_log::AppendError::Full) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// A lane with the records, and where each starts.
fn filled(dir: &Path) -> (Lane, Vec<u64>) {
    let lane = open(dir, AckLevel::Written);
    let mut appends = lane.appender();
    let places: Vec<_> = (0..RECORDS).map(|number| append(&mut appends, number)).collect();
    wait_acked(&lane, places.last().expect("some").1);
    (lane, places.into_iter().map(|(start, _)| start).collect())
}

fn keys_of(lane: &Lane) -> Vec<(Key, Option<Key>)> {
    let mut keys = Vec::new();
    let take = |found: forebay_log::Recovered| {
        assert!(found.keys().eq([Some(found.key), found.signed_key].into_iter().flatten()));
        keys.push((found.key, found.signed_key));
    };
    lane.recovered_keys(0, take).expect("readable");
    keys
}

/// All keys, the second ones of `without` left out.
fn expected(without: &[u64]) -> Vec<(Key, Option<Key>)> {
    let signed = |number| signed_key(number).filter(|_| !without.contains(&number));
    (0..RECORDS).map(|number| (key(number), signed(number))).collect()
}

/// Erases every fourth record, and the first three.
fn purge(dir: &Path) {
    let goes = |number: &u64| *number < 3 || number.is_multiple_of(4);
    let gone: Vec<Key> = (0..RECORDS).filter(goes).map(key).collect();
    let erased = Purger::open(dir).expect("the right").erase(|found| gone.contains(&found.key));
    assert_eq!(erased.expect("erased").records, gone.len() as u64);
}

#[test]
fn both_keys_of_an_event_come_back_after_a_crash_an_orderly_end_and_a_purge() {
    let dir = tempfile::tempdir().expect("a directory");
    let (lane, _) = filled(dir.path());
    let crashed = copy_of(dir.path());
    lane.close();
    for dir in [crashed.path(), dir.path()] {
        let lane = open(dir, AckLevel::Written);
        assert_eq!(keys_of(&lane), expected(&[]));
        lane.close();
        purge(dir);
        let found = verify(dir, &mut |_, _| ()).expect("readable");
        assert_eq!(found.worst, None, "{:?}", found.findings);
        assert_eq!(keys_of(&open(dir, AckLevel::Written)), expected(&[]));
    }
}

#[test]
fn a_second_key_that_does_not_hold_is_none_and_the_first_is_known_all_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let (lane, starts) = filled(dir.path());
    lane.close();
    for at in FIELD_AT..FIELD_AT + 20 {
        let harmed = copy_of(dir.path());
        // The first is purged with its harm, and the second not.
        for number in [0, 6] {
            flip_in_lane(harmed.path(), starts[number] + at);
        }
        assert_eq!(keys_of(&open(harmed.path(), AckLevel::Written)), expected(&[0, 6]), "{at}");
        purge(harmed.path());
        assert_eq!(keys_of(&open(harmed.path(), AckLevel::Written)), expected(&[0, 6]), "{at}");
        let found = verify(harmed.path(), &mut |_, _| ()).expect("readable");
        assert_eq!((found.worst, found.damaged), (Some(Severity::Damage), 1), "the one not purged");
    }
}

#[test]
fn a_purged_record_whose_second_key_is_harmed_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let (lane, starts) = filled(dir.path());
    lane.close();
    purge(dir.path());
    flip_in_lane(dir.path(), starts[0] + FIELD_AT + 7);
    let found = verify(dir.path(), &mut |_, _| ()).expect("readable");
    assert_eq!((found.worst, found.findings.len()), (Some(Severity::Damage), 1));
    assert!(found.findings[0].what.contains("key of its signed bytes"), "{:?}", found.findings);
    assert_eq!(keys_of(&open(dir.path(), AckLevel::Written)), expected(&[0]));
}
