//! redis-server with a log of its writes, a password, and small values only.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use forebay::drain::sink::{Class, Delivered, Pass, Sink};
use forebay::drain::sinks::{Template, redis as sink};
use forebay::verify::SecretText;
use redis::streams::{StreamId, StreamRangeReply};

use super::process::{Process, START_WAIT};
use super::suite::class_of;
use super::{Counterpart, Served, TIMEOUT, Who, certificates, now};
use crate::support::eventually;

const PASSWORD: &str = "a-password-of-the-tests";
const STREAM: &str = "hooks";
/// The longest value that it takes.
const VALUE_BYTES_MAX: usize = 1 << 20;

pub(super) struct Redis(Process);

impl Redis {
    async fn ask<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> redis::RedisResult<T> {
        let url = format!("redis://:{PASSWORD}@127.0.0.1:{}/", self.0.port);
        // The client's own patience is less than a busy machine needs for a whole stream.
        let patient = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(START_WAIT))
            .set_response_timeout(Some(START_WAIT));
        let client = redis::Client::open(url)?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&patient).await?;
        command.query_async(&mut connection).await
    }

    fn settings(&self, password: &str) -> sink::Settings {
        let url = format!("redis://127.0.0.1:{}/", self.0.port);
        sink::Settings {
            server: redis::IntoConnectionInfo::into_connection_info(url).unwrap(),
            user: None,
            password: Some(SecretText::new(password)),
            ca_pem: None,
            stream: Template::parse(STREAM).unwrap(),
            entries_max: None,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.folder.path().join("appendonlydir").join(name)
    }

    /// Cuts off what a kill has left half written, a transaction as a whole.
    fn mend(&self) {
        let manifest = self.file("appendonly.aof.manifest");
        if !manifest.exists() {
            return;
        }
        let mut check = Command::new("redis-check-aof");
        check.arg("--fix").arg(manifest).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut check = check.spawn().expect("redis-check-aof, of redis-tools");
        // It has no question if nothing is wrong.
        _ = check.stdin.take().unwrap().write_all(b"y\n");
        let checked = check.wait_with_output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    }

    fn entries(&self) -> Vec<StreamId> {
        let mut range = redis::cmd("XRANGE");
        range.arg(STREAM).arg("-").arg("+");
        now(self.ask::<StreamRangeReply>(&range)).unwrap().ids
    }

    fn set(&self, key: &str, value: &str) {
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg(key).arg(value);
        now(self.ask::<String>(&command)).unwrap();
    }
}

impl Counterpart for Redis {
    fn start() -> Self {
        let mut started = Self(Process::new());
        started.run();
        started
    }

    fn sink(&self, who: Who) -> Arc<dyn Sink> {
        let password = if who == Who::Known { PASSWORD } else { "another" };
        Arc::new(sink::Redis::new(self.settings(password), TIMEOUT))
    }

    fn stored(&self) -> Vec<String> {
        let name = |entry: StreamId| {
            let field = |name| entry.get::<String>(name).unwrap_or_else(|| panic!("no {name}"));
            assert_eq!(field("source"), "shop");
            assert_eq!(field("content_type"), "application/json");
            format!("{} {}", field("lane"), field("position"))
        };
        self.entries().into_iter().map(name).collect()
    }

    fn event_ids(&self) -> Vec<String> {
        let id = |entry: StreamId| entry.get("event_id").expect("an event_id");
        self.entries().into_iter().map(id).collect()
    }

    fn section(&self) -> String {
        format!(
            "[sink.redis]\nurl = \"redis://127.0.0.1:{}/\"\n\
             password = {{ value = \"{PASSWORD}\" }}\nstream = \"{STREAM}\"\n",
            self.0.port
        )
    }

    fn poison() -> String {
        format!("{{\"large\": \"{}\"}}", "x".repeat(VALUE_BYTES_MAX))
    }

    /// A replay is added whenever it comes.
    fn forget(&self) -> Pass {
        Pass::Replay
    }
}

impl Served for Redis {
    fn process(&mut self) -> &mut Process {
        &mut self.0
    }

    fn run(&mut self) {
        self.mend();
        let mut command = Command::new("redis-server");
        let port = self.0.port.to_string();
        let value_bytes_max = VALUE_BYTES_MAX.to_string();
        command.current_dir(self.0.folder.path()).args([
            "--bind",
            "127.0.0.1",
            "--port",
            &port,
            "--requirepass",
            PASSWORD,
            "--appendonly",
            "yes",
            // With any less it answers before it has written, while an older write is synced, and
            // a kill takes what it has answered for.
            "--appendfsync",
            "always",
            // If told to start all the same after a kill has cut a transaction within a command, it
            // leaves what is in front of the cut, and applies that at the start after the next.
            "--aof-load-truncated",
            "no",
            "--save",
            "",
            "--proto-max-bulk-len",
            &value_bytes_max,
        ]);
        self.0.spawn(&mut command);
        let ping = redis::cmd("PING");
        eventually("redis-server is ready", START_WAIT, || now(self.ask::<String>(&ping)).is_ok());
    }
}

#[test]
#[ignore = "needs the sinks' servers, see tests/run sinks"]
fn what_redis_refuses_has_its_class_and_costs_nothing() {
    let server = Redis::start();
    let sink = server.sink(Who::Known);
    let batch = super::events::Events::of_lane("main").next(8);
    let deliver = || class_of(&now(sink.deliver(&batch)));
    server.set("maxmemory", "1");
    assert_eq!(deliver(), Some(Class::Overloaded));
    server.set("maxmemory", "0");
    server.set("min-replicas-to-write", "1");
    assert_eq!(deliver(), Some(Class::Temporary));
    server.set("min-replicas-to-write", "0");
    let mut other = redis::cmd("SET");
    now(server.ask::<String>(other.arg(STREAM).arg("no stream"))).unwrap();
    assert_eq!(deliver(), Some(Class::Misconfigured));
    now(server.ask::<i64>(redis::cmd("DEL").arg(STREAM))).unwrap();
    assert_eq!(deliver(), None);
    assert_eq!(server.stored(), super::events::names_of(&batch));
}

#[test]
#[ignore = "needs the sinks' servers, see tests/run sinks"]
fn a_stream_that_is_trimmed_keeps_about_what_it_should() {
    let server = Redis::start();
    let settings = sink::Settings { entries_max: Some(100), ..server.settings(PASSWORD) };
    let sink = sink::Redis::new(settings, TIMEOUT);
    let batch = super::events::Events::of_lane("main").next(1000);
    now(async {
        for part in batch.chunks(100) {
            assert_eq!(sink.deliver(part).await, Delivered::All);
        }
    });
    let kept = server.stored();
    assert!((100..400).contains(&kept.len()), "{} entries", kept.len());
    assert_eq!(kept.last(), super::events::names_of(&batch).last());
    // What was trimmed away is known by the cursor.
    let sink = server.sink(Who::Known);
    assert_eq!(now(sink.deliver(&batch)), Delivered::All);
    assert_eq!(server.stored(), kept);
}

/// Each meets what the other has done between its look at the cursor and its transaction.
#[test]
#[ignore = "needs the sinks' servers, see tests/run sinks"]
fn two_that_bring_the_same_at_once_add_it_once() {
    let server = Redis::start();
    let batches: Vec<_> = {
        let mut lane = super::events::Events::of_lane("main");
        (0..200).map(|_| lane.next(10)).collect()
    };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let (sink, batches) = (server.sink(Who::Known), &batches);
            scope.spawn(move || {
                now(async {
                    for batch in batches {
                        assert_eq!(sink.deliver(batch).await, Delivered::All);
                    }
                });
            });
        }
    });
    assert_eq!(server.stored(), super::events::names_of(&batches.concat()));
}

/// As a kill leaves it that comes while the server writes.
#[test]
#[ignore = "needs the sinks' servers, see tests/run sinks"]
fn a_transaction_that_was_half_written_is_there_once() {
    let mut server = Redis::start();
    let mut lane = super::events::Events::of_lane("main");
    let batches = [lane.next(10), lane.next(10), lane.next(10)];
    for batch in &batches[..2] {
        assert_eq!(now(server.sink(Who::Known).deliver(batch)), Delivered::All);
    }
    server.process().kill();
    let file = server.file("appendonly.aof.1.incr.aof");
    let file = OpenOptions::new().write(true).open(file).unwrap();
    file.set_len(file.metadata().unwrap().len() - 700).unwrap();
    server.run();
    assert_eq!(server.stored(), super::events::names_of(&batches[0]), "all of it is undone");
    for batch in &batches[1..] {
        assert_eq!(now(server.sink(Who::Known).deliver(batch)), Delivered::All);
    }
    server.process().kill();
    server.run();
    assert_eq!(server.stored(), super::events::names_of(&batches.concat()));
}

/// Runs it with TLS alone, and with a user who may do what the README says that the sink needs.
fn secured(folder: &Path) -> (Process, [PathBuf; 3]) {
    let mut server = Process::new();
    let files = certificates::of_loopback(folder, "server");
    let [authority, certificate, key] = files.each_ref().map(|path| path.to_str().unwrap());
    let port = server.port.to_string();
    let may = format!("~{STREAM} ~{{{STREAM}}}:cursor +eval +xadd +hget +hset");
    let acl = format!("forebay on >{PASSWORD} {may}");
    let mut command = Command::new("redis-server");
    command.current_dir(server.folder.path()).args(["--bind", "127.0.0.1", "--port", "0"]);
    command.args(["--tls-port", &port, "--tls-cert-file", certificate, "--tls-key-file", key]);
    command.args(["--tls-ca-cert-file", authority, "--tls-auth-clients", "no", "--save", ""]);
    command.args(["--requirepass", PASSWORD, "--user"]).args(acl.split(' '));
    server.spawn(&mut command);
    eventually("redis-server is ready", START_WAIT, || {
        std::net::TcpStream::connect(("127.0.0.1", server.port)).is_ok()
    });
    (server, files)
}

#[test]
#[ignore = "needs the sinks' servers, see tests/run sinks"]
fn over_tls_the_servers_certificate_and_the_user_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let (server, [authority, ..]) = secured(folder.path());
    let [stranger, ..] = certificates::of_loopback(folder.path(), "stranger");
    let with = |host: &str, authority: &Path, user: &str, password: &str| sink::Settings {
        server: redis::IntoConnectionInfo::into_connection_info(format!(
            "rediss://{host}:{}/",
            server.port
        ))
        .unwrap(),
        user: Some(user.to_owned()),
        password: Some(SecretText::new(password)),
        ca_pem: Some(std::fs::read(authority).unwrap()),
        stream: Template::parse(STREAM).unwrap(),
        entries_max: None,
    };
    let batch = super::events::Events::of_lane("main").next(3);
    for (settings, word) in [
        (with("127.0.0.1", &stranger, "forebay", PASSWORD), "UnknownIssuer"),
        (with("localhost", &authority, "forebay", PASSWORD), "NotValidForName"),
        (with("127.0.0.1", &authority, "forebay", "another"), "the user or the password"),
        (with("127.0.0.1", &authority, "nobody", PASSWORD), "the user or the password"),
    ] {
        let delivered = now(sink::Redis::new(settings, TIMEOUT).deliver(&batch));
        assert_eq!(class_of(&delivered), Some(Class::Misconfigured), "{delivered:?}");
        assert!(format!("{delivered:?}").contains(word), "{word}: {delivered:?}");
    }
    let right = |user| sink::Redis::new(with("127.0.0.1", &authority, user, PASSWORD), TIMEOUT);
    assert_eq!(now(right("forebay").deliver(&batch)), Delivered::All);
    assert_eq!(now(right("default").deliver(&batch)), Delivered::All);
    let certificates = redis::TlsCertificates {
        client_tls: None,
        root_cert: Some(std::fs::read(&authority).unwrap()),
    };
    let url = format!("rediss://:{PASSWORD}@127.0.0.1:{}/", server.port);
    let client = redis::Client::build_with_tls(url, certificates).unwrap();
    let length = now(async {
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        redis::cmd("XLEN").arg(STREAM).query_async::<usize>(&mut connection).await
    });
    assert_eq!(length.unwrap(), batch.len());
}
