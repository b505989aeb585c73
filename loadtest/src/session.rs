//! A server and those who send to it, for one trial or for many.

use std::io;
use std::net::ToSocketAddrs as _;
use std::path::PathBuf;
use std::time::Duration;

use forebay_log::Clock;
use hyper::Uri;

use crate::args::{Common, Load, Place};
use crate::audit::{Auditor, Findings};
use crate::bystanders::{Bystanders, Crowd, Fates};
use crate::chaos::Chaos;
use crate::figures::nanos;
use crate::habits::Habits;
use crate::ledger::Ledger;
use crate::live::View;
use crate::open::{Bounds, Outcome, Run};
use crate::outbox::Outbox;
use crate::processor;
use crate::requests::{Draft, Fault, Sender, Signer};
use crate::schedule::Schedule;
use crate::series::Series;
use crate::target::{Kind, Target, Wanted};
use crate::tls::Tls;
use crate::traffic::{Shares, Traffic};
use crate::wire::{Connections, Remote};

/// The timers of this thread may be late by no more than this; the kernel's default is 50 us.
const TIMER_SLACK_NANOS: u64 = 1_000;

/// One run over its schedule.
#[derive(Debug)]
pub(crate) struct Trial {
    pub(crate) outcome: Outcome,
    pub(crate) series: Series,
    /// What happened when: phases of the schedule, and blows.
    pub(crate) marks: Vec<(Duration, String)>,
    pub(crate) bystanders: [Fates; 3],
    signers: Vec<Signer>,
    run: u64,
}

/// A server that is ready, and who sends to it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) senders: Vec<(Sender, f64)>,
    pub(crate) own: Option<Target>,
    remote: Remote,
    load: Load,
    chaos: Chaos,
    lane: Option<PathBuf>,
    process: Option<u32>,
}

impl Session {
    /// Starts a server, or finds the one that is meant.
    pub(crate) fn open(common: &Common) -> io::Result<Self> {
        raise_file_limit();
        let (place, load) = (&common.place, common.load.clone());
        let mut senders = mix(&load)?;
        let chaos = Chaos::new(place.chaos.clone());
        if let Some(url) = &place.target {
            let remote = find(place, url, &mut senders)?;
            let (lane, process) = (place.log.clone(), place.pid);
            return Ok(Self { senders, own: None, remote, load, chaos, lane, process });
        }
        let cores = processor::usable()?;
        let (server, generator) = match (&cores[..], place.unpinned) {
            ([server @ .., generator], false) if !server.is_empty() => (server, Some(*generator)),
            (all, _) => (all, None),
        };
        let wanted = Wanted {
            kind: Kind::Line,
            driver: place.driver,
            ack: place.ack,
            senders: senders.iter().map(|(sender, _)| sender.clone()).collect(),
            cores: server.to_vec(),
            tolerance: None,
            idle: if load.idle > 0 || place.patient { "1h" } else { "15s" },
            sinks: place.sinks.clone(),
            planted_ns: nanos(place.planted),
        };
        let own = Target::start(wanted, &place.folder.clone().unwrap_or_else(std::env::temp_dir))?;
        if let Some(core) = generator {
            processor::stay_on(&[core])?;
        }
        rustix::thread::set_current_timer_slack(std::num::NonZero::new(TIMER_SLACK_NANOS))?;
        let remote = Remote { address: own.address, tls: None };
        let lane = Some(own.lane());
        Ok(Self { senders, own: Some(own), remote, load, chaos, lane, process: None })
    }

    /// Where requests go, in words.
    pub(crate) fn place(&self) -> String {
        let scheme = if self.remote.tls.is_some() { "https" } else { "http" };
        let whose = if self.own.is_some() { "own server, " } else { "" };
        format!("{whose}{scheme}://{}", self.remote.address)
    }

    /// The same for a socket.
    pub(crate) fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Sends what a schedule says.
    pub(crate) fn trial(&mut self, schedule: Schedule, view: &mut View) -> io::Result<Trial> {
        let run = Clock::System.wall_ns();
        let load = &self.load;
        let (mut traffic, habits) = self.traffic(run)?;
        let mut marks = schedule.marks();
        let mut connections = self.connections()?;
        let mut bystanders = bystanders(&self.remote, load, &traffic)?;
        let bounds = self.bounds();
        let mut series = Series::new(schedule.span(), self.process())?;
        view.begin(&schedule);
        let outbox = Outbox::new(habits);
        let run_now = Run::new(&mut connections, &mut traffic, outbox, schedule, bounds)?;
        let (own, chaos, given) = (&mut self.own, &mut self.chaos, self.process);
        let outcome = run_now.drive(|beat| {
            if let (true, Some(own)) = (chaos.strikes(beat.now), own.as_mut()) {
                own.kill_and_restart()?;
                marks.push((beat.now, "kill -9".to_owned()));
            }
            if let Some(bystanders) = &mut bystanders {
                bystanders.beat()?;
            }
            for latency in beat.accepted {
                series.accepted(*latency);
            }
            let process = own.as_ref().map(Target::process_id).or(given);
            if series.look(beat.now, beat.counts, beat.level, process) {
                view.show(&series, beat);
            }
            Ok(())
        })?;
        view.end();
        let bystanders = bystanders.map(|bystanders| bystanders.fates).unwrap_or_default();
        Ok(Trial { outcome, series, marks, bystanders, signers: traffic.signers, run })
    }

    /// Senders whose ids begin as those of `run`, and how they behave.
    pub(crate) fn traffic(&self, run: u64) -> io::Result<(Traffic, Vec<Habits>)> {
        let load = &self.load;
        let (mut signed, mut habits) = (Vec::new(), Vec::new());
        for (sender, weight) in &self.senders {
            signed.push((Signer::new(sender.clone(), load.body as usize, run)?, *weight));
            habits.push(Habits::of(sender.profile()?, load.compress));
        }
        Ok((Traffic::new(signed, shares(load), load.rooms), habits))
    }

    /// As many connections as the senders share.
    pub(crate) fn connections(&self) -> io::Result<Connections> {
        Connections::open(self.remote.clone(), self.load.connections as usize)
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Bounds { timeout: self.load.timeout, drain: self.load.drain }
    }

    /// Holds the log against what a trial has sent, if the log can be read. An own server is
    /// stopped first, as it should be.
    pub(crate) fn audit(&mut self, trial: &Trial) -> io::Result<Option<Findings>> {
        self.hold_against(&trial.outcome.ledger, &trial.signers, trial.run)
    }

    /// The same for a ledger of the run whose ids begin as those of `run`.
    pub(crate) fn hold_against(
        &mut self,
        ledger: &Ledger,
        signers: &[Signer],
        run: u64,
    ) -> io::Result<Option<Findings>> {
        if let Some(own) = &mut self.own {
            let status = own.stop()?;
            if !status.success() {
                return Err(io::Error::other(format!("the server ended with {status}")));
            }
        }
        let Some(lane) = &self.lane else { return Ok(None) };
        let auditor = Auditor::new(ledger, signers, run);
        let told = |error| io::Error::other(format!("{}: {error}", lane.display()));
        auditor.read(lane).map(Some).map_err(told)
    }

    fn process(&self) -> Option<u32> {
        self.own.as_ref().map(Target::process_id).or(self.process)
    }
}

/// The senders and their weights.
fn mix(load: &Load) -> io::Result<Vec<(Sender, f64)>> {
    if let Some(preset) = &load.preset {
        return Ok(vec![(Sender::own(preset)?, 1.0)]);
    }
    let senders = load.mix.iter().map(|(preset, weight)| {
        let number = weight.parse::<f64>().ok().filter(|weight| *weight > 0.0 && *weight <= 1e6);
        let wrong = || io::Error::other(format!("--mix: {preset}={weight} has no weight"));
        Ok((Sender::own(preset)?, number.ok_or_else(wrong)?))
    });
    senders.collect()
}

fn shares(load: &Load) -> Shares {
    let Load { duplicates, forgeries, stale, malformed, .. } = *load;
    Shares { duplicates, forgeries, stale, malformed }
}

/// Points the senders at a running server.
fn find(place: &Place, url: &str, senders: &mut [(Sender, f64)]) -> io::Result<Remote> {
    let wrong = |what: &str| io::Error::other(format!("--target {url}: {what}"));
    // Braces have no place in a URL, but they do in this one.
    let uri: Uri = url.replace("{sender}", "SENDER").parse().map_err(|_| wrong("is no URL"))?;
    let host = uri.host().ok_or_else(|| wrong("names no host"))?;
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let named = host.trim_start_matches('[').trim_end_matches(']');
    let address = (named, port).to_socket_addrs()?.next().ok_or_else(|| wrong("is not known"))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    for (sender, _) in senders {
        let of = |all: &[(String, String)]| {
            all.iter().find(|(name, _)| *name == sender.preset).map(|(_, value)| value.clone())
        };
        let missing =
            || io::Error::other(format!("give the secret as --secret {}=SECRET", sender.preset));
        let secret = secret(&of(&place.secret).ok_or_else(missing)?)?;
        sender.key_id = of(&place.key_id).or_else(|| sender.key_id.take());
        sender.path = path.replace("SENDER", &sender.preset);
        uri.authority().map_or(host, |authority| authority.as_str()).clone_into(&mut sender.host);
        sender.secret = secret;
    }
    let tls = secure.then(|| Tls::new(place.ca.as_deref(), named)).transpose()?;
    Ok(Remote { address, tls })
}

/// A secret, or where it is.
fn secret(text: &str) -> io::Result<String> {
    let told = |error: &dyn std::fmt::Display| io::Error::other(format!("{text}: {error}"));
    if let Some(name) = text.strip_prefix("env:") {
        return std::env::var(name).map_err(|error| told(&error));
    }
    if let Some(path) = text.strip_prefix("file:") {
        let text = std::fs::read_to_string(path).map_err(|error| told(&error))?;
        return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
    }
    Ok(text.to_owned())
}

fn bystanders(remote: &Remote, load: &Load, traffic: &Traffic) -> io::Result<Option<Bystanders>> {
    let [idle, slow, half_open] =
        [load.idle, load.slow, load.half_open].map(|count| count as usize);
    // A number that the ledger never gives: should it be stored, the audit does not know it.
    let now_ns = Clock::System.wall_ns();
    let draft = Draft {
        number: u32::MAX,
        fault: Fault::None,
        created_ns: now_ns,
        signed_ns: now_ns,
        ..Draft::default()
    };
    let mut request = Vec::new();
    traffic.write(&mut request, &draft)?;
    Bystanders::open(remote.clone(), Crowd { idle, slow, half_open }, request)
}

/// As many open files as this process may have, and its server after it.
pub(crate) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where it cannot be raised, opening the connection that is too much says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
