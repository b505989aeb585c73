//! The protocol of the watermarks as models: every interleaving of a small one by loom, random
//! interleavings of a whole lane by shuttle. `tests/run models` runs both.
//!
//! In loom's a record is one offset long, its commit word and its payload one atomic each. Without
//! the fence in `publish`, or the one in "Waking", or with a weaker step of `published` or `durable`,
//! its models fail.
//!
//! Shuttle's has producers that roll, a keeper that makes segments ahead, syncs and lets go of
//! them, and a reader. Shuttle runs every atomic as `SeqCst`: it sees what may come between two
//! steps, and leaves what a weaker ordering allows to loom.

#[cfg(forebay_loom)]
mod loom_model {
    use std::sync::{Arc, Mutex};

    use loom::sync::Arc as LoomArc;
    use loom::sync::atomic::{AtomicBool, AtomicU32};
    use loom::thread;

    use crate::atomic::{Ordering, fence};
    use crate::watermark::{Claimed, Watermarks};

    struct Model {
        watermarks: Watermarks,
        commits: [AtomicU32; 3],
        payloads: [AtomicU32; 3],
    }

    impl Model {
        fn new() -> LoomArc<Self> {
            LoomArc::new(Self {
                watermarks: Watermarks::new(0),
                commits: [(); 3].map(|()| AtomicU32::new(0)),
                payloads: [(); 3].map(|()| AtomicU32::new(0)),
            })
        }

        fn publish(&self) -> bool {
            self.watermarks.publish(|offset| {
                let commit = self.commits.get(usize::try_from(offset).ok()?)?;
                (commit.load(Ordering::Acquire) != 0).then_some(offset + 1)
            })
        }

        fn append(&self) -> u64 {
            loop {
                let Claimed::At(from) = self.watermarks.next_claim() else { panic!("closed") };
                if self.watermarks.claim(from, from + 1).is_some() {
                    let index = usize::try_from(from).expect("small");
                    self.payloads[index].store(7, Ordering::Relaxed);
                    self.commits[index].store(1, Ordering::Release);
                    self.publish();
                    return from;
                }
            }
        }

        fn keep(&self) {
            self.watermarks.set_durable(self.watermarks.published());
        }
    }

    /// Runs two threads and a reader of all records before a watermark: all are visible to it, and
    /// in some interleaving they are as many as there can be.
    ///
    /// The first thread only waits: loom does not find every interleaving of what that does.
    fn read_beside(others: [fn(&Model); 2], end: fn(&Watermarks) -> u64, records: usize) {
        let most = Arc::new(Mutex::new(0));
        let told = Arc::clone(&most);
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = builder.preemption_bound.or(Some(3));
        builder.check(move || {
            let model = Model::new();
            let others = others.map(|other| {
                let model = LoomArc::clone(&model);
                thread::spawn(move || other(&model))
            });
            let reader = thread::spawn(move || {
                let end = usize::try_from(end(&model.watermarks)).expect("small");
                for payload in &model.payloads[..end] {
                    // Relaxed: the watermark has to do it.
                    assert_eq!(payload.load(Ordering::Relaxed), 7, "a record is not visible");
                }
                end
            });
            for other in others {
                other.join().expect("no panic");
            }
            let read = reader.join().expect("no panic");
            let mut most = told.lock().expect("no panic");
            *most = read.max(*most);
        });
        assert_eq!(*most.lock().expect("no panic"), records, "no interleaving shows all");
    }

    #[test]
    fn loom_the_last_committer_publishes_everything() {
        loom::model(|| {
            let model = Model::new();
            let producers = [(); 2].map(|()| {
                let model = LoomArc::clone(&model);
                thread::spawn(move || model.append())
            });
            let mut claimed = producers.map(|producer| producer.join().expect("no panic"));
            claimed.sort_unstable();
            assert_eq!(claimed, [0, 1]);
            assert_eq!(model.watermarks.published(), 2);
        });
    }

    #[test]
    fn loom_whoever_sees_published_sees_the_records_whoever_has_moved_it() {
        let append = |model: &Model| _ = model.append();
        read_beside([append, append], Watermarks::published, 2);
    }

    #[test]
    fn loom_whoever_sees_durable_sees_the_records_though_the_keeper_has_moved_it() {
        read_beside([|model| _ = model.append(), Model::keep], Watermarks::durable, 1);
    }

    #[test]
    fn loom_a_sleeper_sees_the_move_or_the_mover_sees_the_sleeper() {
        loom::model(|| {
            let model = Model::new();
            let asleep = LoomArc::new(AtomicBool::new(false));
            let mover = {
                let (model, asleep) = (LoomArc::clone(&model), LoomArc::clone(&asleep));
                thread::spawn(move || {
                    model.append();
                    fence(Ordering::SeqCst);
                    asleep.load(Ordering::Relaxed)
                })
            };
            let sleeper = thread::spawn(move || {
                asleep.store(true, Ordering::Relaxed);
                fence(Ordering::SeqCst);
                model.watermarks.published() == 1
            });
            let (sees_sleeper, sees_move) = (mover.join(), sleeper.join());
            let awake = sees_sleeper.expect("no panic") || sees_move.expect("no panic");
            assert!(awake, "a wake is lost");
        });
    }
}

#[cfg(forebay_shuttle)]
mod shuttle_model {
    use shuttle::sync::atomic::AtomicBool;
    use shuttle::sync::{Arc, Mutex};
    use shuttle::thread;

    use crate::atomic::{AtomicU64, Ordering};
    use crate::watermark::{Claimed, Rolled, Watermarks};

    const PRODUCERS: u64 = 4;
    /// Offsets of a segment: one for its header, two for records, one for its footer.
    const SEGMENT: u64 = 4;
    const OFFSETS: usize = 96;
    /// The payload of a filler.
    const PAD: u64 = u64::MAX;
    const ITERATIONS: usize = 20_000;

    /// A lane without files: all that its threads share.
    struct Lane {
        watermarks: Watermarks,
        /// The length of the record at an offset, once it is in place.
        commits: Vec<AtomicU64>,
        payloads: Vec<AtomicU64>,
        /// What a sync has written.
        medium: Vec<AtomicU64>,
        /// Bases of the segments that appenders can find.
        table: Mutex<Vec<u64>>,
        closing: AtomicBool,
    }

    fn words() -> Vec<AtomicU64> {
        (0..OFFSETS).map(|_| AtomicU64::new(0)).collect()
    }

    fn load(words: &[AtomicU64], offset: u64) -> u64 {
        words[usize::try_from(offset).expect("small")].load(Ordering::Acquire)
    }

    fn store(words: &[AtomicU64], offset: u64, value: u64) {
        words[usize::try_from(offset).expect("small")].store(value, Ordering::Release);
    }

    fn record_end(base: u64) -> u64 {
        base + SEGMENT - 1
    }

    impl Lane {
        fn new() -> Self {
            Self {
                watermarks: Watermarks::new(1),
                commits: words(),
                payloads: words(),
                medium: words(),
                table: Mutex::new(vec![0]),
                closing: AtomicBool::new(false),
            }
        }

        fn segment_at(&self, offset: u64) -> Option<u64> {
            let table = self.table.lock().expect("no panic");
            table.iter().copied().find(|base| (base + 1..=record_end(*base)).contains(&offset))
        }

        /// As `Shared::publish` does for an appender that knows no segment yet.
        fn publish(&self) -> bool {
            self.watermarks.publish(|offset| {
                let base = self.segment_at(offset)?;
                if offset < record_end(base) {
                    let length = load(&self.commits, offset);
                    return (length > 0).then_some(offset + length);
                }
                (self.watermarks.claimed() > offset).then_some(base + SEGMENT + 1)
            })
        }

        fn put(&self, from: u64, length: u64, payload: u64) {
            store(&self.payloads, from, payload);
            store(&self.commits, from, length);
        }

        /// As `Appender::place` does; the lane is full while the next segment is not there.
        fn append(&self, payload: u64) {
            let length = 1 + payload % 2;
            loop {
                let Claimed::At(from) = self.watermarks.next_claim() else { panic!("closed") };
                let Some(base) = self.segment_at(from) else {
                    thread::yield_now();
                    continue;
                };
                if from + length <= record_end(base) {
                    if self.watermarks.claim(from, from + length).is_some() {
                        self.put(from, length, payload);
                        break;
                    }
                } else if self.segment_at(base + SEGMENT + 1).is_none() {
                    thread::yield_now();
                } else if let Rolled::Rest(claim) =
                    self.watermarks.roll(from, record_end(base), base + SEGMENT + 1)
                {
                    self.put(claim.from(), claim.bytes(), PAD);
                }
            }
            self.publish();
        }

        /// The keeper: it publishes for nobody, so that what producers miss is seen.
        fn keep(&self) {
            loop {
                let closing = self.closing.load(Ordering::Acquire);
                let (published, durable) = (self.watermarks.published(), self.watermarks.durable());
                for offset in durable..published {
                    store(&self.medium, offset, load(&self.payloads, offset));
                }
                self.watermarks.set_durable(published);
                let mut table = self.table.lock().expect("no panic");
                let last = table.last().copied().expect("never empty");
                if self.watermarks.claimed() > last {
                    table.push(last + SEGMENT);
                }
                table.retain(|base| published <= base + SEGMENT);
                drop(table);
                if closing {
                    return;
                }
                thread::yield_now();
            }
        }

        /// Reads what is durable, from the medium, until the lane is closed.
        fn read(&self) -> Vec<u64> {
            let (mut read, mut offset) = (Vec::new(), 1);
            loop {
                let closing = self.closing.load(Ordering::Acquire);
                let durable = self.watermarks.durable();
                while offset < durable {
                    if offset % SEGMENT == SEGMENT - 1 {
                        offset += 2;
                        continue;
                    }
                    let payload = load(&self.medium, offset);
                    assert_ne!(payload, 0, "acknowledged and not on the medium: {offset}");
                    read.extend((payload != PAD).then_some(payload));
                    offset += load(&self.commits, offset);
                }
                if closing && durable == self.watermarks.claimed() {
                    return read;
                }
                thread::yield_now();
            }
        }
    }

    fn a_whole_lane(records: u64) {
        let lane = Arc::new(Lane::new());
        let keeper = {
            let lane = Arc::clone(&lane);
            thread::spawn(move || lane.keep())
        };
        let reader = {
            let lane = Arc::clone(&lane);
            thread::spawn(move || lane.read())
        };
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let lane = Arc::clone(&lane);
                thread::spawn(move || {
                    (1..=records).for_each(|number| lane.append(producer * records + number));
                })
            })
            .collect();
        for producer in producers {
            producer.join().expect("no panic");
        }
        // The last one of all publishes for all.
        assert_eq!(lane.watermarks.published(), lane.watermarks.claimed(), "a record is held back");
        lane.closing.store(true, Ordering::Release);
        keeper.join().expect("no panic");
        let mut read = reader.join().expect("no panic");
        let of = |producer: u64| {
            let own = move |id: &&u64| (*id - 1) / records == producer;
            read.iter().filter(own).copied().collect::<Vec<_>>()
        };
        for producer in 0..PRODUCERS {
            assert!(of(producer).is_sorted(), "one producer's records are out of order");
        }
        read.sort_unstable();
        assert_eq!(read, (1..=PRODUCERS * records).collect::<Vec<_>>(), "once each");
    }

    #[test]
    fn a_whole_lane_keeps_its_word_in_random_interleavings() {
        shuttle::check_random(|| a_whole_lane(3), ITERATIONS / 4);
    }

    #[test]
    fn a_whole_lane_keeps_its_word_where_few_threads_are_held_up_for_long() {
        shuttle::check_pct(|| a_whole_lane(1), ITERATIONS, 5);
    }
}
