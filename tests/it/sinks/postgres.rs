//! PostgreSQL with a password; payloads are JSON there.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use forebay::drain::sink::{Class, Delivered, Pass, Sink};
use forebay::drain::sinks::postgres as sink;
use forebay::verify::SecretText;
use tempfile::TempDir;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};

use super::process::{Process, START_WAIT};
use super::suite::class_of;
use super::{Counterpart, Served, TIMEOUT, Who, certificates, now};
use crate::support::eventually;

const USER: &str = "forebay";
const PASSWORD: &str = "a-password-of-the-tests";
const TABLE: &str = "public.hooks";
/// The order in which rows were put: by transaction, since the place alone says nothing once the room
/// of one that failed was given to another.
const AS_PUT: &str = "xmin::text::bigint, ctid";

pub(super) struct Postgres {
    process: Process,
    /// Settings of the server, beside those that all have.
    more: Vec<String>,
}

/// Where Debian puts the newest.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.map(|entry| entry.path()).max();
    newest.unwrap_or_else(|| panic!("no PostgreSQL; see tests/run sinks")).join("bin").join(name)
}

/// The user and group that it runs as: it refuses to be root.
fn account() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("a user postgres");
    let mut fields = line.split(':').skip(2);
    let mut next = || fields.next().unwrap().parse().unwrap();
    Some((next(), next()))
}

/// A command as that user.
fn command(name: &str) -> Command {
    let mut command = Command::new(program(name));
    if let Some((user, group)) = account() {
        command.uid(user).gid(group);
    }
    command
}

/// Gives a folder to that user.
fn hand_over(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    if let Some((user, group)) = account() {
        chown(folder, Some(user), Some(group)).unwrap();
    }
}

/// A cluster that nobody has started, to copy: making one takes seconds.
fn pattern() -> &'static Path {
    static PATTERN: OnceLock<TempDir> = OnceLock::new();
    let made = PATTERN.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        hand_over(folder.path());
        let secret = folder.path().join("password");
        fs::write(&secret, PASSWORD).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
        let made = command("initdb")
            .args(["--no-sync", "--auth", "scram-sha-256", "--username", USER, "--encoding"])
            .args(["UTF8", "--locale", "C", "--pwfile"])
            .arg(&secret)
            .arg("--pgdata")
            .arg(folder.path().join("data"))
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        folder
    });
    made.path()
}

impl Postgres {
    fn config(&self) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.process.port).user(USER).dbname("postgres");
        config
    }

    /// The server as its clients name it, password included.
    #[cfg(feature = "sink-object")]
    pub(super) fn url(&self) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{}/postgres", self.process.port)
    }

    pub(super) async fn client(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.config().password(PASSWORD).connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    pub(super) fn execute(&self, sql: &str) {
        now(async { self.client().await.unwrap().batch_execute(sql).await }).unwrap();
    }

    fn settings(&self, password: &str) -> sink::Settings {
        let tls = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        sink::Settings {
            server: self.config(),
            password: Some(SecretText::new(password)),
            tls: Arc::new(tls),
            table: sink::Table::parse(TABLE).unwrap(),
            payload: sink::Payload::Json,
        }
    }
}

impl Counterpart for Postgres {
    fn start() -> Self {
        let process = Process::new();
        hand_over(process.folder.path());
        let data = process.folder.path().join("data");
        let copied = Command::new("cp")
            .args(["--archive", "--reflink=auto"])
            .arg(pattern().join("data"))
            .arg(&data)
            .status()
            .unwrap();
        assert!(copied.success());
        let mut started = Self { process, more: Vec::new() };
        started.run();
        started
    }

    fn sink(&self, who: Who) -> Arc<dyn Sink> {
        let password = if who == Who::Known { PASSWORD } else { "another" };
        Arc::new(sink::Postgres::new(self.settings(password), TIMEOUT))
    }

    fn stored(&self) -> Vec<String> {
        let sql = format!("SELECT lane, epoch, position, source FROM hooks ORDER BY {AS_PUT}");
        let rows = now(async { self.client().await.unwrap().query(&sql, &[]).await });
        let name = |row: tokio_postgres::Row| {
            assert_eq!(row.get::<_, &str>("source"), "shop");
            let (epoch, position): (i64, i64) = (row.get("epoch"), row.get("position"));
            format!("{} {epoch}-{position}", row.get::<_, &str>("lane"))
        };
        rows.unwrap().into_iter().map(name).collect()
    }

    fn event_ids(&self) -> Vec<String> {
        let sql = format!("SELECT event_id FROM hooks ORDER BY {AS_PUT}");
        // Before the first event there is no table.
        let rows = now(async { self.client().await.unwrap().query(&sql, &[]).await });
        rows.unwrap_or_default().into_iter().map(|row| row.get("event_id")).collect()
    }

    fn section(&self) -> String {
        format!(
            "[sink.postgres]\nurl = \"postgres://{USER}@127.0.0.1:{}/postgres\"\n\
             password = {{ value = \"{PASSWORD}\" }}\ntable = \"{TABLE}\"\npayload = \"jsonb\"\n",
            self.process.port
        )
    }

    fn poison() -> String {
        "{\"no text of the server\": \"\\u0000\"}".to_owned()
    }

    /// Its key is what tells the server; without one, and without the cursor, which counts for
    /// live events alone, it takes everything.
    fn forget(&self) -> Pass {
        let first = super::events::Events::of_lane("first").next(1);
        assert_eq!(now(self.sink(Who::Known).deliver(&first)), Delivered::All);
        self.execute("ALTER TABLE hooks DROP CONSTRAINT hooks_pkey; DELETE FROM hooks");
        Pass::Redrive
    }
}

impl Served for Postgres {
    fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn run(&mut self) {
        let folder = self.process.folder.path().to_owned();
        let port = self.process.port.to_string();
        let mut command = command("postgres");
        command.current_dir(&folder).arg("-D").arg(folder.join("data")).args(["-p", &port]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            // A kill of the process is survived without; a loss of power is not at stake.
            "fsync=off",
            // What a failed transaction has left would be room for rows behind it.
            "autovacuum=off",
            "max_connections=20",
            "shared_buffers=16MB",
        ] {
            command.args(["-c", setting]);
        }
        for setting in &self.more {
            command.args(["-c", setting]);
        }
        self.process.spawn(&mut command);
        eventually("PostgreSQL is ready", START_WAIT, || now(self.client()).is_ok());
    }
}

#[test]
#[ignore = "needs the sinks' servers, see tests/run sinks"]
fn rows_that_were_taken_out_do_not_come_back() {
    let server = Postgres::start();
    let sink = server.sink(Who::Known);
    let batch = super::events::Events::of_lane("main").next(10);
    assert_eq!(now(sink.deliver(&batch)), Delivered::All);
    server.execute("DELETE FROM hooks WHERE position % 2 = 0 OR position % 2 = 1");
    assert_eq!(now(sink.deliver(&batch)), Delivered::All);
    assert_eq!(server.stored(), Vec::<String>::new());
    // Unless an operator asks for them.
    let again = super::events::with_pass(&batch[..4], Pass::Replay);
    assert_eq!(now(sink.deliver(&again)), Delivered::All);
    assert_eq!(now(sink.deliver(&again)), Delivered::All);
    assert_eq!(server.stored(), super::events::names_of(&again));
}

#[test]
#[ignore = "needs the sinks' servers, see tests/run sinks"]
fn rows_that_were_replayed_before_their_turn_are_passed_over() {
    let server = Postgres::start();
    let sink = server.sink(Who::Known);
    let batch = super::events::Events::of_lane("main").next(10);
    assert_eq!(now(sink.deliver(&batch[..2])), Delivered::All);
    let early = super::events::with_pass(&batch[5..7], Pass::Replay);
    assert_eq!(now(sink.deliver(&early)), Delivered::All);
    assert_eq!(now(sink.deliver(&batch)), Delivered::All);
    let order = [&batch[..2], &batch[5..7], &batch[2..5], &batch[7..]].concat();
    assert_eq!(server.stored(), super::events::names_of(&order));
}

#[test]
#[ignore = "needs the sinks' servers, see tests/run sinks"]
fn what_postgres_refuses_has_its_class() {
    let server = Postgres::start();
    let mut lane = super::events::Events::of_lane("main");
    let deliver = |settings: sink::Settings, batch: &[_]| {
        class_of(&now(sink::Postgres::new(settings, TIMEOUT).deliver(batch)))
    };
    let right = || server.settings(PASSWORD);
    let batch = lane.next(4);
    let table = sink::Table::parse("nowhere.hooks").unwrap();
    let missing = sink::Settings { table, ..right() };
    assert_eq!(deliver(missing, &batch), Some(Class::Misconfigured), "no schema");
    let mut elsewhere = right();
    elsewhere.server.dbname("nowhere");
    assert_eq!(deliver(elsewhere, &batch), Some(Class::Misconfigured), "no database");
    assert_eq!(deliver(right(), &batch), None);
    let next = lane.next(4);
    server.execute("ALTER DATABASE postgres SET default_transaction_read_only = on");
    assert_eq!(deliver(right(), &next), Some(Class::Temporary), "a standby");
    server.execute(
        "BEGIN READ WRITE; \
         ALTER DATABASE postgres RESET default_transaction_read_only; \
         ALTER TABLE hooks ADD CHECK (payload->>'n' <> '5'); \
         COMMIT",
    );
    assert_eq!(deliver(right(), &next), Some(Class::Permanent), "a constraint");
    let taken: Vec<_> = [&batch[..], &next[..1], &next[2..]].concat();
    assert_eq!(server.stored(), super::events::names_of(&taken));
}

#[test]
#[ignore = "needs the sinks' servers, see tests/run sinks"]
fn over_tls_the_servers_certificate_and_the_users_password_are_checked() {
    let mut server = Postgres::start();
    let folder = server.process.folder.path().to_owned();
    let [authority, certificate, key] = certificates::of_loopback(&folder, "server");
    let [stranger, ..] = certificates::of_loopback(&folder, "stranger");
    let plain = server.settings(PASSWORD).server;
    let with = |authority: &Path, password: &str| sink::Settings {
        server: plain.clone().ssl_mode(SslMode::Require).to_owned(),
        tls: certificates::trusting(authority),
        password: Some(SecretText::new(password)),
        table: sink::Table::parse(TABLE).unwrap(),
        payload: sink::Payload::Json,
    };
    let batch = super::events::Events::of_lane("main").next(3);
    // A server without TLS gets nothing, no password either.
    let delivered = now(sink::Postgres::new(with(&authority, PASSWORD), TIMEOUT).deliver(&batch));
    assert_eq!(class_of(&delivered), Some(Class::Misconfigured), "{delivered:?}");
    server.process.kill();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    if let Some((user, group)) = account() {
        chown(&key, Some(user), Some(group)).unwrap();
    }
    server.more = [("ssl_cert_file", certificate), ("ssl_key_file", key)]
        .map(|(name, path)| format!("{name}={}", path.display()))
        .into();
    server.more.push("ssl=on".to_owned());
    server.run();
    let mut named = Config::new();
    named.host("localhost").port(server.process.port).user(USER).dbname("postgres");
    named.ssl_mode(SslMode::Require);
    let elsewhere = sink::Settings { server: named, ..with(&authority, PASSWORD) };
    for (settings, word) in [
        (with(&stranger, PASSWORD), "UnknownIssuer"),
        (elsewhere, "NotValidForName"),
        (with(&authority, "another"), "password"),
    ] {
        let delivered = now(sink::Postgres::new(settings, TIMEOUT).deliver(&batch));
        assert_eq!(class_of(&delivered), Some(Class::Misconfigured), "{delivered:?}");
        assert!(format!("{delivered:?}").contains(word), "{word}: {delivered:?}");
    }
    assert_eq!(server.event_ids(), Vec::<String>::new());
    let sink = sink::Postgres::new(with(&authority, PASSWORD), TIMEOUT);
    assert_eq!(now(sink.deliver(&batch)), Delivered::All);
    assert_eq!(server.stored(), super::events::names_of(&batch));
}
