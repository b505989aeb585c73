//! kill -9 under load, again and again: what was acknowledged is in the log exactly once, what
//! was never sent is not, and the server works on.
//!
//! `tests/run kill ROUNDS` sets the rounds for each driver and ack level. A round: senders keep
//! the server busy, it dies at a moment that a seed decides, it starts again (now and then it
//! dies once more while it recovers), the log is judged; the senders then deliver again what was
//! never answered and some of what was, as senders do, and the log is judged once more. The same data folder serves
//! several rounds, so that recoveries lie on top of each other.

mod audit;

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay_log::Clock;

use crate::support::http::Connection;
use crate::support::random::Random;
use crate::support::server::{Server, Setup};
use crate::support::{Driver, eventually, setting, sign};
use audit::{Finding, Ledger, audit, payload};

for_each_driver![
    nothing_acknowledged_at_written_is_lost_by_kill_9,
    nothing_acknowledged_at_synced_is_lost_by_kill_9,
];

const ROUNDS_DEFAULT: u64 = 4;
/// Rounds on one data folder before the next one is taken.
const ROUNDS_OF_FOLDER: u64 = 5;
const SENDERS: u64 = 8;
/// The server dies no earlier than this many acknowledgements into a round.
const ACKNOWLEDGED_MIN: u64 = 50;
/// Acknowledged events that are delivered again after each crash.
const ANSWERS_LOST: usize = 40;

fn nothing_acknowledged_at_written_is_lost_by_kill_9(driver: Driver) {
    campaign(driver, "written");
}

fn nothing_acknowledged_at_synced_is_lost_by_kill_9(driver: Driver) {
    campaign(driver, "synced");
}

fn campaign(driver: Driver, ack: &'static str) {
    let rounds = setting("IT_KILL_ROUNDS", ROUNDS_DEFAULT);
    let seed = setting("IT_SEED", Clock::System.wall_ns());
    let name = driver.name();
    eprintln!("kill -9, {name}, {ack}: {rounds} rounds, IT_SEED={seed}");
    let mut random = Random::new(seed);
    let (mut done, mut sent) = (0, 0);
    let mut total = Seen::default();
    while done < rounds {
        let setup = Setup::new(driver).ack(ack).segments("1MiB", "64KiB");
        let mut server = Server::start(setup);
        let mut ledger = Ledger::default();
        for _ in 0..ROUNDS_OF_FOLDER.min(rounds - done) {
            total.add(round(&mut server, &mut ledger, &mut random, done));
            done += 1;
        }
        sent += ledger.sent_count();
    }
    eprintln!(
        "kill -9, {name}, {ack}: {done} rounds, {sent} events sent; at the kills {} were \
         acknowledged, {} in flight; {} answers of 503; 0 lost, 0 twice, 0 altered, 0 unknown",
        total.acknowledged, total.in_flight, total.full
    );
}

/// What a round was like, so that a campaign in which nothing happened shows.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    acknowledged: usize,
    in_flight: usize,
    full: u64,
}

impl Seen {
    const fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.in_flight += other.in_flight;
        self.full += other.full;
    }
}

/// What the senders of one round count together. Relaxed throughout: the join of the threads is
/// what completes the counts.
#[derive(Debug, Default)]
struct Tally {
    answered: AtomicU64,
    full: AtomicU64,
}

fn round(server: &mut Server, ledger: &mut Ledger, random: &mut Random, round: u64) -> Seen {
    let tally = Tally::default();
    let life = Duration::from_micros(random.between(20_000, 250_000));
    let address = server.address();
    let seeds: Vec<u64> = (0..SENDERS).map(|_| random.next()).collect();
    let told: Vec<Ledger> = std::thread::scope(|scope| {
        let senders: Vec<_> = seeds
            .iter()
            .enumerate()
            .map(|(sender, seed)| {
                let (tally, random) = (&tally, Random::new(*seed));
                let prefix = format!("r{round}-s{sender}");
                scope.spawn(move || send_until_it_dies(address, &prefix, random, tally))
            })
            .collect();
        eventually("the load runs", Duration::from_secs(30), || {
            tally.answered.load(Ordering::Relaxed) >= ACKNOWLEDGED_MIN
        });
        std::thread::sleep(life);
        server.kill();
        senders.into_iter().map(|sender| sender.join().unwrap()).collect()
    });
    let mut seen = Seen { full: tally.full.into_inner(), ..Seen::default() };
    for each in told {
        seen.acknowledged += each.acknowledged_count();
        seen.in_flight += each.unanswered().len();
        ledger.merge(each);
    }
    if random.once_in(3) {
        server.spawn();
        std::thread::sleep(Duration::from_micros(random.between(0, 60_000)));
        server.kill();
    }
    server.run();
    judge(server, ledger, "after the restart");
    deliver_again(server, ledger, random);
    judge(server, ledger, "after the senders' retries");
    seen
}

/// Sends events of its own, now and then one of them again, until the connection breaks.
fn send_until_it_dies(
    address: std::net::SocketAddr,
    prefix: &str,
    mut random: Random,
    tally: &Tally,
) -> Ledger {
    let mut ledger = Ledger::default();
    let Ok(mut connection) = Connection::open(address) else { return ledger };
    let mut count = 0;
    loop {
        let again = count > 0 && random.once_in(8);
        let index = if again { random.between(0, count - 1) } else { count };
        count += u64::from(!again);
        let id = format!("{prefix}-{index}");
        ledger.sent(&id);
        let Ok(response) = connection.send(&sign::standard(&id, &payload(&id))) else {
            return ledger;
        };
        if response.status == 503 {
            // The log was full for a moment, and a refusal ends the connection; the event is sent
            // again after the crash.
            tally.full.fetch_add(1, Ordering::Relaxed);
            let Ok(next) = Connection::open(address) else { return ledger };
            connection = next;
            continue;
        }
        assert_eq!(response.status, 200, "{id}: {}", response.text());
        ledger.acknowledged(&id);
        tally.answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// What senders do with events that were never answered, and with some whose answer they lost. It
/// also shows that the server lives.
fn deliver_again(server: &Server, ledger: &mut Ledger, random: &mut Random) {
    ledger.sent("alive");
    let mut again = ledger.unanswered();
    again.extend(ledger.some_acknowledged(random, ANSWERS_LOST));
    for id in again {
        let request = sign::standard(&id, &payload(&id));
        eventually("an event is taken after the crash", Duration::from_secs(10), || {
            let response = server.send(&request);
            assert!([200, 503].contains(&response.status), "{id}: {}", response.text());
            response.status == 200
        });
        ledger.acknowledged(&id);
    }
}

fn judge(server: &Server, ledger: &Ledger, when: &str) {
    let findings = audit(ledger, &server.rows());
    if findings.is_empty() {
        return;
    }
    let kept = keep_evidence(&server.data());
    panic!(
        "{when}: {} findings, the data folder is kept at {}: {findings:#?}",
        findings.len(),
        kept.display()
    );
}

/// Copies a data folder to where the next test does not remove it.
fn keep_evidence(data: &Path) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let kept = target.join(format!("kill-evidence-{}", std::process::id()));
    for file in files_under(data) {
        let to = kept.join(file.strip_prefix(data).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&file, &to).unwrap();
    }
    kept
}

fn files_under(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_under(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files
}

/// A server that took `count` events, and what their sender knows.
fn server_with_events(count: usize) -> (Server, Ledger) {
    let server = Server::start(Setup::new(Driver::Epoll).segments("1MiB", "64KiB"));
    let mut ledger = Ledger::default();
    let mut connection = server.connect();
    for index in 0..count {
        let id = format!("control-{index}");
        ledger.sent(&id);
        assert_eq!(connection.send(&sign::standard(&id, &payload(&id))).unwrap().status, 200);
        ledger.acknowledged(&id);
    }
    (server, ledger)
}

/// The negative control: a judge that finds nothing in a sound log has to find each planted fault.
#[test]
fn the_judge_sees_every_kind_of_fault() {
    let (server, ledger) = server_with_events(20);
    let rows = server.rows();
    assert_eq!(audit(&ledger, &rows), [], "a sound log");

    let id = "control-7".to_owned();
    let at = rows.iter().position(|row| row.id() == id).unwrap();
    let mut hidden = rows.clone();
    hidden.remove(at);
    assert_eq!(audit(&ledger, &hidden), [Finding::Lost(id.clone())]);

    let mut doubled = rows.clone();
    let mut copy = rows[at].clone();
    copy.position = "4000000000-0".to_owned();
    doubled.push(copy.clone());
    assert_eq!(audit(&ledger, &doubled), [Finding::Twice(id.clone())]);

    let mut altered = rows.clone();
    altered[at] = altered[at].clone().with_body("{}");
    assert_eq!(audit(&ledger, &altered), [Finding::Altered(id.clone())]);

    let mut swapped = rows.clone();
    swapped.swap(at, at + 1);
    assert_eq!(audit(&ledger, &swapped), [Finding::Backwards(rows[at].position.clone())]);

    let mut unknown = ledger.clone();
    unknown.forget(&id);
    assert_eq!(audit(&unknown, &rows), [Finding::Unknown(id)]);

    let mut claimed = ledger;
    claimed.acknowledged("never-sent");
    assert_eq!(audit(&claimed, &rows), [Finding::Lost("never-sent".to_owned())]);
}

/// The same on the disk: one bit of an acknowledged record turned over while the server is down.
#[test]
fn the_judge_sees_a_bit_that_turned_on_the_disk() {
    let (mut server, ledger) = server_with_events(20);
    server.kill();
    assert_eq!(audit(&ledger, &server.rows()), [], "a sound log");
    let id = "control-7";
    flip_a_bit_of(&server.data(), id);
    // Before the server has seen the damage, and after it has recovered around it.
    let output = server.tail(&["--json", "--from", "earliest"]);
    if output.status.success() {
        let findings = audit(&ledger, &crate::support::log::rows(&output));
        assert!(!findings.is_empty(), "a damaged record was shown as if it were sound");
    }
    server.run();
    let findings = audit(&ledger, &server.rows());
    assert!(findings.contains(&Finding::Lost(id.to_owned())), "{findings:?}");
    assert!(!findings.contains(&Finding::Altered(id.to_owned())), "{findings:?}");
}

fn flip_a_bit_of(data: &Path, id: &str) {
    let needle = payload(id);
    for path in files_under(data) {
        let mut bytes = Vec::new();
        File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
        let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) else {
            continue;
        };
        let place = at + needle.len() / 2;
        let mut file = OpenOptions::new().write(true).open(&path).unwrap();
        file.seek(SeekFrom::Start(place as u64)).unwrap();
        file.write_all(&[bytes[place] ^ 1]).unwrap();
        return;
    }
    panic!("no file under {} holds the body of {id}", data.display());
}
