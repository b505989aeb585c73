//! Each sink against the real server that it speaks to, and the drain as a whole against each.
//!
//! They need nats-server, redis-server and PostgreSQL, so they are ignored unless asked for:
//! `tests/run sinks` installs these and runs them. Each test has servers of its own, on free ports
//! and in folders that go with them.
//!
//! `IT_SINK_ROUNDS` sets the rounds of kills, `IT_SEED` their moments.

mod events;
mod process;
mod suite;
mod drained;
mod nats;
mod redis;
mod postgres;

use std::sync::Arc;
use std::time::Duration;

use forebay::drain::sink::{Pass, Sink};

use process::Process;

/// How long a sink of these tests gives its server.
const TIMEOUT: Duration = Duration::from_secs(1);

/// A server, and the sink that belongs to it.
trait Counterpart: Sized + Send {
    /// A server that is ready.
    fn start() -> Self;

    fn process(&mut self) -> &mut Process;

    /// Starts the server again where it was, and waits until it is ready.
    fn run(&mut self);

    /// A sink with these credentials.
    fn sink(&self, who: Who) -> Arc<dyn Sink>;

    /// What the server holds, in the order in which it came: lane and position of each.
    fn stored(&self) -> Vec<String>;

    /// The ids of the events that it holds, as their senders gave them; none before the first.
    fn event_ids(&self) -> Vec<String>;

    /// The sink as the configuration writes it.
    fn section(&self) -> String;

    /// A payload that the server refuses.
    fn poison() -> String;

    /// Makes the server hold what comes twice, and says for which pass it does.
    fn forget(&self) -> Pass;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Known,
    Stranger,
}

/// Runs one thing of the tests' own to its end.
fn now<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Declares each test of the suite once for every counterpart.
macro_rules! for_each_counterpart {
    ($suite:ident: $($name:ident),+ $(,)?) => {
        for_each_counterpart!(@one $suite, nats, Nats, $($name),+);
        for_each_counterpart!(@one $suite, redis, Redis, $($name),+);
        for_each_counterpart!(@one $suite, postgres, Postgres, $($name),+);
    };
    (@one $suite:ident, $module:ident, $counterpart:ident, $($name:ident),+) => {
        mod $module {
            $(
                #[test]
                #[ignore = "needs the sinks' servers, see tests/run sinks"]
                fn $name() {
                    super::super::$suite::$name::<super::super::$module::$counterpart>();
                }
            )+
        }
    };
}

mod to {
    for_each_counterpart![suite:
        a_batch_arrives_once_and_in_order,
        what_was_handed_over_again_is_there_once,
        the_control_shows_what_comes_twice,
        events_of_two_lanes_keep_the_order_of_their_lane,
        a_poison_event_fails_alone_and_for_good,
        a_dead_letter_that_is_redriven_arrives,
        a_lane_that_begins_anew_is_not_taken_for_the_old_one,
        a_server_that_is_away_is_a_matter_of_time,
        a_server_that_hangs_is_given_up_in_time,
        a_server_killed_under_load_has_everything_once,
        a_stranger_is_told_to_mend_its_credentials,
    ];
}

mod through {
    for_each_counterpart![drained: what_forebay_acknowledged_arrives_once_through_its_kills];
}
