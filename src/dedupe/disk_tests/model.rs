//! The table and its files against an oracle, through restarts and damage.

use std::collections::HashMap;
use std::fs;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Deliver(u64),
    Burst(u64),
    /// An event whose id is not signed, and its signed bytes.
    Signed(u64, u64),
    Advance(u64),
    Tend,
    Restart,
    /// Stopped without a word: nothing is sealed or written first.
    Lose(usize),
    Flip(usize, u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..80_u64).prop_map(Op::Deliver),
        4 => (0..80_u64).prop_map(Op::Burst),
        6 => (100..180_u64, 0..40_u64).prop_map(|(number, of)| Op::Signed(number, of)),
        2 => (1..WINDOW_NS / 3).prop_map(Op::Advance),
        4 => Just(Op::Tend),
        1 => Just(Op::Restart),
        1 => any::<usize>().prop_map(Op::Lose),
        1 => (any::<usize>(), any::<u64>()).prop_map(|(file, at)| Op::Flip(file, at)),
    ]
}

/// What was stored when.
#[derive(Default)]
struct Oracle {
    newest: HashMap<u64, u64>,
}

impl Oracle {
    /// Holds what was said of a key against what was stored.
    fn judge(&mut self, key: u64, new: bool, now_ns: u64) {
        let stored = self.newest.get(&key);
        if new {
            let young = stored.is_some_and(|at_ns| now_ns - at_ns < WINDOW_NS);
            assert!(!young, "{key} was forgotten inside the window");
            self.newest.insert(key, now_ns);
        } else {
            assert!(stored.is_some(), "{key} was never stored");
        }
    }
}

/// Everything that was stored stays known for its window; nothing else is ever called known.
fn model(ops: &[Op]) {
    let mut bed = Bed::new(8);
    let mut oracle = Oracle::default();
    // Apart from the numbers of events.
    let signed_bytes = |of: u64| 1_000 + of;
    let deliver = |bed: &mut Bed, oracle: &mut Oracle, number: u64| {
        while matches!(
            bed.table().reserve(key(number), bed.now_ns),
            Outcome::Pending | Outcome::Full
        ) {
            bed.tend();
        }
        let new = bed.deliver(number);
        oracle.judge(number, new, bed.now_ns);
    };
    for op in ops {
        match *op {
            Op::Deliver(number) => deliver(&mut bed, &mut oracle, number),
            Op::Burst(from) => {
                (from..from + 9).for_each(|number| deliver(&mut bed, &mut oracle, number));
            }
            Op::Signed(number, of) => {
                let told = bed.deliver_signed(number, of);
                oracle.judge(number, told.is_some(), bed.now_ns);
                if let Some(replay) = told {
                    oracle.judge(signed_bytes(of), !replay, bed.now_ns);
                }
            }
            Op::Advance(by) => bed.now_ns += by,
            Op::Tend => bed.tend(),
            Op::Restart => bed.restart(),
            Op::Lose(file) => {
                bed.stop();
                let files = bed.files();
                if let Some(path) = files.get(file % files.len().max(1)) {
                    fs::remove_file(path).expect("removed");
                }
                bed.start();
            }
            Op::Flip(file, at) => {
                bed.stop();
                let files = bed.files();
                if let Some(path) = files.get(file % files.len().max(1)) {
                    flip(path, at % fs::metadata(path).expect("there").len());
                }
                bed.start();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_table_and_its_files_agree_with_an_oracle(ops in prop::collection::vec(op(), 1..80)) {
        model(&ops);
    }
}
