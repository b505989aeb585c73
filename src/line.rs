//! The whole line of one receiver, on one screen.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use bytes::Bytes;
use forebay_log::Clock;
use futures_util::FutureExt;
use http::Request;
use http_body_util::Full;
use hyper::body::{Body, Incoming};

use crate::ack::{Acked, Waits};
use crate::append::Writer;
use crate::dedupe::{Delivery, Fingerprinter, Steady, Table};
use crate::identify::Identified;
use crate::observe::{Outcome, ReceiverCounters, SourceCounters};
use crate::receive::{
    Admitted, Answer, Budget, Connection, Handler, Received, Route, Routes, refused,
};
use crate::reject::Reject;
use crate::verify::Verified;

/// A lane as all receivers share it.
#[derive(Debug)]
pub struct Lane {
    /// Its name.
    pub name: String,
    /// Its log.
    pub log: Arc<forebay_log::Lane>,
    /// The keys of its window.
    pub table: Table,
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
        let waits = Waits::new(Arc::clone(&lane.log));
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
    /// The body bytes in flight.
    pub budget: Rc<Budget>,
    /// This receiver's number.
    pub receiver: usize,
    /// What it counts about itself.
    pub counters: Arc<ReceiverCounters>,
    /// What is counted of requests that no source has a path for.
    pub unknown: Arc<SourceCounters>,
    /// The time by which keys expire.
    pub steady: Steady,
    /// The time.
    pub clock: Clock,
}

impl Line {
    /// A request to its end: one stage after the other.
    async fn acknowledge<B>(&self, received: Received<B>, route: &Route) -> Result<Done, Reject>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let Route { source, counters } = route;
        let seat = &self.seats[source.lane];
        let started = received.started;
        let admitted = Admitted::admit(received, source, &self.budget).await?;
        counters.received(self.receiver, admitted.body().len() as u64);
        let verified = Verified::verify(admitted)?;
        let identified = Identified::identify(&verified);
        match self.dedupe(identified, &seat.lane.table).await? {
            Delivery::Unique(unique) => {
                let appended = seat.writer.append(unique)?;
                Ok(Done(seat.waits.acked(appended, started).await?, Outcome::Accepted))
            }
            Delivery::Duplicate(duplicate) => {
                let appended = seat.writer.note(&duplicate);
                Ok(Done(seat.waits.acked(appended, started).await?, Outcome::Duplicate))
            }
        }
    }

    async fn dedupe<'v>(
        &self,
        identified: Identified<'v>,
        table: &Table,
    ) -> Result<Delivery<'v>, Reject> {
        Delivery::dedupe(identified, table, &self.fingerprinter, self.steady).await
    }

    /// Answers one request, whatever becomes of it, and counts it.
    pub async fn take<B>(
        &self,
        request: Request<B>,
        peer: SocketAddr,
        connection: Rc<Connection>,
    ) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        connection.answering();
        let started = self.clock.monotonic();
        let received_ns = self.clock.wall_ns();
        let (head, body) = request.into_parts();
        let routes = self.current();
        let Some(route) = routes.0.find(head.uri.path()) else {
            self.unknown.count(self.receiver, Outcome::Rejected(Reject::UnknownPath));
            connection.writing(true);
            return refused(Reject::UnknownPath);
        };
        let kept = Rc::clone(&connection);
        let received = Received { head, body, peer, received_ns, started, connection };
        let line = AssertUnwindSafe(self.acknowledge(received, route));
        let outcome = line.catch_unwind().await.unwrap_or(Err(Reject::Panicked));
        let elapsed = self.clock.monotonic().saturating_duration_since(started);
        match outcome {
            Ok(Done(Acked { .. }, outcome)) => {
                route.counters.count(self.receiver, outcome);
                self.counters.acked(elapsed);
                kept.writing(false);
                Answer::new(Full::default())
            }
            Err(reject) => {
                route.counters.count(self.receiver, Outcome::Rejected(reject));
                kept.writing(reject.before_body());
                refused(reject)
            }
        }
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

/// An acknowledged request, and whether its event was new.
struct Done(Acked, Outcome);

impl Handler for Line {
    async fn answer(
        self: Rc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
        connection: Rc<Connection>,
    ) -> Answer {
        self.take(request, peer, connection).await
    }

    fn connected(&self) {
        self.counters.connected();
    }

    fn disconnected(&self) {
        self.counters.disconnected();
    }

    fn sweep(&self, now: Instant) {
        self.counters.holds(self.budget.held());
        for seat in &self.seats {
            seat.waits.sweep(now);
        }
    }
}
