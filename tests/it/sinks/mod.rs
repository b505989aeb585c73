//! Each sink against the real server that it speaks to, and the drain as a whole against each.
//!
//! They need nats-server, redis-server, PostgreSQL and Node, so they are ignored unless asked for:
//! `tests/run sinks` installs these and runs them. Each test has servers of its own, on free ports
//! and in folders that go with them.
//!
//! `IT_SINK_ROUNDS` sets the rounds of kills, `IT_SINK_STOPPED_MS` for how long a server is stopped,
//! `IT_SEED` the moments.

mod certificates;
mod events;
mod process;
mod suite;
mod drained;
#[cfg(any(
    feature = "sink-kafka",
    feature = "sink-object",
    feature = "sink-pubsub",
    feature = "sink-sqs"
))]
mod socat;
#[cfg(any(feature = "sink-object", feature = "sink-pubsub", feature = "sink-sqs"))]
mod https;
#[cfg(feature = "sink-kafka")]
mod kafka;
mod nats;
#[cfg(feature = "sink-rabbitmq")]
mod rabbitmq;
mod redis;
mod postgres;
mod http;
mod file;
mod replicated;
mod three_nodes;
#[cfg(feature = "sink-object")]
mod object;
#[cfg(feature = "sink-sqs")]
mod sqs;
#[cfg(feature = "sink-pubsub")]
mod pubsub;

use std::sync::Arc;
use std::time::Duration;

use forebay::drain::sink::{Pass, Sink};

use process::Process;

/// How long a sink of these tests gives its server.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What holds events, and the sink that belongs to it.
trait Counterpart: Sized + Send {
    /// What senders wait between two events, where it takes longer over an event than forebay does:
    /// of a key only one is under way.
    const PACE: Duration = Duration::ZERO;

    /// One that is ready.
    fn start() -> Self;

    /// A sink with these credentials.
    fn sink(&self, who: Who) -> Arc<dyn Sink>;

    /// What it holds, in the order in which it came: lane and position of each.
    fn stored(&self) -> Vec<String>;

    /// The ids of the events that it holds, as their senders gave them, in the order in which they
    /// came; none before the first.
    fn event_ids(&self) -> Vec<String>;

    /// The sink as the configuration writes it, behind the keys that all sinks have.
    fn section(&self) -> String;

    /// A payload that is refused.
    fn poison() -> String;

    /// Makes it hold what comes twice, and says for which pass it does.
    fn forget(&self) -> Pass;
}

/// A counterpart that is a server.
trait Served: Counterpart {
    /// Whether a probe learns that the credentials are wrong.
    const PROBE_TELLS_STRANGERS: bool = true;

    fn process(&mut self) -> &mut Process;

    /// Starts the server again where it was, and waits until it is ready.
    fn run(&mut self);
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

/// Declares each test once for every counterpart, or for those that are servers.
macro_rules! for_each_counterpart {
    ($suite:ident: $($name:ident),+ $(,)?) => {
        for_each_counterpart!(@one $suite, file, Folder, $($name),+);
        for_each_server!($suite: $($name),+);
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

macro_rules! for_each_server {
    ($suite:ident: $($name:ident),+ $(,)?) => {
        #[cfg(feature = "sink-kafka")]
        for_each_counterpart!(@one $suite, kafka, Kafka, $($name),+);
        for_each_counterpart!(@one $suite, nats, Nats, $($name),+);
        #[cfg(feature = "sink-rabbitmq")]
        for_each_counterpart!(@one $suite, rabbitmq, RabbitMq, $($name),+);
        for_each_counterpart!(@one $suite, redis, Redis, $($name),+);
        for_each_counterpart!(@one $suite, postgres, Postgres, $($name),+);
        for_each_counterpart!(@one $suite, http, Http, $($name),+);
        #[cfg(feature = "sink-sqs")]
        for_each_counterpart!(@one $suite, sqs, Fifo, $($name),+);
        #[cfg(feature = "sink-pubsub")]
        for_each_counterpart!(@one $suite, pubsub, Fake, $($name),+);
    };
}

mod to {
    for_each_counterpart![suite:
        a_batch_arrives_once_and_in_order,
        what_was_handed_over_again_is_there_once,
        the_control_shows_what_comes_twice,
        events_of_two_lanes_keep_the_order_of_their_lane,
        a_lane_that_begins_anew_is_not_taken_for_the_old_one,
    ];
}

mod to_servers {
    for_each_server![suite:
        a_poison_event_fails_alone_and_for_good,
        a_dead_letter_that_is_redriven_arrives,
        a_server_that_is_away_is_a_matter_of_time,
        a_server_that_hangs_is_given_up_in_time,
        a_server_killed_under_load_has_everything_once,
        a_stranger_is_told_to_mend_its_credentials,
    ];
}

mod through {
    for_each_counterpart![drained:
        what_forebay_acknowledged_arrives_once_through_its_kills,
        a_poison_event_becomes_a_dead_letter_and_holds_up_nothing,
    ];
}

mod through_servers {
    for_each_server![drained:
        a_server_that_was_not_there_yet_gets_all_of_it,
        order_holds_while_the_server_dies_hangs_and_is_slow,
    ];
}

macro_rules! for_each_replica {
    ($($name:ident),+ $(,)?) => {
        #[cfg(feature = "sink-kafka")]
        for_each_counterpart!(@one replicated, kafka, Kafka, $($name),+);
        for_each_counterpart!(@one replicated, nats, Nats, $($name),+);
    };
}

/// A lane's acknowledgements wait for these.
mod replicas {
    for_each_replica![
        a_2xx_waits_for_the_stream_and_is_a_503_while_the_stream_stands_still,
        a_retry_of_what_the_stream_lacks_is_refused_also_when_its_key_is_in_a_file,
        a_lane_that_a_reload_moves_to_a_stream_that_answers_is_acknowledged_there,
        what_was_acknowledged_at_replicated_is_in_the_stream_when_its_machine_is_lost,
        what_was_acknowledged_at_synced_alone_is_seen_to_be_lost_with_its_machine,
        a_dead_letter_is_no_replica_until_it_is_discarded_also_after_a_restart,
    ];
}

/// No object store refuses an event for what is in it: what belongs to poison is not asked of it.
#[cfg(feature = "sink-object")]
macro_rules! for_each_object_store {
    ($($to:ident, $through:ident: $store:ident);+ $(;)?) => {
        $(
            mod $to {
                for_each_counterpart!(@one suite, object, $store,
                    a_batch_arrives_once_and_in_order,
                    what_was_handed_over_again_is_there_once,
                    the_control_shows_what_comes_twice,
                    events_of_two_lanes_keep_the_order_of_their_lane,
                    a_lane_that_begins_anew_is_not_taken_for_the_old_one,
                    a_server_that_is_away_is_a_matter_of_time,
                    a_server_that_hangs_is_given_up_in_time,
                    a_server_killed_under_load_has_everything_once,
                    a_stranger_is_told_to_mend_its_credentials
                );
            }

            mod $through {
                for_each_counterpart!(@one drained, object, $store,
                    what_forebay_acknowledged_arrives_once_through_its_kills,
                    a_server_that_was_not_there_yet_gets_all_of_it,
                    order_holds_while_the_server_dies_hangs_and_is_slow
                );
            }
        )+
    };
}

#[cfg(feature = "sink-object")]
for_each_object_store![
    to_s3, through_s3: Store;
    to_azure, through_azure: Azure;
    to_the_fake_of_gcs, through_the_fake_of_gcs: Gcs;
];

#[cfg(feature = "sink-object")]
mod to_folders {
    for_each_counterpart!(@one suite, object, Folder,
        a_batch_arrives_once_and_in_order,
        what_was_handed_over_again_is_there_once,
        the_control_shows_what_comes_twice,
        events_of_two_lanes_keep_the_order_of_their_lane,
        a_lane_that_begins_anew_is_not_taken_for_the_old_one
    );
}

#[cfg(feature = "sink-object")]
mod through_folders {
    for_each_counterpart!(@one drained, object, Folder,
        what_forebay_acknowledged_arrives_once_through_its_kills
    );
}

/// Who speaks HTTPS, before right and wrong certificates.
macro_rules! for_each_https {
    ($($feature:tt $to:ident, $module:ident: $counterpart:ident);+ $(;)?) => {
        $(
            #[cfg(feature = $feature)]
            mod $to {
                for_each_counterpart!(@one https, $module, $counterpart,
                    who_is_not_vouched_for_gets_no_event
                );
            }
        )+
    };
}

for_each_https![
    "sink-object" over_tls_to_s3, object: Store;
    "sink-object" over_tls_to_azure, object: Azure;
    "sink-object" over_tls_to_the_fake_of_gcs, object: Gcs;
    "sink-pubsub" over_tls_to_pubsub, pubsub: Fake;
    "sink-sqs" over_tls_to_sqs, sqs: Fifo;
];

/// A queue that promises neither once nor order, at whose consumer events are known again.
#[cfg(feature = "sink-sqs")]
mod to_standard_queues {
    for_each_counterpart!(@one suite, sqs, Standard,
        a_batch_arrives_once_and_in_order,
        what_was_handed_over_again_is_there_once,
        the_control_shows_what_comes_twice,
        events_of_two_lanes_keep_the_order_of_their_lane,
        a_lane_that_begins_anew_is_not_taken_for_the_old_one,
        a_poison_event_fails_alone_and_for_good,
        a_dead_letter_that_is_redriven_arrives,
        a_server_that_is_away_is_a_matter_of_time,
        a_server_that_hangs_is_given_up_in_time,
        a_server_killed_under_load_has_everything_once,
        a_stranger_is_told_to_mend_its_credentials
    );
}

#[cfg(feature = "sink-sqs")]
mod through_standard_queues {
    for_each_counterpart!(@one drained, sqs, Standard,
        what_forebay_acknowledged_arrives_once_through_its_kills,
        a_poison_event_becomes_a_dead_letter_and_holds_up_nothing,
        a_server_that_was_not_there_yet_gets_all_of_it,
        order_holds_while_the_server_dies_hangs_and_is_slow
    );
}
