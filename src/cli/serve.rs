//! `forebay serve`: a server in the foreground, steered by signals.
//!
//! SIGTERM, SIGINT and SIGQUIT drain and exit 0 within `receive.drain_timeout`; a second one
//! exits at once. SIGHUP loads sources, sinks and secrets anew; a configuration that is wrong leaves
//! the old one in use.

use std::collections::HashSet;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use clap::Args;
use forebay_log::Clock;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use super::{EXIT_TEMPORARY, terminal};
use crate::config::{self, Config, ConfigError, ToldProblem};
use crate::observe::logs;
use crate::server::Server;

/// How often the receivers are looked after between signals.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Left in the data folder by a process that a bus error has ended.
const BUS_ERROR_FILE: &str = "bus-error";

/// Arguments of `forebay serve`.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// The configuration; else `FOREBAY_CONFIG`, else `/etc/forebay/forebay.toml`
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Serves until a signal ends it.
pub(super) fn run(args: &ServeArgs) -> ExitCode {
    if let Err(error) = logs::start(|name| std::env::var(name).ok()) {
        terminal::complain(&error);
        return ExitCode::from(2);
    }
    let config = match load(args) {
        Ok(config) => config,
        Err(error) => {
            terminal::report(&error);
            return ExitCode::from(ConfigError::EXIT_CODE);
        }
    };
    match serve(args, config) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(error = terminal::chain(error.as_ref()), "not started");
            ExitCode::from(EXIT_TEMPORARY)
        }
    }
}

fn load(args: &ServeArgs) -> Result<Config, ConfigError> {
    config::load(&config::path(args.config.as_deref()), config::environment())
}

fn serve(args: &ServeArgs, config: Config) -> Result<ExitCode, Box<dyn std::error::Error>> {
    // Group and others read what the log holds only if the operator says so.
    rustix::process::umask(rustix::fs::Mode::RWXO | rustix::fs::Mode::WGRP);
    // A file size limit becomes an error of the call, which the log answers by 503, not a kill.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    tell_bus_errors(&config.data_dir)?;
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGQUIT, SIGHUP])?;
    let fixed = Fixed::of(&config);
    let mut server = Server::start(config, &Clock::System)?;
    tracing::info!(
        listen = %server.address(),
        admin = %server.admin_address(),
        driver = server.driver().name(),
        "receiving"
    );
    let mut watch = Watch::default();
    loop {
        for signal in signals.pending() {
            if signal != SIGHUP {
                tracing::info!(signal, "draining");
                return Ok(drain(server, signals)?);
            }
            reload(args, &mut server, &fixed);
        }
        watch.look(&server);
        if !server.healthy() {
            tracing::error!("a receiver ended; stopping, since its core is no longer served");
            server.stop();
            return Ok(ExitCode::FAILURE);
        }
        thread::sleep(LOOK_INTERVAL);
    }
}

/// The lanes whose trouble has been told.
#[derive(Debug, Default)]
struct Watch {
    failed: HashSet<String>,
    full: HashSet<String>,
}

impl Watch {
    /// Tells of each lane that answers 503 by now, and of each that no longer lacks room.
    fn look(&mut self, server: &Server) {
        for (lane, why) in server.failures() {
            if self.failed.insert(lane.to_owned()) {
                tracing::error!(lane, why, "the lane has failed: it answers 503 until a restart");
            }
        }
        let full: HashSet<String> = server.full().map(str::to_owned).collect();
        for lane in full.difference(&self.full) {
            tracing::error!(
                lane,
                "the disk is at its low-water mark: the lane answers 503 until there is room; free \
                 space, shorten the retention, or see lane.disk_reserve"
            );
        }
        for lane in self.full.difference(&full) {
            tracing::info!(lane, "there is room again");
        }
        self.full = full;
    }
}

/// Says why a configuration was not taken up: underlined for a person, else as lines of the log,
/// which whoever collects it can read.
fn tell_problems(error: &ConfigError) {
    if io::stderr().is_terminal() {
        return terminal::report(error);
    }
    for problem in error.problems() {
        let ToldProblem { title, cure, origin, line, column } = problem;
        tracing::error!(origin, line, column, cure, "{title}");
    }
}

/// Says how the last process ended, if a mapped file was its end, and sees that this one says so.
fn tell_bus_errors(data_dir: &Path) -> io::Result<()> {
    let marker = data_dir.join(BUS_ERROR_FILE);
    if let Ok(said) = std::fs::read_to_string(&marker) {
        tracing::error!(said = said.trim(), "the last process ended by a bus error");
        // Told once; if it stays it is told again.
        drop(std::fs::remove_file(&marker));
    }
    forebay_log::tell_bus_errors(Some(&marker))
}

fn drain(server: Server, mut signals: Signals) -> io::Result<ExitCode> {
    thread::Builder::new().name("forebay-signals".to_owned()).spawn(move || {
        if let Some(signal) = signals.forever().find(|&signal| signal != SIGHUP) {
            tracing::warn!(signal, "second signal: exiting at once");
            std::process::exit(128 + signal);
        }
    })?;
    let cut = server.stop();
    if cut > 0 {
        tracing::warn!(connections = cut, "cut at the end of receive.drain_timeout");
    }
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

fn reload(args: &ServeArgs, server: &mut Server, fixed: &Fixed) {
    let taken = match load(args) {
        Ok(config) => match fixed.differs(&Fixed::of(&config)) {
            None => take(server, config),
            Some(key) => {
                tracing::error!(key, "not reloaded: this key differs, which takes a restart");
                false
            }
        },
        Err(error) => {
            tell_problems(&error);
            tracing::error!("not reloaded: the configuration is wrong; the old one stays in use");
            false
        }
    };
    // Told once it is so: whoever rotates secrets waits for this.
    server.metrics().reloaded(taken);
}

/// Sinks first: if one cannot be made, all stays as it was.
fn take(server: &mut Server, config: Config) -> bool {
    if let Err(error) = server.change_sinks(&config.sinks) {
        tracing::error!(error = terminal::chain(&error), "not reloaded");
        return false;
    }
    let (sources, sinks) = (config.sources.len(), config.sinks.len());
    server.reload(config);
    tracing::info!(sources, sinks, "sources, sinks and secrets reloaded");
    true
}

/// What a reload cannot change, by its key, as it is printed for debugging: two that print alike
/// are alike.
struct Fixed([(&'static str, String); 6]);

impl Fixed {
    fn of(config: &Config) -> Self {
        let Config { data_dir, receive, admin, quarantine, outgoing, lanes, .. } = config;
        Self([
            ("data_dir", data_dir.display().to_string()),
            ("receive", format!("{receive:?}")),
            ("admin", format!("{admin:?}")),
            ("quarantine", format!("{quarantine:?}")),
            ("outgoing", format!("{outgoing:?}")),
            ("lane", format!("{lanes:?}")),
        ])
    }

    /// The first key that differs.
    fn differs(&self, other: &Self) -> Option<&'static str> {
        let mut pairs = self.0.iter().zip(&other.0);
        pairs.find_map(|(one, other)| (one != other).then_some(one.0))
    }
}
