//! The servers that are measured, each in a process of its own: this executable starts itself
//! again by a hidden subcommand, so that one command suffices.
//!
//! The child says on one line of standard output where it listens, and ends when its standard
//! input does; so it never outlives its parent.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use forebay::runtime::{self, Driver};
use forebay_log::{Clock, Reader};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tempfile::TempDir;

use crate::requests::Sender;
use crate::{figures, processor};

/// How long a wait for the next event lasts before the lane is looked at again.
const WASTE_WAIT: Duration = Duration::from_secs(1);

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The whole line: verified, deduplicated, stored, acknowledged.
    Line,
    /// hyper alone: the body is read and 200 answered.
    Bare,
    /// The second half alone: what another process appends is brought to the sinks.
    Drain,
}

/// How the server waits for its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DriverChoice {
    /// `io_uring` where the kernel allows it.
    Auto,
    /// Completions.
    #[value(name = "io_uring")]
    IoUring,
    /// Readiness.
    Epoll,
}

impl DriverChoice {
    /// The driver that this choice comes to on this machine.
    pub(crate) fn resolve(self) -> Driver {
        match self {
            Self::Auto => Driver::detect(),
            Self::IoUring => Driver::IoUring,
            Self::Epoll => Driver::Epoll,
        }
    }
}

/// What a 2xx of the line promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ack {
    /// Survives the process.
    Written,
    /// Survives the loss of power.
    Synced,
}

impl Ack {
    /// The name in configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Synced => "synced",
        }
    }
}

/// What a server needs to know.
#[derive(Clone, Debug, Args)]
pub(crate) struct TargetArgs {
    #[arg(long, value_enum)]
    kind: Kind,
    #[arg(long, value_enum, default_value = "auto")]
    driver: DriverChoice,
    /// The cores to stay on.
    #[arg(long, value_delimiter = ',', required = true)]
    cores: Vec<usize>,
    /// The configuration of the line.
    #[arg(long)]
    config: PathBuf,
    /// What the bare server wastes on each request, and what is wasted beside the line on each
    /// event, where a check has to notice it.
    #[arg(long, default_value_t = 0)]
    planted_ns: u64,
}

/// Serves until standard input ends.
pub(crate) fn run(args: &TargetArgs) -> io::Result<()> {
    processor::stay_on(&args.cores)?;
    match args.kind {
        Kind::Line => line(args),
        Kind::Bare => bare(args),
        Kind::Drain => drain(args),
    }
}

fn line(args: &TargetArgs) -> io::Result<()> {
    let config =
        forebay::config::load(&args.config, std::iter::empty()).map_err(io::Error::other)?;
    let server =
        forebay::server::Server::start(config, &Clock::System).map_err(io::Error::other)?;
    if args.planted_ns > 0 {
        let folder = args.config.parent().unwrap_or(Path::new("")).to_owned();
        let planted = Duration::from_nanos(args.planted_ns);
        thread::Builder::new().name("planted".to_owned()).spawn(move || {
            if let Err(error) = waste(&lane(&folder), planted) {
                figures::complain(&format!("what was planted ended: {error}"));
            }
        })?;
    }
    figures::say(&server.address().to_string());
    wait_for_parent();
    server.stop();
    Ok(())
}

/// Works for so long on each event that a lane gets, as a drain would that does not leave a dead
/// sink alone.
fn waste(lane: &Path, planted: Duration) -> io::Result<()> {
    let mut reader = Reader::open(lane).map_err(io::Error::other)?;
    loop {
        while reader.next().map_err(io::Error::other)?.is_some() {
            spin(planted);
        }
        reader.wait(WASTE_WAIT).map_err(io::Error::other)?;
    }
}

fn spin(span: Duration) {
    let began = Clock::System.monotonic();
    while began.elapsed() < span {
        std::hint::spin_loop();
    }
}

fn drain(args: &TargetArgs) -> io::Result<()> {
    let drain = crate::drain::drain_of(&args.config)?;
    // It listens nowhere; the line says that it has begun.
    figures::say(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).to_string());
    wait_for_parent();
    drain.stop();
    Ok(())
}

fn bare(args: &TargetArgs) -> io::Result<()> {
    let bound = runtime::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = bound.local_addr()?;
    let (driver, planted) = (args.driver.resolve(), Duration::from_nanos(args.planted_ns));
    thread::Builder::new().name("bare".to_owned()).spawn(move || {
        let outcome = runtime::block_on(driver, serve_bare(bound, planted));
        if let Err(error) = outcome.and_then(|served| served) {
            figures::complain(&format!("the bare server ended: {error}"));
        }
    })?;
    figures::say(&address.to_string());
    wait_for_parent();
    Ok(())
}

async fn serve_bare(bound: std::net::TcpListener, planted: Duration) -> io::Result<()> {
    let listener = runtime::Listener::new(bound)?;
    loop {
        let (socket, _) = listener.accept().await?;
        runtime::spawn(async move {
            let service = service_fn(|request| read_and_answer(request, planted));
            let served =
                http1::Builder::new().serve_connection(TokioIo::new(socket.into_stream()), service);
            // The generator ends its connections as it likes.
            let _ = served.await;
        });
    }
}

async fn read_and_answer(
    request: Request<Incoming>,
    planted: Duration,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if !planted.is_zero() {
        spin(planted);
    }
    let mut answer = Response::new(Full::default());
    if request.into_body().collect().await.is_err() {
        *answer.status_mut() = hyper::StatusCode::BAD_REQUEST;
    }
    Ok(answer)
}

fn wait_for_parent() {
    let mut rest = Vec::new();
    // Without it, who stands still when the parent goes would stay.
    let _ = set_parent_process_death_signal(Some(Signal::CONT));
    // An error means that the parent is gone as surely as the end does.
    let _ = io::stdin().lock().read_to_end(&mut rest);
}

/// A server in a child process.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    command: Vec<OsString>,
    child: Child,
    stdin: Option<ChildStdin>,
    folder: PathBuf,
    wanted: Wanted,
    /// Goes last, where the folder is its own.
    _own: Option<TempDir>,
}

/// What the parent decides about a server.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) kind: Kind,
    pub(crate) driver: DriverChoice,
    pub(crate) ack: Ack,
    pub(crate) senders: Vec<Sender>,
    pub(crate) cores: Vec<usize>,
    /// How old a request may be, where that differs from what a preset says.
    pub(crate) tolerance: Option<&'static str>,
    /// How long a connection may wait between requests.
    pub(crate) idle: &'static str,
    /// Where it drains to, as the configuration writes it.
    pub(crate) sinks: String,
    /// What it wastes on each request or event, in nanoseconds.
    pub(crate) planted_ns: u64,
}

impl Target {
    /// Starts a server and waits until it listens. Its folder lies under `folder`, and goes with it.
    pub(crate) fn start(wanted: Wanted, folder: &Path) -> io::Result<Self> {
        let own = tempfile::tempdir_in(folder)?;
        let folder = own.path().to_owned();
        Self::start_with(wanted, folder, Some(own))
    }

    /// The same in a folder that may hold the data of an earlier one, and stays.
    pub(crate) fn start_in(wanted: Wanted, folder: &Path) -> io::Result<Self> {
        Self::start_with(wanted, folder.to_owned(), None)
    }

    fn start_with(wanted: Wanted, folder: PathBuf, own: Option<TempDir>) -> io::Result<Self> {
        let config = folder.join("forebay.toml");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        fs::write(&config, configuration(&wanted, any, &folder)?)?;
        let word = |value: Option<clap::builder::PossibleValue>| {
            value.map(|value| value.get_name().to_owned()).unwrap_or_default()
        };
        let cores: Vec<String> = wanted.cores.iter().map(ToString::to_string).collect();
        let command: Vec<OsString> = [
            std::env::current_exe()?.into_os_string(),
            "target".into(),
            "--kind".into(),
            word(wanted.kind.to_possible_value()).into(),
            "--driver".into(),
            word(wanted.driver.to_possible_value()).into(),
            "--cores".into(),
            cores.join(",").into(),
            "--config".into(),
            config.into(),
            "--planted-ns".into(),
            wanted.planted_ns.to_string().into(),
        ]
        .into();
        let (child, stdin) = spawn(&command)?;
        let mut target = Self { address: any, command, child, stdin, folder, wanted, _own: own };
        target.address = target.listening()?;
        Ok(target)
    }

    /// The child's process id.
    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Sends the server a signal. One that is stopped goes on when it is to end, or this process has
    /// ended.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Which server it is.
    pub(crate) fn kind(&self) -> Kind {
        self.wanted.kind
    }

    /// The folder of its lane.
    pub(crate) fn lane(&self) -> PathBuf {
        lane(&self.folder)
    }

    /// Ends the server as `kill -9` does and starts it again on the same address and folder. Does
    /// not wait until it listens: until then senders are refused, as they would be.
    pub(crate) fn kill_and_restart(&mut self) -> io::Result<()> {
        let config = self.folder.join("forebay.toml");
        fs::write(config, configuration(&self.wanted, self.address, &self.folder)?)?;
        self.child.kill()?;
        self.child.wait()?;
        (self.child, self.stdin) = spawn(&self.command)?;
        Ok(())
    }

    /// Lets the server end as it should.
    pub(crate) fn stop(&mut self) -> io::Result<ExitStatus> {
        drop(self.stdin.take());
        if self.child.try_wait()?.is_none() {
            // Who stands still does not see that.
            self.signal(Signal::CONT)?;
        }
        self.child.wait()
    }

    /// Where the child says that it listens.
    fn listening(&mut self) -> io::Result<SocketAddr> {
        let mut line = String::new();
        if let Some(stdout) = self.child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        line.trim().parse().map_err(|_| io::Error::other("the server did not start"))
    }
}

fn spawn(command: &[OsString]) -> io::Result<(Child, Option<ChildStdin>)> {
    let (program, arguments) =
        command.split_first().ok_or_else(|| io::Error::other("nothing to start"))?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdin = child.stdin.take();
    Ok((child, stdin))
}

/// Where a server in this folder has its lane.
pub(crate) fn lane(folder: &Path) -> PathBuf {
    folder.join("data/lanes/main")
}

/// The configuration of a server: one source for each sender, one lane.
fn configuration(wanted: &Wanted, listen: SocketAddr, folder: &Path) -> io::Result<String> {
    let (driver, ack, idle) = (wanted.driver.resolve().name(), wanted.ack.name(), wanted.idle);
    let mut text = format!(
        "data_dir = \"{}\"\n\
         [receive]\nlisten = \"{listen}\"\nreceivers = {}\ndriver = \"{driver}\"\n\
         idle_timeout = \"{idle}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[lane]]\nname = \"main\"\nack = \"{ack}\"\ndisk_reserve = \"1GiB\"\n",
        folder.join("data").display(),
        wanted.cores.len(),
    );
    for sender in &wanted.senders {
        let Sender { preset, path, secret, key_id, .. } = sender;
        // Where a scheme has no time there is nothing to tolerate.
        let timed = sender.profile()?.scheme.time.is_some();
        let tolerance = wanted.tolerance.filter(|_| timed);
        let tolerance = tolerance.map_or_else(String::new, |t| format!("tolerance = \"{t}\"\n"));
        let key_id = key_id.as_ref().map_or_else(String::new, |id| format!(", key_id = \"{id}\""));
        let _ = write!(
            text,
            "[[source]]\nname = \"{preset}\"\npath = \"{path}\"\npreset = \"{preset}\"\n\
             {tolerance}secrets = [{{ name = \"only\", value = \"{secret}\"{key_id} }}]\n"
        );
    }
    text.push_str(&wanted.sinks);
    Ok(text)
}

impl Drop for Target {
    fn drop(&mut self) {
        // The end of its input is what it waits for; a child that is gone needs nothing more.
        let _ = self.stop();
    }
}
