//! The real binary on an address of its own, with a configuration written for the test.
//!
//! Addresses: each server takes a loopback address that no other test takes (127.x.y.z, chosen by
//! process id and count), so ports never collide, though receivers share theirs by `SO_REUSEPORT`
//! and would otherwise answer for each other silently.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::http::{Connection, Request, Response};
use super::log::{self, Row};
use super::{Driver, eventually, sign};

const RECEIVE_PORT: u16 = 7400;
const ADMIN_PORT: u16 = 7401;
/// Generous, since a start may wait for a busy machine; a healthy one takes milliseconds.
const START_WAIT: Duration = Duration::from_secs(30);
const EXIT_WAIT: Duration = Duration::from_secs(30);
/// What sysexits calls `EX_TEMPFAIL`.
const EXIT_TEMPORARY: i32 = 75;
const NOTE_WAIT: Duration = Duration::from_secs(10);

/// What a test may choose about its server.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    driver: Driver,
    ack: &'static str,
    receive: String,
    lane: String,
    secrets: Vec<(&'static str, &'static str)>,
    more: String,
    environment: Vec<(&'static str, String)>,
    piped: bool,
}

impl Setup {
    /// Two receivers, one lane that acknowledges at `written`, and the sources `/std`, `/github`
    /// and `/livekit`.
    pub(crate) fn new(driver: Driver) -> Self {
        Self {
            driver,
            ack: "written",
            receive: String::new(),
            lane: "segment_size = \"4MiB\"\n".to_owned(),
            secrets: vec![("first", sign::STANDARD_SECRET)],
            more: String::new(),
            environment: Vec::new(),
            piped: false,
        }
    }

    pub(crate) fn ack(mut self, level: &'static str) -> Self {
        self.ack = level;
        self
    }

    /// Adds a line to `[receive]`.
    pub(crate) fn receive(mut self, line: &str) -> Self {
        self.receive.push_str(line);
        self.receive.push('\n');
        self
    }

    /// Segments of this size, and bodies that fit: a segment holds several of the largest.
    pub(crate) fn segments(mut self, size: &str, body_max: &str) -> Self {
        self.lane = format!("segment_size = \"{size}\"\n");
        self.receive(&format!("body_max = \"{body_max}\""))
    }

    /// The lane's bound on size.
    pub(crate) fn retention(mut self, size: &str) -> Self {
        writeln!(self.lane, "retention = {{ size = \"{size}\" }}").unwrap();
        self
    }

    /// Adds a line to the lane.
    pub(crate) fn lane(mut self, line: &str) -> Self {
        writeln!(self.lane, "{line}").unwrap();
        self
    }

    /// The secrets of the source `/std`, each with its name.
    pub(crate) fn secrets(mut self, secrets: &[(&'static str, &'static str)]) -> Self {
        self.secrets = secrets.to_vec();
        self
    }

    /// Adds text at the end of the configuration.
    pub(crate) fn more(mut self, text: &str) -> Self {
        self.more.push_str(text);
        self.more.push('\n');
        self
    }

    /// Standard output goes into a pipe, which nobody reads before [`Server::output`].
    pub(crate) fn piped(mut self) -> Self {
        self.piped = true;
        self
    }

    /// A variable in the server's environment.
    pub(crate) fn environment(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// The configuration as text.
    fn text(&self, data: &Path, address: IpAddr) -> String {
        let mut text = format!("data_dir = \"{}\"\n", data.display());
        let receive = SocketAddr::new(address, RECEIVE_PORT);
        let admin = SocketAddr::new(address, ADMIN_PORT);
        write!(text, "[receive]\nlisten = \"{receive}\"\nreceivers = 2\n").unwrap();
        write!(text, "{}\n[admin]\nlisten = \"{admin}\"\n", self.receive).unwrap();
        // A small table, since a large one takes a while to make and most tests need none.
        let lane = "\n[[lane]]\nname = \"main\"\ndedupe_capacity = 200000\n";
        write!(text, "{lane}ack = \"{}\"\n{}", self.ack, self.lane).unwrap();
        let standard: Vec<(&str, &str)> = self.secrets.clone();
        text.push_str(&source("std", "standard-webhooks", &standard));
        text.push_str(&source("github", "github", &[("only", sign::GITHUB_SECRET)]));
        text.push_str(&source("livekit", "livekit", &[("only", sign::LIVEKIT_SECRET)]));
        text.push_str(&self.more);
        text
    }
}

/// A source named as its path, in the environment `test`.
pub(crate) fn source(name: &str, preset: &str, secrets: &[(&str, &str)]) -> String {
    let key_id = if preset == "livekit" {
        format!(", key_id = \"{}\"", sign::LIVEKIT_KEY)
    } else {
        String::new()
    };
    let secrets: Vec<String> = secrets
        .iter()
        .map(|(name, value)| format!("{{ name = \"{name}\", value = \"{value}\"{key_id} }}"))
        .collect();
    format!(
        "\n[[source]]\nname = \"{name}\"\npath = \"/{name}\"\npreset = \"{preset}\"\n\
         environment = \"test\"\nsecrets = [{}]\n",
        secrets.join(", ")
    )
}

/// A folder with a configuration, and the server process while it runs.
#[derive(Debug)]
pub(crate) struct Server {
    setup: Setup,
    folder: TempDir,
    address: IpAddr,
    child: Option<Child>,
}

impl Server {
    /// Writes the configuration, starts the server and waits until it is ready.
    pub(crate) fn start(setup: Setup) -> Self {
        let mut server = Self::prepare(setup);
        server.run();
        server
    }

    /// Writes the configuration and starts nothing.
    pub(crate) fn prepare(setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Self { setup, folder, address: free_address(), child: None };
        server.write_config(&server.setup.clone());
        server
    }

    /// Puts another configuration in the place of the one that is there, in one step.
    pub(crate) fn write_config(&self, setup: &Setup) {
        self.write_config_text(&setup.text(&self.data(), self.address));
    }

    pub(crate) fn write_config_text(&self, text: &str) {
        let beside = self.folder.path().join("forebay.toml.new");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, self.config()).unwrap();
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("forebay.toml")
    }

    pub(crate) fn config_text(&self) -> String {
        fs::read_to_string(self.config()).unwrap()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts the server, which must not be running, and waits until it is ready. As a supervisor
    /// would, it tries again when the server says that this may help: the kernel ends the rings of
    /// a process that was killed a moment after the process, and its listeners with them.
    pub(crate) fn run(&mut self) {
        self.spawn();
        eventually("the server is ready", START_WAIT, || {
            if let Some(ended) = self.child.as_mut().unwrap().try_wait().unwrap() {
                assert_eq!(ended.code(), Some(EXIT_TEMPORARY), "the server ended at its start");
                eprintln!("the server is started again after: {ended}");
                self.child = None;
                self.spawn();
            }
            self.try_admin("/readyz").is_ok_and(|response| response.status == 200)
        });
    }

    /// Starts the server and does not wait for it.
    pub(crate) fn spawn(&mut self) {
        assert!(self.child.is_none(), "the server runs already");
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = forebay(&["serve", "--config"]);
        command.arg(self.config()).env("FOREBAY_RECEIVE__DRIVER", self.setup.driver.name());
        for (name, value) in &self.setup.environment {
            command.env(name, value);
        }
        let piped = self.setup.piped;
        let stdout = if piped { Stdio::piped() } else { log.try_clone().unwrap().into() };
        command.stdin(Stdio::null()).stdout(stdout).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.address, RECEIVE_PORT)
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, ADMIN_PORT)
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.address()).unwrap()
    }

    /// Sends one request over a connection of its own.
    pub(crate) fn send(&self, request: &Request) -> Response {
        self.connect().send(request).unwrap()
    }

    /// Asks the admin listener.
    pub(crate) fn admin(&self, path: &str) -> Response {
        self.try_admin(path).unwrap()
    }

    pub(crate) fn connect_admin(&self) -> Connection {
        Connection::open(self.admin_address()).unwrap()
    }

    pub(crate) fn try_admin(&self, path: &str) -> std::io::Result<Response> {
        let mut connection = Connection::open(self.admin_address())?;
        connection.send(&Request::get(path).header("connection", "close"))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }

    /// SIGKILL, and waits until the process is gone.
    pub(crate) fn kill(&mut self) {
        self.strike();
        self.bury();
    }

    /// SIGKILL, without waiting.
    pub(crate) fn strike(&self) {
        self.signal(Signal::KILL);
    }

    /// Waits until a process that was killed is gone.
    pub(crate) fn bury(&mut self) {
        self.child.take().unwrap().wait().unwrap();
    }

    /// SIGHUP.
    pub(crate) fn reload(&self) {
        self.signal(Signal::HUP);
    }

    /// SIGSTOP, and SIGCONT after a while.
    pub(crate) fn stand_still(&self, span: Duration) {
        self.signal(Signal::STOP);
        std::thread::sleep(span);
        self.signal(Signal::CONT);
    }

    /// SIGTERM, without waiting.
    pub(crate) fn ask_to_end(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGTERM, and the exit status.
    pub(crate) fn end(&mut self) -> ExitStatus {
        self.ask_to_end();
        self.exit()
    }

    /// Waits for the process to end by itself.
    pub(crate) fn exit(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the server has ended", EXIT_WAIT, || {
            status = self.child.as_mut().unwrap().try_wait().unwrap();
            status.is_some()
        });
        self.child = None;
        status.unwrap()
    }

    /// What comes out of the pipe that standard output goes into.
    pub(crate) fn output(&mut self) -> ChildStdout {
        self.child.as_mut().unwrap().stdout.take().unwrap()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("forebay.log")
    }

    /// All that the server has written to its standard output and error.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// What `forebay tail` says with these arguments.
    pub(crate) fn tail(&self, arguments: &[&str]) -> Output {
        self.tail_command(arguments).output().unwrap()
    }

    /// `forebay tail` of this server's log, not yet started.
    pub(crate) fn tail_command(&self, arguments: &[&str]) -> Command {
        self.tail_of("main", arguments)
    }

    fn tail_of(&self, lane: &str, arguments: &[&str]) -> Command {
        let mut command = forebay(&["tail", "--dir"]);
        command.arg(self.data()).args(["--lane", lane]).args(arguments);
        command
    }

    /// The log from its start, deliveries included, as a process of its own reads it.
    pub(crate) fn rows(&self) -> Vec<Row> {
        log::rows(&self.tail(&["--json", "--deliveries", "--from", "earliest"]))
    }

    /// The same once it holds `count` records. An event is in the log before it is answered; the
    /// note of a later delivery may follow its answer, which promises the event alone.
    pub(crate) fn rows_of(&self, count: usize) -> Vec<Row> {
        let mut rows = Vec::new();
        eventually(&format!("the log holds {count} records"), NOTE_WAIT, || {
            rows = self.rows();
            rows.len() >= count
        });
        assert_eq!(rows.len(), count, "the log holds more than it should");
        rows
    }

    /// The id of the newest event.
    pub(crate) fn newest_id(&self) -> String {
        self.events().last().expect("an event").id().to_owned()
    }

    /// The events of the log, without later deliveries.
    pub(crate) fn events(&self) -> Vec<Row> {
        self.events_of("main")
    }

    /// Those of another lane.
    pub(crate) fn events_of(&self, lane: &str) -> Vec<Row> {
        log::rows(&self.tail_of(lane, &["--json", "--from", "earliest"]).output().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; either way nothing is left to do about it.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the server's log ---\n{}--- end ---", self.log());
        }
    }
}

/// The binary under test, free of settings that happen to be in this environment.
pub(crate) fn forebay(arguments: &[&str]) -> Command {
    let built = || env!("CARGO_BIN_EXE_forebay").into();
    let mut command = Command::new(std::env::var_os("IT_FOREBAY").unwrap_or_else(built));
    command.args(arguments);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FOREBAY_") {
            command.env_remove(name);
        }
    }
    command
}

pub(crate) fn free_address() -> IpAddr {
    /// Bits for the servers of one process; a whole run starts several hundred.
    const COUNT_BITS: u32 = 12;
    static COUNT: AtomicU32 = AtomicU32::new(1);
    // Relaxed: only the number must be new.
    let count = COUNT.fetch_add(1, Ordering::Relaxed) & ((1 << COUNT_BITS) - 1);
    // Never 0: 127.0.0.1 is everybody's.
    let process = std::process::id() % 4095 + 1;
    IpAddr::V4(Ipv4Addr::from_bits((127 << 24) | (process << COUNT_BITS) | count))
}
