//! What is counted of one address, within one receiver: its open connections, and its requests
//! that nobody vouched for.
//!
//! Both bounds are off unless the operator sets them: a provider in the middle of a large event
//! may send all of it from one address. An address of IPv6 counts by its /64, of which one client
//! has all.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::limits::ADDRESSES_MAX;
use crate::reject::Reject;

/// How long failures count.
const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// What stands for an address where it is counted.
fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

/// The open connections of each address.
#[derive(Debug)]
pub(super) struct PerAddress {
    open: RefCell<HashMap<IpAddr, u64>>,
    max: Option<u64>,
}

impl PerAddress {
    /// Counts if there is a bound.
    pub(super) fn new(max: Option<u64>) -> Rc<Self> {
        Rc::new(Self { open: RefCell::default(), max })
    }

    /// Takes a place for a connection until it is dropped; none if the address has its share.
    pub(super) fn place(self: &Rc<Self>, address: IpAddr) -> Option<Place> {
        let Some(max) = self.max else { return Some(Place(None)) };
        let address = counted(address);
        let mut open = self.open.borrow_mut();
        let count = open.entry(address).or_insert(0);
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Place(Some((Rc::clone(self), address))))
    }
}

/// One connection's place among those of its address.
#[derive(Debug)]
pub(super) struct Place(Option<(Rc<PerAddress>, IpAddr)>);

impl Drop for Place {
    fn drop(&mut self) {
        let Some((of, address)) = self.0.take() else { return };
        let mut open = of.open.borrow_mut();
        if let Some(count) = open.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&address);
            }
        }
    }
}

/// The failures of each address within a minute.
#[derive(Debug)]
pub struct Failures {
    counts: RefCell<HashMap<IpAddr, u64>>,
    since: Cell<Instant>,
    max: u64,
}

impl Failures {
    /// An address that fails `max` times within a minute is not listened to for the rest of it.
    pub fn new(max: u64, now: Instant) -> Self {
        Self { counts: RefCell::default(), since: Cell::new(now), max }
    }

    /// Whether an address has had its failures.
    pub fn check(&self, address: IpAddr) -> Result<(), Reject> {
        let count = self.counts.borrow().get(&counted(address)).copied().unwrap_or(0);
        if count < self.max { Ok(()) } else { Err(Reject::TooManyFailures) }
    }

    /// A request of an address was refused. What may befall an honest sender does not count, and
    /// beyond [`ADDRESSES_MAX`] no further address is remembered.
    pub fn add(&self, address: IpAddr, reject: Reject) {
        if !reject.is_strangers() {
            return;
        }
        let mut counts = self.counts.borrow_mut();
        let address = counted(address);
        if counts.len() < ADDRESSES_MAX || counts.contains_key(&address) {
            *counts.entry(address).or_insert(0) += 1;
        }
    }

    /// Forgets what is older than the window.
    pub fn sweep(&self, now: Instant) {
        if now.saturating_duration_since(self.since.get()) >= FAILURE_WINDOW {
            self.since.set(now);
            self.counts.borrow_mut().clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_log::Clock;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_has_its_share_of_connections_and_gives_it_back() {
        let places = PerAddress::new(Some(2));
        let held: Vec<_> = (0..2).map(|_| places.place(address("192.0.2.1"))).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(places.place(address("::ffff:192.0.2.1")).is_none(), "the same address");
        let other = places.place(address("192.0.2.2"));
        assert!(other.is_some());
        drop(held);
        assert!(places.place(address("192.0.2.1")).is_some());
        drop(other);
        assert!(places.open.borrow().is_empty(), "nothing is kept of who has left");
        let all: Vec<_> = (0..9).map(|_| PerAddress::new(None).place(address("::1"))).collect();
        assert!(all.iter().all(Option::is_some), "without a bound");
    }

    #[test]
    fn failures_count_for_a_minute_and_by_the_network_of_ipv6() {
        let now = Clock::System.monotonic();
        let failures = Failures::new(2, now);
        for last in ["1", "2"] {
            let from = address(&format!("2001:db8:0:1::{last}"));
            assert_eq!(failures.check(from), Ok(()));
            failures.add(from, Reject::SignatureWrong);
        }
        let third = address("2001:db8:0:1::3");
        assert_eq!(failures.check(third), Err(Reject::TooManyFailures));
        assert_eq!(failures.check(address("2001:db8:0:2::3")), Ok(()));
        failures.sweep(now + FAILURE_WINDOW / 2);
        assert!(failures.check(third).is_err());
        failures.sweep(now + FAILURE_WINDOW);
        assert_eq!(failures.check(third), Ok(()));
        for _ in 0..9 {
            failures.add(third, Reject::LogFull);
            failures.add(third, Reject::TooManyFailures);
        }
        assert_eq!(failures.check(third), Ok(()), "not the sender's fault");
    }

    #[test]
    fn no_flood_of_addresses_takes_more_memory() {
        let failures = Failures::new(1, Clock::System.monotonic());
        for index in 0..2 * u32::try_from(ADDRESSES_MAX).expect("small") {
            failures.add(IpAddr::V4(index.into()), Reject::UnknownPath);
        }
        assert_eq!(failures.counts.borrow().len(), ADDRESSES_MAX);
    }
}
