//! The whole drain of one sink against a lane on disk and a destination that does as it is told.

mod fake;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use forebay_log::{AckLevel, Key, Kind, LaneOptions, NewRecord, SEGMENT_BYTES_MIN};
use tokio::sync::{Semaphore, mpsc};

use self::fake::{Fake, Script};
use super::super::dead::{self, Grave};
use super::super::feed::{Feed, Raw, permits_max, reader_at};
use super::super::order::{Order, OrderKey};
use super::super::sink::{Class, Nature, Pass};
use super::super::sinks::stdout;
use super::super::start::{Drain, Ground, LaneOf};
use super::*;
use crate::config::{BatchConfig, Print};
use crate::identify::RuleText;

/// A lane with so many events of four rooms in turn.
fn lane(dir: &Path, count: usize) {
    lane_of(dir, SEGMENT_BYTES_MIN, (0..count).map(body));
}

/// A lane with segments of this size and events with these bodies.
fn lane_of(dir: &Path, segment_bytes: u64, bodies: impl Iterator<Item = String>) {
    let options = LaneOptions {
        segment_bytes,
        ack: AckLevel::Written,
        disk_reserve_bytes: Some(0),
        ..LaneOptions::default()
    };
    let (lane, _) = forebay_log::Lane::open(dir, options).expect("a lane");
    let mut appender = lane.appender();
    for body in bodies {
        let record = NewRecord {
            kind: Kind::Event,
            key: Key([1; 16]),
            // Letters are kept by the age of their events.
            received_ns: Clock::System.wall_ns(),
            meta: b"",
            body: body.as_bytes(),
        };
        while appender.append(&record).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    lane.close();
}

fn body(index: usize) -> String {
    format!("{{\"room\":\"r{}\",\"n\":{index}}}", index % 4)
}

fn config(order: Order) -> SinkConfig {
    SinkConfig {
        name: "fake".to_owned(),
        lanes: vec![0],
        order,
        batch: BatchConfig { events_max: 16, bytes_max: 1 << 20, linger: Duration::ZERO },
        retry: RetryConfig {
            first: Duration::from_millis(2),
            max: Duration::from_millis(10),
            horizon: Duration::from_secs(3600),
        },
        events_per_second: None,
        concurrency_max: 8,
        memory_bytes_max: 1 << 20,
        timeout: Duration::from_secs(10),
        redrive: None,
        shape: Arc::default(),
        settings: Arc::new(stdout::Settings {}),
        print: Print::default(),
    }
}

/// How a run ended.
struct Ran {
    counters: Arc<SinkCounters>,
    place: Option<Place>,
    /// Whether the feed was told that there is no use in reading.
    rested: bool,
}

/// Drains the lane in `dir` to its end.
fn drain(dir: &Path, config: &SinkConfig, sink: Arc<dyn Sink>) -> Ran {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let counters = Arc::new(SinkCounters::new("fake", "fake", ["main"]));
    let (bury, buried) = mpsc::unbounded_channel();
    let grave = Grave {
        dir: dir.join("dead"),
        sink: "fake".into(),
        record_bytes_max: 4096,
        clock: Clock::System,
        counters: Arc::clone(&counters),
    };
    let (letters, keep) = dead::keeper(grave, bury);
    let thread = std::thread::spawn(keep);
    let (sender, told) = mpsc::unbounded_channel();
    let (place, placed) = watch::channel(None);
    let (resting, rests) = watch::channel(false);
    let feed = feed(config, sink.nature(), sender, rests.clone(), &runtime);
    let reader = reader_at(dir, Place::default()).expect("a reader");
    let feeding = std::thread::spawn(move || feed.run(reader));
    let way = Way {
        sink,
        letters,
        counters: Arc::clone(&counters),
        clock: Clock::System,
        settled: None,
        failed: None,
        resting,
        finite: true,
        landing_max: Duration::from_secs(5),
    };
    let settlement = Settlement::default();
    let lane = Lane { settlement, place, ended: false, next_ticket: 0, replica: None };
    let courier = Courier::new(config, vec![lane], &[0], way);
    let (_stop, stopped) = watch::channel(false);
    runtime.block_on(async {
        let whole = courier.run(told, buried, stopped);
        tokio::time::timeout(Duration::from_secs(120), whole).await.expect("it ends");
    });
    feeding.join().expect("no panic");
    thread.join().expect("no panic");
    let rested = rests.borrow().has_changed();
    Ran { counters, place: *placed.borrow(), rested }
}

/// What reads the one lane to its end.
fn feed(
    config: &SinkConfig,
    nature: Nature,
    sender: mpsc::UnboundedSender<Told>,
    resting: watch::Receiver<bool>,
    runtime: &tokio::runtime::Runtime,
) -> Feed {
    let permits_max = permits_max(config, nature, 1);
    Feed {
        lane: 0,
        name: "main".into(),
        shape: Arc::new(Raw),
        order: config.order.clone(),
        pass: Pass::Live,
        wanted: None,
        end: Some(u64::MAX),
        memory: Arc::new(Semaphore::new(permits_max)),
        permits_max,
        sender,
        runtime: runtime.handle().clone(),
        stop: Arc::new(AtomicBool::new(false)),
        resting,
        told: None,
    }
}

fn end_of(dir: &Path) -> Place {
    let mut reader = reader_at(dir, Place::default()).expect("a reader");
    while reader.next().expect("it reads").is_some() {}
    reader.place()
}

fn counted(taken: &std::sync::mpsc::Receiver<String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for body in taken.try_iter() {
        *counts.entry(body).or_default() += 1;
    }
    counts
}

const COUNT: usize = 600;

#[test]
fn what_fails_for_a_while_is_taken_once_it_works_and_the_cursor_comes_to_the_end() {
    let dir = tempfile::tempdir().expect("a directory");
    lane(dir.path(), COUNT);
    // Every third event fails twice.
    let script: Script = Box::new(|body, attempts| {
        let fails = body.len() % 3 == 0 && attempts < 2;
        if fails { Err(Failure::temporary("later")) } else { Ok(()) }
    });
    let (fake, taken) = Fake::new(Nature::PARALLEL, script);
    let ran = drain(dir.path(), &config(Order::None), Arc::new(fake));
    let counts = counted(&taken);
    assert_eq!(counts.len(), COUNT);
    assert!(counts.values().all(|count| *count == 1));
    assert_eq!(ran.place, Some(end_of(dir.path())));
    assert_eq!((ran.counters.events(), ran.counters.dead_letters()), (COUNT as u64, 0));
}

#[test]
fn events_of_a_key_arrive_in_order_one_at_a_time_while_others_fail() {
    let dir = tempfile::tempdir().expect("a directory");
    lane(dir.path(), COUNT);
    let script: Script = Box::new(|body, attempts| {
        let fails = body.contains("r1") && attempts % 3 != 2;
        if fails { Err(Failure::temporary("later")) } else { Ok(()) }
    });
    let (fake, taken) = Fake::new(Nature::PARALLEL, script);
    let rule = RuleText::One("json:room".to_owned());
    let order = Order::Key(OrderKey::new(&rule).expect("a rule"));
    drain(dir.path(), &config(order), Arc::new(fake));
    let taken: Vec<String> = taken.try_iter().collect();
    assert_eq!(taken.len(), COUNT);
    for room in 0..4 {
        let of_room: Vec<&String> =
            taken.iter().filter(|body| body.contains(&format!("\"r{room}\""))).collect();
        let expected: Vec<String> = (room..COUNT).step_by(4).map(body).collect();
        assert!(of_room.iter().zip(&expected).all(|(one, other)| *one == other), "room {room}");
    }
}

#[test]
fn a_sequential_sink_gets_all_of_it_in_order() {
    let dir = tempfile::tempdir().expect("a directory");
    lane(dir.path(), COUNT);
    let script: Script = Box::new(|_, _| Ok(()));
    let (mut fake, taken) = Fake::new(Nature::SEQUENTIAL, script);
    fake.whole = true;
    let turn = AtomicU64::new(0);
    fake.script = Box::new(move |_, _| {
        let fails = turn.fetch_add(1, Ordering::Relaxed) % 97 == 96;
        if fails { Err(Failure::temporary("later")) } else { Ok(()) }
    });
    drain(dir.path(), &config(Order::None), Arc::new(fake));
    let taken: Vec<String> = taken.try_iter().collect();
    assert_eq!(taken, (0..COUNT).map(body).collect::<Vec<_>>());
}

/// A sequential destination that wants to know what comes next.
#[derive(Debug)]
struct Foresighted {
    fake: Fake,
    /// Batches that were made ready while another was under way.
    readied: AtomicU64,
    under_way: AtomicBool,
}

impl Sink for Foresighted {
    fn nature(&self) -> Nature {
        self.fake.nature()
    }

    fn deliver<'a>(&'a self, batch: &'a [Event]) -> BoxFuture<'a, Delivered> {
        self.deliver_in_turn(batch, Turn::NOW)
    }

    fn deliver_in_turn<'a>(&'a self, batch: &'a [Event], turn: Turn) -> BoxFuture<'a, Delivered> {
        let deliver = async move {
            tokio::task::yield_now().await;
            let readied = self.under_way.load(Ordering::Relaxed);
            self.readied.fetch_add(u64::from(readied), Ordering::Relaxed);
            turn.come().await;
            assert!(!self.under_way.swap(true, Ordering::Relaxed), "two batches at once");
            let delivered = self.fake.deliver(batch).await;
            self.under_way.store(false, Ordering::Relaxed);
            delivered
        };
        deliver.boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Failure>> {
        self.fake.probe()
    }
}

#[test]
fn a_batch_is_made_ready_while_the_one_before_it_is_under_way_and_never_overtakes_it() {
    for fails_every in [37, 97, u64::MAX] {
        let dir = tempfile::tempdir().expect("a directory");
        lane(dir.path(), COUNT);
        let (mut fake, taken) = Fake::new(Nature::SEQUENTIAL, Box::new(|_, _| Ok(())));
        let calls = AtomicU64::new(0);
        fake.script = Box::new(move |_, _| {
            let fails = calls.fetch_add(1, Ordering::Relaxed) % fails_every == fails_every - 1;
            if fails { Err(Failure::temporary("later")) } else { Ok(()) }
        });
        fake.whole = true;
        let (readied, under_way) = (AtomicU64::new(0), AtomicBool::new(false));
        let sink = Arc::new(Foresighted { fake, readied, under_way });
        let ran = drain(dir.path(), &config(Order::None), Arc::clone(&sink) as Arc<dyn Sink>);
        let taken: Vec<String> = taken.try_iter().collect();
        assert_eq!(taken, (0..COUNT).map(body).collect::<Vec<_>>(), "{fails_every}");
        assert_eq!(ran.place, Some(end_of(dir.path())));
        let readied = sink.readied.load(Ordering::Relaxed);
        assert!(readied > 0, "nothing was made ready");
    }
}

#[test]
fn one_poison_event_becomes_a_dead_letter_and_spares_its_batch() {
    for whole in [false, true] {
        let dir = tempfile::tempdir().expect("a directory");
        lane(dir.path(), COUNT);
        let script: Script = Box::new(|text, _| {
            if text == body(333) { Err(Failure::permanent("no such room")) } else { Ok(()) }
        });
        let (mut fake, taken) = Fake::new(Nature::PARALLEL, script);
        fake.whole = whole;
        let ran = drain(dir.path(), &config(Order::None), Arc::new(fake));
        let counts = counted(&taken);
        assert_eq!(counts.len(), COUNT - 1, "{whole}");
        assert_eq!(ran.counters.dead_letters(), 1);
        assert_eq!(ran.place, Some(end_of(dir.path())));
        let mut reader = reader_at(&dir.path().join("dead"), Place::default()).expect("letters");
        let letter = reader.next_held().expect("it reads").expect("a letter");
        let letter = letter.get();
        assert_eq!(letter.body(), body(333).as_bytes());
        let reason = letter.meta().get(forebay_log::Tag::DeadReason);
        assert_eq!(reason, Some(b"permanent: no such room".as_slice()));
        assert_eq!(letter.meta().get(forebay_log::Tag::DeadLane), Some(b"main".as_slice()));
    }
}

#[test]
fn no_letter_waits_behind_one_that_is_larger_than_what_is_taken_now() {
    let dir = tempfile::tempdir().expect("a directory");
    // The lane of the letters begins with segments of a mebibyte, for records of 4 KiB.
    let sizes = [10, 3 << 20, 20, 5 << 20, 30];
    let bodies = sizes.map(|bytes: usize| "x".repeat(bytes));
    lane_of(dir.path(), 64 << 20, bodies.iter().cloned());
    let refuse: Script = Box::new(|_, _| Err(Failure::permanent("all of them")));
    let (fake, _taken) = Fake::new(Nature::PARALLEL, refuse);
    let ran = drain(dir.path(), &config(Order::None), Arc::new(fake));
    assert_eq!(ran.counters.dead_letters(), sizes.len() as u64);
    assert_eq!(ran.place, Some(end_of(dir.path())), "all have settled");
    let letters = super::super::letters::Letters::open(&dir.path().join("dead")).expect("letters");
    let mut kept = Vec::new();
    letters.each(|letter| kept.push(letter.get().body().len())).expect("it reads");
    kept.sort_unstable();
    let mut sizes = sizes.to_vec();
    sizes.sort_unstable();
    assert_eq!(kept, sizes);
}

#[test]
fn a_dead_destination_is_left_alone_and_gets_everything_once_it_is_back() {
    let dir = tempfile::tempdir().expect("a directory");
    lane(dir.path(), COUNT);
    let (fake, taken) = Fake::new(Nature::PARALLEL, Box::new(|_, _| Ok(())));
    let fake = Arc::new(fake);
    fake.down.store(true, Ordering::Relaxed);
    let back = Arc::clone(&fake);
    let wakes = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(1500));
        back.down.store(false, Ordering::Relaxed);
        back.calls.load(Ordering::Relaxed)
    });
    let mut short = config(Order::None);
    // No dead letter for want of time: an outage is longer than this.
    short.retry.horizon = Duration::from_secs(3600);
    let lines = dir.path().join("lines");
    let file = Arc::new(File::create(&lines).expect("a file"));
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(file).finish();
    let ran = tracing::subscriber::with_default(subscriber, || drain(dir.path(), &short, fake));
    let calls = wakes.join().expect("no panic");
    assert!((5..40).contains(&calls), "{calls} batches were sent to a dead destination");
    assert_eq!((counted(&taken).len(), ran.counters.dead_letters()), (COUNT, 0));
    assert!(ran.rested);
    let lines = std::fs::read_to_string(lines).expect("text");
    let left = lines.lines().filter(|line| line.contains("left alone"));
    let left: Vec<_> = left.map(|line| line.split("reason=").last().expect("a reason")).collect();
    assert_eq!(left, ["\"connection refused\"", "\"still away\""], "each reason once: {lines}");
}

#[test]
fn nothing_is_read_for_a_sink_that_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    lane(dir.path(), 5);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (sender, mut told) = mpsc::unbounded_channel();
    let (resting, rests) = watch::channel(true);
    let feed = feed(&config(Order::None), Nature::PARALLEL, sender, rests, &runtime);
    let reader = reader_at(dir.path(), Place::default()).expect("a reader");
    let feeding = std::thread::spawn(move || feed.run(reader));
    assert!(matches!(told.blocking_recv(), Some(Told::Begins(0, _))));
    std::thread::sleep(Duration::from_millis(50));
    assert!(told.try_recv().is_err(), "it reads");
    resting.send_replace(false);
    let events = told.blocking_recv();
    assert!(matches!(&events, Some(Told::Events(0, events, _)) if events.len() == 5), "{events:?}");
    // A courier that has gone ends the rest, too.
    resting.send_replace(true);
    drop((resting, told));
    feeding.join().expect("no panic");
}

#[test]
fn a_sink_that_begins_anew_is_not_away_though_it_was_when_it_was_changed() {
    let dir = tempfile::tempdir().expect("a directory");
    let lanes = dir.path().join("lanes/main");
    lane(&lanes, 0);
    let replica = Arc::new(Replica::new("fake"));
    // As a courier does whose circuit is open when a reload ends it.
    replica.leave(true);
    let lane =
        LaneOf { name: "main".into(), dir: lanes, priority: 0, replica: Some(replica.clone()) };
    let ground = Ground {
        data_dir: dir.path().to_owned(),
        lanes: vec![lane],
        record_bytes_max: 4096,
        clock: Clock::System,
    };
    let drain = Drain::start(&[config(Order::None)], &ground).expect("it starts");
    assert!(!replica.away(), "everyone would be refused until it fails and comes back once more");
    drain.stop();
}

#[test]
fn a_sink_that_is_set_up_wrongly_gives_up_no_event() {
    let dir = tempfile::tempdir().expect("a directory");
    lane(dir.path(), 40);
    let script: Script = Box::new(|_, attempts| {
        let wrong = || Err(Failure::new(Class::Misconfigured, "no such credential"));
        if attempts < 3 { wrong() } else { Ok(()) }
    });
    let (fake, taken) = Fake::new(Nature::PARALLEL, script);
    let mut none = config(Order::None);
    none.retry.horizon = Duration::ZERO;
    let ran = drain(dir.path(), &none, Arc::new(fake));
    assert_eq!((counted(&taken).len(), ran.counters.dead_letters()), (40, 0));
}

#[test]
fn memory_is_bounded_by_what_is_held() {
    let dir = tempfile::tempdir().expect("a directory");
    lane(dir.path(), COUNT);
    let (fake, taken) = Fake::new(Nature::PARALLEL, Box::new(|_, _| Ok(())));
    let mut small = config(Order::None);
    // Four permits, so never more than four events at once.
    small.memory_bytes_max = 4096;
    let fake = Arc::new(fake);
    let ran = drain(dir.path(), &small, Arc::clone(&fake) as Arc<dyn Sink>);
    assert_eq!((counted(&taken).len(), ran.rested), (COUNT, false));
    let calls = usize::try_from(fake.calls.load(Ordering::Relaxed)).expect("small");
    assert!(calls >= COUNT / 4, "{calls} batches of at most four");
}

#[test]
fn a_sequential_sink_holds_three_batches_and_no_more() {
    let mut config = config(Order::None);
    config.memory_bytes_max = 8 << 20;
    // Of 16 events or 1 MiB, of which each event may waste a permit.
    let batch = 1024 + 16;
    assert_eq!(permits_max(&config, Nature::PARALLEL, 1), 8192);
    assert_eq!(permits_max(&config, Nature::SEQUENTIAL, 1), 3 * batch);
    // What is said of its memory holds, and a batch that the sink itself bounds is smaller.
    assert_eq!(permits_max(&config, Nature::SEQUENTIAL, 4), 2048);
    let nature = Nature { events_max: 4, bytes_max: 4096, ..Nature::SEQUENTIAL };
    assert_eq!(permits_max(&config, nature, 1), 3 * (4 + 4));
}
