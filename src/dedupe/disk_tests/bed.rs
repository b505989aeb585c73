//! A lane and what it remembers, both closed and opened again at will.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use forebay_log::{
    AckLevel, Appender, Key, Kind, Lane, LaneOptions, MetaWriter, NewRecord, Retention, Tag,
};

use crate::dedupe::{Fingerprinter, Options, Outcome, Table};

pub(super) const WINDOW_NS: u64 = 1_000_000;
pub(super) const SEGMENT_BYTES: u64 = 65_536;

/// A lane and what it remembers, both closed and opened again at will.
pub(super) struct Bed {
    pub(super) dir: tempfile::TempDir,
    capacity: usize,
    pub(super) keep_bytes: Option<u64>,
    pub(super) now_ns: u64,
    pub(super) open: Option<Open>,
}

pub(super) struct Open {
    pub(super) log: Arc<Lane>,
    pub(super) appender: Appender,
    pub(super) table: Table,
}

pub(super) fn key(number: u64) -> Key {
    Fingerprinter::new(b"0123456789abcdef").fingerprint("s", None, [&number.to_le_bytes()[..]])
}

/// The second key of events with these signed bytes.
fn signed_key(signed: u64) -> Key {
    Fingerprinter::new(b"0123456789abcdef").fingerprint("signed", None, [&signed.to_le_bytes()[..]])
}

impl Bed {
    /// One whose blocks hold `block_keys`.
    pub(super) fn new(block_keys: usize) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let capacity = block_keys * 7;
        let mut bed = Self { dir, capacity, keep_bytes: None, now_ns: 1_000_000_000, open: None };
        bed.start();
        bed
    }

    pub(super) fn start(&mut self) {
        let options = LaneOptions {
            segment_bytes: SEGMENT_BYTES,
            ack: AckLevel::Synced,
            retention: Retention { age: None, bytes: self.keep_bytes },
            disk_reserve_bytes: Some(0),
            volatile_allowed: true,
            ..LaneOptions::default()
        };
        let log = Arc::new(Lane::open(self.dir.path(), options).expect("a lane").0);
        let window = Duration::from_nanos(WINDOW_NS);
        let options = Options { capacity: self.capacity, window };
        let table = Table::open(options, &log, self.now_ns).expect("it opens");
        self.open = Some(Open { appender: log.appender(), log, table });
    }

    pub(super) fn restart(&mut self) {
        self.stop();
        self.start();
    }

    pub(super) fn stop(&mut self) {
        if let Some(open) = self.open.take() {
            open.log.close();
        }
    }

    pub(super) fn table(&self) -> &Table {
        &self.open.as_ref().expect("open").table
    }

    /// As a receiver does; true if the event was new.
    pub(super) fn deliver(&mut self, number: u64) -> bool {
        let now_ns = self.now_ns;
        let Open { appender, table, .. } = self.open.as_mut().expect("open");
        match table.reserve(key(number), now_ns) {
            Outcome::Reserved(reservation) => {
                reservation.appended(append(appender, number, None, now_ns));
                true
            }
            Outcome::Seen { .. } => false,
            other => panic!("{number}: {other:?}"),
        }
    }

    /// As a receiver does with an event whose id is not signed, and with time to wait. Nothing if
    /// the event was known, else whether its signed bytes were.
    pub(super) fn deliver_signed(&mut self, number: u64, signed: u64) -> Option<bool> {
        loop {
            let now_ns = self.now_ns;
            let Open { appender, table, .. } = self.open.as_mut().expect("open");
            match (table.reserve(key(number), now_ns), table.reserve(signed_key(signed), now_ns)) {
                (Outcome::Seen { .. }, _) => return None,
                (Outcome::Reserved(own), Outcome::Reserved(other)) => {
                    let end = append(appender, number, Some(signed), now_ns);
                    own.appended(end);
                    other.appended(end);
                    return Some(false);
                }
                (Outcome::Reserved(own), Outcome::Seen { .. }) => {
                    own.appended(append(appender, number, None, now_ns));
                    return Some(true);
                }
                (Outcome::Pending | Outcome::Full, _) | (_, Outcome::Pending | Outcome::Full) => {}
            }
            self.tend();
        }
    }

    /// As the background threads do, once the medium has what was appended.
    pub(super) fn tend(&self) {
        let open = self.open.as_ref().expect("open");
        open.table.prepare(self.now_ns);
        settle(&open.log);
        open.table.tend(self.now_ns);
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.dir.path().join("dedupe"))
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        files
    }
}

pub(super) fn append(
    appender: &mut Appender,
    number: u64,
    signed: Option<u64>,
    now_ns: u64,
) -> u64 {
    let mut meta = MetaWriter::default();
    if let Some(signed) = signed {
        meta.field(Tag::SignedKey, &signed_key(signed).0).expect("short");
    }
    let record = NewRecord {
        kind: Kind::Event,
        key: key(number),
        received_ns: now_ns,
        meta: meta.as_bytes(),
        body: &number.to_le_bytes(),
    };
    loop {
        match appender.append(&record) {
            Ok(placed) => return placed.end,
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

pub(super) fn settle(log: &Lane) {
    let published = log.watermarks().published;
    while log.watermarks().durable < published {
        thread::sleep(Duration::from_millis(1));
    }
}

pub(super) fn flip(path: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ 1], at).expect("a byte");
}

/// A bed with a few generations and keys in memory, and how many keys in all.
pub(super) fn filled() -> (Bed, u64) {
    let mut bed = Bed::new(600);
    for number in 0..2_500 {
        assert!(bed.deliver(number));
        if number % 300 == 299 {
            bed.tend();
        }
    }
    bed.tend();
    (bed, 2_500)
}

pub(super) fn assert_known(bed: &mut Bed, keys: u64) {
    for number in 0..keys {
        assert!(!bed.deliver(number), "{number} is forgotten");
    }
    assert!(bed.deliver(u64::MAX), "what is new is new");
}
