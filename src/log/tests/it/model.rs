//! Random operations against a lane and against a list of numbers that cannot be wrong.
//!
//! The oracle knows what was acknowledged, what a crash may therefore not lose, and what no
//! reader may ever see: a record twice, out of order, or one that nobody appended.

use forebay_log::{AckLevel, Appender, From, Lane, Position, Reader};
use proptest::prelude::*;

use crate::support::{append, copy_of, drain, open, wait_acked, wait_for};

/// One step.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// Append so many records.
    Append(u8),
    /// Wait until all of them are acknowledged.
    Settle,
    /// Close the lane and open it again.
    Reopen,
    /// Go on with a copy of the directory, as after a kill.
    Crash,
    /// Read on with the reader that is already there.
    Tail,
    /// Read everything with a reader of its own.
    ReadAll,
    /// Find this many-th record again by its position.
    SeekPosition(u16),
    /// Find this many-th record again by its time.
    SeekTime(u16),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1_u8..60).prop_map(Op::Append),
        2 => Just(Op::Settle),
        1 => Just(Op::Reopen),
        1 => Just(Op::Crash),
        2 => Just(Op::Tail),
        2 => Just(Op::ReadAll),
        2 => any::<u16>().prop_map(Op::SeekPosition),
        2 => any::<u16>().prop_map(Op::SeekTime),
    ]
}

/// The lane under test, and what must be true of it.
struct Model {
    dir: tempfile::TempDir,
    ack: AckLevel,
    lane: Option<Lane>,
    appender: Option<Appender>,
    /// Of every record: where it starts and the offset that acknowledges it. The number of a
    /// record is its index.
    oracle: Vec<(Position, u64)>,
    tail: Reader,
    tailed: usize,
}

impl Model {
    fn new(ack: AckLevel) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let lane = open(dir.path(), ack);
        let appender = Some(lane.appender());
        let tail = lane.reader().expect("a reader");
        Self { dir, ack, lane: Some(lane), appender, oracle: Vec::new(), tail, tailed: 0 }
    }

    fn lane(&self) -> &Lane {
        self.lane.as_ref().expect("a lane is open between two steps")
    }

    /// How many records must survive now.
    fn acked(&self) -> usize {
        let acked = self.lane().acked();
        self.oracle.iter().filter(|(_, end)| *end <= acked).count()
    }

    fn settle(&self) {
        if let Some((_, end)) = self.oracle.last() {
            wait_acked(self.lane(), *end);
        }
    }

    /// Everything that a fresh reader finds, which must be the first records without a hole.
    fn read_all(&self, at_least: usize) -> usize {
        let mut found = 0;
        wait_for("all acknowledged records", || {
            let mut reader = Reader::open(self.dir.path()).expect("a reader");
            let numbers = drain(&mut reader);
            found = numbers.len();
            assert_eq!(numbers, (0..found as u64).collect::<Vec<_>>());
            assert!(found <= self.oracle.len());
            assert_eq!(reader.skipped(), forebay_log::Skipped::default());
            found >= at_least
        });
        found
    }

    fn open_again(&mut self) {
        let lane = open(self.dir.path(), self.ack);
        self.appender = Some(lane.appender());
        self.lane = Some(lane);
    }

    fn crash(&mut self) {
        let acked = self.acked();
        let copy = copy_of(self.dir.path());
        drop((self.appender.take(), self.lane.take()));
        self.dir = copy;
        self.open_again();
        // What survives is a beginning that holds everything acknowledged; the rest never was.
        let survived = self.read_all(acked);
        self.oracle.truncate(survived);
        self.tail = self.lane().reader().expect("a reader");
        self.tailed = 0;
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Append(count) => {
                let appends = self.appender.as_mut().expect("an appender");
                for _ in 0..count {
                    let appended = append(appends, self.oracle.len() as u64);
                    self.oracle.push((appended.start, appended.end));
                }
            }
            Op::Settle => self.settle(),
            Op::Reopen => {
                drop((self.appender.take(), self.lane.take()));
                self.open_again();
                assert_eq!(self.read_all(self.oracle.len()), self.oracle.len());
            }
            Op::Crash => self.crash(),
            Op::Tail => {
                for number in drain(&mut self.tail) {
                    assert_eq!(number, self.tailed as u64);
                    self.tailed += 1;
                }
            }
            Op::ReadAll => {
                self.read_all(0);
            }
            Op::SeekPosition(index) if !self.oracle.is_empty() => {
                self.settle();
                let index = usize::from(index) % self.oracle.len();
                self.finds(From::Position(self.oracle[index].0), index);
            }
            Op::SeekTime(index) if !self.oracle.is_empty() => {
                self.settle();
                let index = usize::from(index) % self.oracle.len();
                self.finds(From::Time(1_000 + index as u64), index);
            }
            Op::SeekPosition(_) | Op::SeekTime(_) => {}
        }
        let watermarks = self.lane().watermarks();
        assert!(watermarks.claimed >= watermarks.published, "{watermarks:?}");
        assert!(watermarks.published >= watermarks.durable, "{watermarks:?}");
    }

    fn finds(&mut self, from: From, index: usize) {
        let mut reader = self.lane().reader().expect("a reader");
        wait_for("the record", || {
            reader.seek(from).expect("a place");
            let Some(record) = reader.next().expect("readable") else { return false };
            assert_eq!(record.position(), self.oracle[index].0);
            assert_eq!(crate::support::number(record.body()), index as u64);
            true
        });
    }
}

fn model(ack: AckLevel, ops: &[Op]) {
    let mut model = Model::new(ack);
    for op in ops {
        model.step(*op);
    }
    model.settle();
    assert_eq!(model.read_all(model.oracle.len()), model.oracle.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_lane_does_what_a_list_does(
        synced in any::<bool>(),
        ops in prop::collection::vec(op(), 1..24),
    ) {
        model(if synced { AckLevel::Synced } else { AckLevel::Written }, &ops);
    }
}
