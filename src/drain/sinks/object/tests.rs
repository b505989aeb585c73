//! Events are in objects once, however batches are cut and whoever dies between; and what a store
//! answers has its class.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use object_store::memory::InMemory;

use super::*;
use crate::drain::testing::{RECEIVED_NS, Written};

const HOUR_NS: u64 = 3_600_000_000_000;

fn settings(bucket: Bucket, format: Format) -> Settings {
    Settings {
        bucket,
        base: Path::from("folder"),
        endpoint: None,
        region: None,
        access_key: Some("key".to_owned()),
        secret_key: Some(SecretText::new("secret")),
        session_token: None,
        ca_pem: None,
        allow_http: true,
        format,
        level: 3,
        prefix: Prefix::parse("{lane}/hour={hh}/").expect("a prefix"),
    }
}

/// A process that begins: it knows what is in the store, and nothing else.
fn process(store: &Arc<InMemory>, format: Format) -> Object {
    let settings = settings(Bucket::S3("bucket".to_owned()), format);
    let sink = Object::new(&settings, "out", Duration::from_secs(30)).expect("a sink");
    Object { store: Arc::clone(store) as _, ..sink }
}

fn now<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

fn objects(store: &InMemory) -> Vec<(Path, Bytes)> {
    now(async {
        let found: Vec<_> = store.list(None).try_collect().await.expect("listed");
        let mut objects = Vec::new();
        for meta in found {
            let read = store.get(&meta.location).await.expect("there");
            objects.push((meta.location, read.bytes().await.expect("read")));
        }
        objects.sort();
        objects
    })
}

/// The positions in all objects of lines, by name.
fn positions(store: &InMemory) -> Vec<Position> {
    let mut positions = Vec::new();
    for (name, object) in objects(store) {
        if !name.as_ref().contains("_forebay") {
            let lines = zstd::decode_all(&object[..]).expect("zstd");
            let lines = lines.split_inclusive(|byte| *byte == b'\n');
            let position = |line: &[u8]| super::super::line::position_of(&line[..line.len() - 1]);
            positions.extend(lines.map(|line| position(line).expect("a line of ours")));
        }
    }
    positions
}

/// Numbers that look random and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("small") % bound
    }
}

/// Drains all events through processes that die at any moment: a cursor may be older than what is
/// in the store, and what a dead process has sent may arrive at any time. Returns what is there.
fn drained(events: &[Event], seed: u64, without_marks: bool) -> Vec<Position> {
    let (store, mut numbers) = (Arc::new(InMemory::new()), Numbers(seed));
    let (mut cursor, mut late) = (0, Vec::<(Object, Vec<Event>)>::new());
    while cursor < events.len() {
        let sink = process(&store, Format::Ndjson);
        let mut at = cursor;
        let dies_with = loop {
            let end = (at + 1 + numbers.below(9)).min(events.len());
            let batch = &events[at..end];
            if numbers.below(4) == 0 || batch.is_empty() {
                break batch.to_vec();
            }
            assert_eq!(now(sink.deliver(batch)), Delivered::All);
            at = end;
            if numbers.below(2) == 0 {
                cursor = at;
            }
        };
        late.push((sink, dies_with));
        if numbers.below(2) == 0 {
            let (sink, batch) = late.swap_remove(numbers.below(late.len()));
            _ = now(sink.bring(&batch));
        }
        if without_marks {
            for (name, _) in objects(&store) {
                if name.as_ref().contains("_forebay") {
                    now(store.delete(&name)).expect("deleted");
                }
            }
        }
    }
    for (sink, batch) in late {
        _ = now(sink.bring(&batch));
    }
    positions(&store)
}

#[test]
fn every_event_is_there_once_however_batches_are_cut_and_whoever_dies() {
    let mut log = Written::new();
    let events: Vec<Event> = (0..60).map(|number| log.event(number, "{}")).collect();
    let once: Vec<Position> = events.iter().map(Event::position).collect();
    for seed in 0..200 {
        assert_eq!(drained(&events, seed, false), once, "seed {seed}");
    }
    let twice = |seed: &u64| drained(&events, *seed, true) != once;
    assert!((0..200).any(|seed| twice(&seed)), "the marks are never needed here");
}

#[test]
fn an_object_ends_where_its_folder_does() {
    let mut log = Written::new();
    // The third arrived a moment before the second, and a receiver was late with it.
    let hours = [0, 1, 0, 1, 2];
    let events: Vec<Event> = hours
        .iter()
        .zip(0..)
        .map(|(hour, number)| {
            log.received_ns = RECEIVED_NS + hour * HOUR_NS;
            log.event(number, "{}")
        })
        .collect();
    let store = Arc::new(InMemory::new());
    assert_eq!(now(process(&store, Format::Ndjson).deliver(&events)), Delivered::All);
    let names: Vec<String> = objects(&store).iter().map(|(name, _)| name.to_string()).collect();
    let folders: Vec<&str> =
        names.iter().filter_map(|name| Some(name.rsplit_once('/')?.0)).collect();
    assert_eq!(folders, ["folder/main/hour=18", "folder/main/hour=19", "folder/main/hour=20"]);
    assert_eq!(positions(&store), events.iter().map(Event::position).collect::<Vec<_>>());
}

#[test]
fn files_of_either_format_tell_how_far_they_go() {
    let mut log = Written::new();
    let events: Vec<Event> = (0..5).map(|number| log.event(number, "a=1\nb")).collect();
    for format in [Format::Ndjson, Format::Parquet] {
        for level in [0, 3] {
            let object = encode(format, level, &events).expect("an object").into();
            assert_eq!(last(format, level, &object), Some(events[4].position()), "{format:?}");
            for other in [&b""[..], b"{}\n", b"PAR1", &object[..object.len() / 2]] {
                let other = Bytes::copy_from_slice(other);
                // Half of what is not compressed is whole lines of this sink, or ends within one.
                let found = last(format, level, &other);
                assert!(found < Some(events[4].position()), "{format:?}: {found:?}");
            }
        }
    }
}

#[test]
fn an_object_of_somebody_else_is_left_alone() {
    let mut log = Written::new();
    let events = [log.event(1, "{}"), log.event(2, "{}")];
    for format in [Format::Ndjson, Format::Parquet] {
        let store = Arc::new(InMemory::new());
        let sink = process(&store, format);
        let name = sink.names.object(&events[0]);
        now(store.put(&name, "mine".into())).expect("put");
        let Delivered::None(failure) = now(sink.deliver(&events)) else { panic!("is refused") };
        assert_eq!(failure.class, Class::Misconfigured);
        assert_eq!(objects(&store), [(name, Bytes::from_static(b"mine"))]);
    }
}

#[test]
fn a_replay_is_an_object_of_its_own_each_time() {
    let mut log = Written::new();
    let mut events: Vec<Event> = (0..3).map(|number| log.event(number, "{}")).collect();
    let store = Arc::new(InMemory::new());
    let sink = process(&store, Format::Ndjson);
    assert_eq!(now(sink.deliver(&events)), Delivered::All);
    for event in &mut events {
        event.pass = Pass::Replay;
    }
    assert_eq!(now(sink.deliver(&events[..2])), Delivered::All);
    assert_eq!(now(sink.deliver(&events[..2])), Delivered::All);
    assert_eq!(positions(&store).len(), 3 + 2 + 2);
    let replays =
        objects(&store).iter().filter(|(name, _)| name.as_ref().contains("replay")).count();
    assert_eq!(replays, 2);
}

/// A store that gives these answers, one for each request, and then is gone.
fn store_that_answers(answers: Vec<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("a connection");
            let (mut request, mut part) = (Vec::new(), [0; 4096]);
            while !is_whole(&request) {
                let read = stream.read(&mut part).expect("readable");
                request.extend_from_slice(&part[..read]);
            }
            stream.write_all(answer.as_bytes()).expect("writable");
        }
    });
    address
}

/// Whether a request is there with its body.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some(head) = text.find("\r\n\r\n") else { return false };
    let length = text[..head].split("content-length: ").nth(1);
    let length = length.and_then(|rest| rest.lines().next()?.trim().parse::<usize>().ok());
    request.len() >= head + 4 + length.unwrap_or(0)
}

/// What becomes of an event when the store has no mark and then gives this answer, and this one.
fn failure_after(answers: &[&'static str]) -> Failure {
    const NO_MARKS: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 64\r\n\r\n\
        <ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
    let no_marks = NO_MARKS.replace(
        "64",
        &(NO_MARKS.len() - NO_MARKS.find("\r\n\r\n").expect("a head") - 4).to_string(),
    );
    let answers: Vec<&'static str> =
        std::iter::once(&*no_marks.leak()).chain(answers.iter().copied()).collect();
    let address = store_that_answers(answers);
    let settings = Settings {
        endpoint: Some(format!("http://{address}")),
        ..settings(Bucket::S3("bucket".to_owned()), Format::Ndjson)
    };
    let sink = Object::new(&settings, "out", Duration::from_secs(30)).expect("a sink");
    match now(sink.deliver(&[Written::new().event(1, "{}")])) {
        Delivered::None(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_store_answers_has_its_class() {
    macro_rules! answer {
        ($status:literal, $code:literal) => {
            concat!(
                "HTTP/1.1 ",
                $status,
                "\r\nconnection: close\r\n\r\n<Error><Code>",
                $code,
                "</Code><Message>secret words</Message></Error>"
            )
        };
    }
    for (answer, class) in [
        (answer!("503 Slow Down", "SlowDown"), Class::Overloaded),
        (answer!("429 Too Many Requests", "TooMany"), Class::Overloaded),
        (answer!("500 Internal Server Error", "InternalError"), Class::Temporary),
        (answer!("400 Bad Request", "RequestTimeout"), Class::Temporary),
        (answer!("400 Bad Request", "AuthorizationHeaderMalformed"), Class::Misconfigured),
        (answer!("403 Forbidden", "InvalidAccessKeyId"), Class::Misconfigured),
        (answer!("404 Not Found", "NoSuchBucket"), Class::Misconfigured),
    ] {
        let failure = failure_after(&[answer]);
        assert_eq!(failure.class, class, "{answer}: {failure}");
        assert!(!failure.reason.contains("secret words"), "{failure}");
    }
    // A conflict over what is not there is no object that is there.
    let conflict = answer!("409 Conflict", "ConditionalRequestConflict");
    let failure = failure_after(&[conflict, answer!("404 Not Found", "NoSuchKey")]);
    assert_eq!(failure.class, Class::Temporary, "{failure}");
    // Nobody there.
    assert_eq!(failure_after(&[]).class, Class::Temporary);
}
