//! The table and its files against an oracle, through restarts and damage.

use std::collections::{HashMap, HashSet};
use std::fs;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Deliver(u64),
    Burst(u64),
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
        2 => (1..WINDOW_NS / 3).prop_map(Op::Advance),
        4 => Just(Op::Tend),
        1 => Just(Op::Restart),
        1 => any::<usize>().prop_map(Op::Lose),
        1 => (any::<usize>(), any::<u64>()).prop_map(|(file, at)| Op::Flip(file, at)),
    ]
}

/// Everything that was stored stays known for its window; nothing else is ever called known.
fn model(ops: &[Op]) {
    let mut bed = Bed::new(8);
    let mut stored: HashMap<u64, u64> = HashMap::new();
    let mut ever: HashSet<u64> = HashSet::new();
    let mut deliver = |bed: &mut Bed, number: u64| {
        while matches!(
            bed.table().reserve(key(number), bed.now_ns),
            Outcome::Pending | Outcome::Full
        ) {
            bed.tend();
        }
        let young = stored.get(&number).is_some_and(|at_ns| bed.now_ns - at_ns < WINDOW_NS);
        if bed.deliver(number) {
            assert!(!young, "{number} was forgotten inside the window");
            stored.insert(number, bed.now_ns);
            ever.insert(number);
        } else {
            assert!(ever.contains(&number), "{number} was never stored");
        }
    };
    for op in ops {
        match *op {
            Op::Deliver(number) => deliver(&mut bed, number),
            Op::Burst(from) => (from..from + 9).for_each(|number| deliver(&mut bed, number)),
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
