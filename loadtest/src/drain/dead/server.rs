//! One server of the measurement: what its sink meets, and what it is sent.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::process::Signal;

use super::{DeadArgs, LEAD, WARM};
use crate::foreign::{Foreign, Running};
use crate::open::Outcome;
use crate::processor::{self, Cores};
use crate::schedule::{Phase, Schedule};
use crate::session::Session;
use crate::target::Target;
use crate::turns::Turns;

/// What the drain meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sink {
    None,
    /// As the first, to see what two equal ones differ by.
    NoneAgain,
    /// Nobody listens.
    Refuses,
    /// Connections are taken by the kernel, and nobody answers.
    Hangs,
}

impl Sink {
    pub(super) const ALL: [Self; 4] = [Self::None, Self::NoneAgain, Self::Refuses, Self::Hangs];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::None => "no sink",
            Self::NoneAgain => "no sink, once more",
            Self::Refuses => "refused connection",
            Self::Hangs => "stopped server",
        }
    }

    pub(super) const fn is_dead(self) -> bool {
        matches!(self, Self::Refuses | Self::Hangs)
    }
}

/// What a server has used over all of its turns.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    pub(super) requests: u64,
    pub(super) cpu: Duration,
}

/// A server, and who sends to it.
pub(super) struct Server {
    sink: Sink,
    turns: Turns,
    used: Used,
    /// Its CPU time when the first turn began.
    before: Duration,
    /// What the sink meets.
    _stopped: Option<Running>,
}

impl Server {
    /// Starts it, and sends to it until its sink is known to be dead.
    pub(super) fn start(args: &DeadArgs, sink: Sink, usable: &[usize]) -> io::Result<Self> {
        // A session keeps this thread on a core, where the next server must not inherit it.
        processor::stay_on(usable)?;
        let under = args.common.place.folder.clone().unwrap_or_else(std::env::temp_dir);
        let stopped = match sink {
            Sink::Hangs => Some(Running::start(Foreign::NginxReturn, Cores::choose()?, &under)?),
            _ => None,
        };
        if let Some(stopped) = &stopped {
            // Who starts it stays on the generator's core, where the receiver must not be.
            processor::stay_on(usable)?;
            stopped.signal(Signal::STOP)?;
        }
        let address = match (sink, &stopped) {
            (_, Some(stopped)) => Some(stopped.address),
            // Given back at once: nobody else takes it while this runs.
            (Sink::Refuses, None) => {
                Some(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
            }
            _ => None,
        };
        let mut common = args.common.clone();
        common.place.sinks = address.map(section).unwrap_or_default();
        common.place.patient = true;
        common.place.planted = args.planted.filter(|_| sink.is_dead()).unwrap_or_default();
        let turns = Turns::new(Session::open(&common)?)?;
        let mut server =
            Self { sink, turns, used: Used::default(), before: Duration::ZERO, _stopped: stopped };
        server.send(args.rate, WARM)?;
        server.before = server.cpu()?;
        server.own()?.signal(Signal::STOP)?;
        Ok(server)
    }

    /// One turn; its latencies. The server stands still before and after: what it has to do for its
    /// events falls into its own turns, and into nobody else's.
    pub(super) fn turn(&mut self, args: &DeadArgs) -> io::Result<Histogram<u64>> {
        self.own()?.signal(Signal::CONT)?;
        let lead = self.send(args.rate, LEAD)?;
        let measured = self.send(args.rate, args.span)?;
        self.own()?.signal(Signal::STOP)?;
        self.used.requests += lead.counts.sent + measured.counts.sent;
        Ok(measured.latency)
    }

    /// Holds its log against what was sent.
    pub(super) fn end(mut self) -> io::Result<Used> {
        self.own()?.signal(Signal::CONT)?;
        self.used.cpu = self.cpu()?.saturating_sub(self.before);
        let name = self.sink.name();
        self.turns.audit().map_err(|error| io::Error::other(format!("{name}: {error}")))?;
        Ok(self.used)
    }

    fn send(&mut self, rate: f64, span: Duration) -> io::Result<Outcome> {
        let outcome = self.turns.send(Schedule::phases(vec![Phase::flat("turn", rate, span)]))?;
        let counts = &outcome.counts;
        if counts.accepted != counts.sent {
            let name = self.sink.name();
            let text = format!("{name}: not every request was acknowledged: {counts:?}");
            return Err(io::Error::other(text));
        }
        Ok(outcome)
    }

    fn cpu(&self) -> io::Result<Duration> {
        processor::cpu_time(self.own()?.process_id())
    }

    fn own(&self) -> io::Result<&Target> {
        let own = self.turns.session.own.as_ref();
        own.ok_or_else(|| io::Error::other("it has no server"))
    }
}

fn section(address: SocketAddr) -> String {
    format!(
        "[[sink]]\nname = \"dead\"\ntimeout = \"1s\"\n[sink.http]\n\
         url = \"http://{address}/\"\nallow_private = true\n"
    )
}
