//! The whole line of one receiver, on one screen.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use forebay_log::{AppendError, Clock, LaneState, Look};
use http::request::Parts;
use hyper::body::Body;

use crate::ack::{Acked, Waits};
use crate::append::{Appended, Writer};
use crate::dedupe::{Delivery, Fingerprinter, Steady, Table};
use crate::handshake::{Confirmer, Invitation, Told};
use crate::identify::Identified;
use crate::limits::ACK_WAIT_MAX;
use crate::observe::{Outcome, ReceiverCounters, ReplayFate, SourceCounters};
use crate::quarantine::{self, HeldRequest, Readmit, Refused};
use crate::receive::{
    Admission, Admitted, Answer, Budget, Connection, Failures, Handler, OutOfQuarantine, Proxies,
    Received, Route, Routes, accepted, refused,
};
use crate::reject::Reject;
use crate::replica::Replica;
use crate::runtime;
use crate::verify::{Answers, Verified};

/// How long a delivery waits before it looks again whether its twin is through: the runtime's
/// shortest wait, for what takes microseconds unless a thread is taken off its core.
const TWIN_WAIT: Duration = Duration::from_millis(1);
/// How long a request waits before it looks again whether the log has its next segment, which a
/// burst can reach before the disk has allocated it. Only a full disk is a reason to refuse.
const SEGMENT_WAIT: Duration = Duration::from_millis(10);

/// A lane as all receivers share it.
#[derive(Debug)]
pub struct Lane {
    /// Its name.
    pub name: String,
    /// Its log.
    pub log: Arc<forebay_log::Lane>,
    /// The keys of its window.
    pub table: Table,
    /// How long it remembers them at least.
    pub dedupe_window: Duration,
    /// How far it is replicated, where a drain runs that does so and acknowledgements wait for it.
    pub replica: OnceLock<Arc<Replica>>,
}

/// What a receiver needs of one lane.
#[derive(Debug)]
pub struct Seat {
    lane: Arc<Lane>,
    writer: Writer,
    waits: Rc<Waits>,
}

impl Seat {
    /// A receiver's seat at `lane`.
    pub fn new(lane: Arc<Lane>, fingerprinter: Fingerprinter) -> Self {
        let writer = Writer::new(lane.log.appender(), fingerprinter);
        let waits = Waits::new(Arc::clone(&lane.log), lane.replica.get().cloned());
        Self { lane, writer, waits }
    }

    /// The requests that wait for this lane.
    pub fn waits(&self) -> &Rc<Waits> {
        &self.waits
    }
}

/// Routes as one receiver holds them: its requests count their holds among themselves, and not on
/// a cache line that all receivers write.
#[derive(Debug)]
pub struct Held(pub Arc<Routes>);

/// One receiver's line.
#[derive(Debug)]
pub struct Line {
    /// The seats, in the order of the lanes in the configuration.
    pub seats: Vec<Seat>,
    /// The routes as last loaded.
    pub routes: Arc<ArcSwap<Routes>>,
    /// The routes in use.
    pub held: RefCell<Rc<Held>>,
    /// The hash of event keys.
    pub fingerprinter: Fingerprinter,
    /// Where refused requests go.
    pub quarantine: Option<quarantine::Seat>,
    /// Who follows invitations to confirm a subscription.
    pub confirmer: Confirmer,
    /// The body bytes in flight.
    pub budget: Rc<Budget>,
    /// This receiver's number.
    pub receiver: usize,
    /// What it counts about itself.
    pub counters: Arc<ReceiverCounters>,
    /// What is counted of requests that no source has a path for.
    pub unknown: Arc<SourceCounters>,
    /// How requests are answered that no source has a path for.
    pub answers: Answers,
    /// The failures of each address, where they have a bound.
    pub failures: Option<Failures>,
    /// The proxies that tell of their clients.
    pub proxies: Arc<Proxies>,
    /// The time by which keys expire.
    pub steady: Steady,
    /// The time.
    pub clock: Clock,
    /// The wall time as last asked for.
    pub look: Look,
}

impl Line {
    /// A request to its end: one stage after the other.
    async fn acknowledge<B>(
        &self,
        received: &Received<'_>,
        mut body: B,
        route: &Route,
    ) -> Result<Ended, Reject>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let Route { source, counters, .. } = route;
        let seat = &self.seats[source.lane];
        let admitted = match Admitted::admit(received, &mut body, source, &self.budget).await {
            Ok(Admission::Request(admitted)) => admitted,
            Ok(Admission::Handshake(answer)) => return Ok(Ended::Handshake(Box::new(answer))),
            Err(reject) => {
                if let Some(quarantine) = &self.quarantine {
                    let refused = Refused { reject, received, source };
                    quarantine.keep_arrived(&refused, &mut body).await;
                }
                return Err(reject);
            }
        };
        counters.received(self.receiver, admitted.body().len() as u64);
        let mut waited = Duration::ZERO;
        let mut batch = Batch::default();
        let (appended, outcome) = loop {
            let kept = Reject::guard(|| self.keep(&admitted, route, &mut batch));
            let wait = match kept.inspect_err(|reject| self.put_aside(*reject, &admitted))? {
                Kept::Done(appended, outcome) => break (appended, outcome),
                Kept::Handshake(answer) => return Ok(Ended::Handshake(answer)),
                Kept::TwinInside => TWIN_WAIT,
                Kept::NoSegment => SEGMENT_WAIT,
            };
            waited += wait;
            if waited > ACK_WAIT_MAX {
                return Err(Reject::AckTimeout);
            }
            runtime::sleep(wait).await;
        };
        Ok(Ended::Acked(seat.waits.acked(appended).await?, outcome))
    }

    /// Keeps a request for its operator whose refusal is decided.
    fn put_aside(&self, reject: Reject, admitted: &Admitted<'_>) {
        if let Some(quarantine) = &self.quarantine {
            let (received, source) = (admitted.received(), admitted.source());
            quarantine.keep(&Refused { reject, received, source }, admitted.body());
        }
    }

    /// The stages that never wait.
    fn keep(
        &self,
        admitted: &Admitted<'_>,
        route: &Route,
        batch: &mut Batch,
    ) -> Result<Kept, Reject> {
        let verified = Verified::verify(admitted)?;
        route.matched(verified.secret(), self.receiver, admitted.received().received_ns);
        let invitation = match admitted.source().handshakes.signed(&verified)? {
            Told::Answer(answer) => return Ok(Kept::Handshake(answer)),
            Told::Invitation(invitation) => Some(invitation),
            Told::Nothing => None,
        };
        admitted.within_budget()?;
        admitted.source().expected.check(&verified)?;
        let waits = &self.seats[route.source.lane].waits;
        let mut events = Identified::identify(verified);
        for _ in 0..batch.kept {
            // Kept before it had to wait for a later one.
            events.lend();
        }
        while let Some(identified) = events.lend() {
            match self.keep_event(identified, route)? {
                Kept::Done(appended, outcome) => batch.add(appended, outcome, waits),
                later => return Ok(later),
            }
        }
        // A request carries at least one event.
        let (appended, outcome) = batch.last.take().ok_or(Reject::Panicked)?;
        if let Some(invitation) = invitation
            && outcome == Outcome::Accepted
        {
            self.follow(invitation, route);
        }
        Ok(Kept::Done(appended, outcome))
    }

    /// Has a new invitation followed, without waiting for it.
    fn follow(&self, invitation: Invitation, route: &Route) {
        if !self.confirmer.follow(invitation, &route.counters) {
            let source = route.counters.name();
            tracing::error!(source, "subscription not confirmed: too many wait to be");
            route.counters.not_confirmed(self.receiver);
        }
    }

    fn keep_event(&self, identified: &mut Identified<'_>, route: &Route) -> Result<Kept, Reject> {
        let seat = &self.seats[route.source.lane];
        let Lane { table, log, .. } = &*seat.lane;
        let replayed = |fate| route.counters.suspect_replay(self.receiver, fate);
        match Delivery::dedupe(identified, table, &self.fingerprinter, self.steady)? {
            Delivery::Unique(unique) => {
                let suspect = unique.identified().suspect_replay();
                match seat.writer.append(unique) {
                    Ok(appended) => {
                        if suspect {
                            replayed(ReplayFate::Kept);
                        }
                        Ok(Kept::Done(appended, Outcome::Accepted))
                    }
                    Err(AppendError::Full) if log.state() == LaneState::Open => Ok(Kept::NoSegment),
                    Err(error) => Err(error.into()),
                }
            }
            Delivery::Duplicate(twin) => {
                if twin.identified.suspect_replay() {
                    replayed(ReplayFate::Dropped);
                }
                Ok(Kept::Done(seat.writer.note(twin), Outcome::Duplicate))
            }
            Delivery::Pending => Ok(Kept::TwinInside),
        }
    }

    /// Puts a request out of quarantine through the line as if it came again, judged by the time
    /// of its first arrival.
    pub(crate) async fn readmit(
        &self,
        request: &HeldRequest,
        connection: &Connection,
    ) -> Result<Outcome, Readmit> {
        let routes = self.current();
        let route = routes.0.find_shown(request.path()).ok_or(Reject::UnknownPath)?;
        let again = request.request(&route.source.expanded_path()).ok_or(Reject::HeadMalformed)?;
        let (head, body) = again.into_parts();
        let (received_ns, started) = self.now();
        let seat = self.seats.get(route.source.lane).ok_or(Reject::UnknownPath)?;
        let age_ns = received_ns.saturating_sub(request.received_ns);
        if u128::from(age_ns) >= seat.lane.dedupe_window.as_nanos() {
            return Err(Readmit::TooOld);
        }
        let released =
            Some(OutOfQuarantine { position: request.position, received_ns: request.received_ns });
        let received = Received { head: &head, received_ns, started, connection, released };
        match self.acknowledge(&received, body, route).await? {
            Ended::Acked(Acked { .. }, outcome) => Ok(outcome),
            Ended::Handshake(_) => Ok(Outcome::Handshake),
        }
    }

    /// This moment by both clocks.
    fn now(&self) -> (u64, Instant) {
        let started = self.clock.monotonic();
        (self.clock.wall_ns_at(started, &self.look), started)
    }

    /// Whether this client is listened to at all.
    fn welcome(&self, received: &Received<'_>) -> Result<(), Reject> {
        match &self.failures {
            Some(failures) => failures.check(self.client(received)),
            None => Ok(()),
        }
    }

    /// Who sent a request; its proxy, where that says nothing that can be read.
    fn client(&self, received: &Received<'_>) -> IpAddr {
        let peer = received.connection.address();
        self.proxies.client(peer, &received.head.headers).unwrap_or(peer)
    }

    /// The routes as last loaded: a request keeps those it began with.
    fn current(&self) -> Rc<Held> {
        let latest = self.routes.load();
        let mut held = self.held.borrow_mut();
        if !Arc::ptr_eq(&latest, &held.0) {
            *held = Rc::new(Held(Arc::clone(&latest)));
        }
        Rc::clone(&held)
    }
}

/// How a request ended that was not refused.
enum Ended {
    /// Its event is kept.
    Acked(Acked, Outcome),
    /// It was a handshake; boxed, since few requests are one.
    Handshake(Box<Answer>),
}

/// How far the events of one request have come: all are kept before any is acknowledged. If one
/// is refused, those before it are duplicates when the sender tries again.
#[derive(Default)]
struct Batch {
    kept: usize,
    last: Option<(Appended, Outcome)>,
}

impl Batch {
    /// One more is kept; a request with anything new in it counts as new.
    fn add(&mut self, appended: Appended, outcome: Outcome, waits: &Waits) {
        self.kept += 1;
        self.last = Some(match self.last.take() {
            None => (appended, outcome),
            Some((before, Outcome::Accepted)) => (waits.both(before, appended), Outcome::Accepted),
            Some((before, _)) => (waits.both(before, appended), outcome),
        });
    }
}

/// What became of an admitted request without waiting.
enum Kept {
    /// It was a handshake, which leaves nothing.
    Handshake(Box<Answer>),
    /// It is in the log.
    Done(Appended, Outcome),
    /// A twin of it is between reservation and append, and its outcome decides.
    TwinInside,
    /// The log is waiting for its next segment.
    NoSegment,
}

impl Handler for Line {
    async fn answer<B>(&self, head: &Parts, body: B, connection: &Connection) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        connection.answering();
        let (received_ns, started) = self.now();
        let received = Received { head, received_ns, started, connection, released: None };
        let routes = self.current();
        let route = routes.0.find(received.head.uri.path());
        let (counters, answers) = route.map_or((&self.unknown, &self.answers), |route| {
            (&route.counters, &route.source.answers)
        });
        let outcome = match (self.welcome(&received), route) {
            (Ok(()), Some(route)) => self.acknowledge(&received, body, route).await,
            (Ok(()), None) => Err(Reject::UnknownPath),
            (Err(reject), _) => Err(reject),
        };
        match outcome {
            Ok(Ended::Acked(Acked { .. }, outcome)) => {
                let now = self.clock.monotonic();
                counters.count(self.receiver, outcome);
                self.counters.acked(now.saturating_duration_since(received.started));
                received.connection.writing(false);
                accepted(answers)
            }
            Ok(Ended::Handshake(answer)) => {
                counters.count(self.receiver, Outcome::Handshake);
                received.connection.writing(false);
                *answer
            }
            Err(reject) => {
                if let Some(failures) = &self.failures {
                    failures.add(self.client(&received), reject);
                }
                counters.count(self.receiver, Outcome::Rejected(reject));
                received.connection.writing(reject.before_body());
                refused(reject, answers)
            }
        }
    }

    fn connected(&self) {
        self.counters.connected();
    }

    fn disconnected(&self) {
        self.counters.disconnected();
    }

    fn turned_away(&self) {
        self.counters.turned_away();
    }

    fn sweep(&self, now: Instant) {
        self.counters.holds(self.budget.held());
        if let Some(failures) = &self.failures {
            failures.sweep(now);
        }
        for seat in &self.seats {
            seat.waits.sweep(now);
        }
    }
}
