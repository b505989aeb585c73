//! The servers that are measured, each in a process of its own: this executable starts itself
//! again by a hidden subcommand, so that one command suffices.
//!
//! The child says on one line of standard output where it listens, and ends when its standard
//! input does; so it never outlives its parent.

use std::convert::Infallible;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use forebay::runtime::{self, Driver};
use forebay::verify;
use forebay_log::Clock;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;

use crate::{figures, processor, requests};

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The whole line: verified, deduplicated, stored, acknowledged.
    Line,
    /// hyper alone: the body is read and 200 answered.
    Bare,
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
    #[arg(long, value_enum, default_value = "written")]
    ack: Ack,
    /// The preset of the line's source.
    #[arg(long, default_value = "standard-webhooks")]
    preset: String,
    /// The core to stay on.
    #[arg(long)]
    core: usize,
    /// The folder for the log.
    #[arg(long)]
    data: PathBuf,
}

/// Serves until standard input ends.
pub(crate) fn run(args: &TargetArgs) -> io::Result<()> {
    processor::stay_on(args.core)?;
    match args.kind {
        Kind::Line => line(args),
        Kind::Bare => bare(args),
    }
}

fn line(args: &TargetArgs) -> io::Result<()> {
    let path = args.data.join("forebay.toml");
    fs::write(&path, configuration(args))?;
    let config = forebay::config::load(&path, std::iter::empty()).map_err(io::Error::other)?;
    let server =
        forebay::server::Server::start(config, &Clock::System).map_err(io::Error::other)?;
    figures::say(&server.address().to_string());
    wait_for_parent();
    server.stop();
    Ok(())
}

fn configuration(args: &TargetArgs) -> String {
    let driver = args.driver.resolve().name();
    let (ack, path, secret) = (args.ack.name(), requests::PATH, requests::SECRET);
    let data = args.data.join("data");
    let profile = verify::preset(&args.preset);
    // Requests are signed before the first round, so the last may be old; where a scheme has no
    // time there is nothing to tolerate.
    let timed = profile.is_some_and(|profile| profile.scheme.time.is_some());
    let tolerance = if timed { "tolerance = \"1h\"\n" } else { "" };
    let key_id = profile.and_then(requests::key_id);
    let key_id = key_id.map_or_else(String::new, |id| format!(", key_id = \"{id}\""));
    format!(
        "data_dir = \"{}\"\n\
         [receive]\nlisten = \"127.0.0.1:0\"\nreceivers = 1\ndriver = \"{driver}\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [[lane]]\nname = \"main\"\nack = \"{ack}\"\n\
         [[source]]\nname = \"load\"\npath = \"{path}\"\npreset = \"{}\"\n\
         {tolerance}secrets = [{{ name = \"only\", value = \"{secret}\"{key_id} }}]\n",
        data.display(),
        args.preset
    )
}

fn bare(args: &TargetArgs) -> io::Result<()> {
    let bound = runtime::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = bound.local_addr()?;
    let driver = args.driver.resolve();
    thread::Builder::new().name("bare".to_owned()).spawn(move || {
        let outcome = runtime::block_on(driver, serve_bare(bound));
        if let Err(error) = outcome.and_then(|served| served) {
            figures::complain(&format!("the bare server ended: {error}"));
        }
    })?;
    figures::say(&address.to_string());
    wait_for_parent();
    Ok(())
}

async fn serve_bare(bound: std::net::TcpListener) -> io::Result<()> {
    let listener = runtime::Listener::new(bound)?;
    loop {
        let (stream, _) = listener.accept().await?;
        runtime::spawn(async move {
            let served = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(read_and_answer));
            // The generator ends its connections as it likes.
            let _ = served.await;
        });
    }
}

async fn read_and_answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut answer = Response::new(Full::default());
    if request.into_body().collect().await.is_err() {
        *answer.status_mut() = hyper::StatusCode::BAD_REQUEST;
    }
    Ok(answer)
}

fn wait_for_parent() {
    let mut rest = Vec::new();
    // An error means that the parent is gone as surely as the end does.
    let _ = io::stdin().lock().read_to_end(&mut rest);
}

/// A server in a child process.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    child: Child,
    stdin: Option<ChildStdin>,
    _data: TempDir,
}

/// What the parent decides about a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'w> {
    pub(crate) kind: Kind,
    pub(crate) driver: DriverChoice,
    pub(crate) ack: Ack,
    pub(crate) preset: &'w str,
    pub(crate) core: usize,
}

impl Target {
    /// Starts a server and waits until it listens. Its folder lies under `folder`.
    pub(crate) fn start(wanted: Wanted<'_>, folder: &std::path::Path) -> io::Result<Self> {
        let data = tempfile::tempdir_in(folder)?;
        let word = |value: Option<clap::builder::PossibleValue>| {
            value.map(|value| value.get_name().to_owned()).unwrap_or_default()
        };
        let mut child = Command::new(std::env::current_exe()?)
            .arg("target")
            .args(["--kind", &word(wanted.kind.to_possible_value())])
            .args(["--driver", &word(wanted.driver.to_possible_value())])
            .args(["--ack", &word(wanted.ack.to_possible_value())])
            .args(["--preset", wanted.preset])
            .args(["--core", &wanted.core.to_string()])
            .arg("--data")
            .arg(data.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let address = line.trim().parse();
        let mut target = Self { address: ([0; 4], 0).into(), child, stdin, _data: data };
        target.address = address.map_err(|_| io::Error::other("the server did not start"))?;
        Ok(target)
    }

    /// The child's process id.
    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // The end of its input is what it waits for; a child that is gone needs nothing more.
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}
