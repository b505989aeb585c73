//! Events of a batch, sent once, in their order, and what the client says of each.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use krafka::producer::{Producer, RecordMetadata};
use krafka::{KrafkaError, Record};
use tokio::time::{Instant, timeout_at};

use crate::drain::sink::Event;
use crate::drain::sinks::Template;
use crate::drain::sinks::about::about;

/// The longest name of a topic.
const TOPIC_BYTES_MAX: usize = 249;

/// A batch, and what each attempt at it has in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt<'a> {
    pub(super) topic: &'a Template,
    pub(super) batch: &'a [Event],
    pub(super) deadline: Instant,
}

/// What the client says instead of a place in a partition.
#[derive(Clone, Debug)]
pub(super) enum Said {
    Error(KrafkaError),
    /// The broker has had a record of this number, and does not say where it is. One that died
    /// between counting a record and keeping it says so, too: that is no acknowledgement.
    Unplaced,
    /// Not a word in time.
    Nothing,
}

impl Said {
    /// Whether its producer can send nothing more.
    pub(super) fn is_fatal(&self) -> bool {
        matches!(self, Self::Error(error) if error.is_fatal())
    }
}

/// An answer of the client's, which may not have come in time.
pub(super) fn heard<T, L>(answer: Result<Result<T, KrafkaError>, L>) -> Result<T, Said> {
    match answer {
        Ok(answer) => answer.map_err(Said::Error),
        Err(_) => Err(Said::Nothing),
    }
}

impl Attempt<'_> {
    /// Sends the events at these places of the batch.
    pub(super) async fn run(
        &self,
        producer: &Producer,
        part: Vec<usize>,
    ) -> Vec<(usize, Result<(), Said>)> {
        let events = part.into_iter().filter_map(|index| Some((index, self.batch.get(index)?)));
        let events: Vec<(usize, &Event, String)> =
            events.map(|(index, event)| (index, event, self.topic(event))).collect();
        let missing = self.missing(producer, &events).await;
        let mut queued = Vec::with_capacity(events.len());
        for (index, event, topic) in &events {
            let answer = if let Some(said) = missing.get(topic.as_str()) {
                Err(said.clone())
            } else {
                let put = producer.enqueue(record(topic, event));
                heard(timeout_at(self.deadline, put).await)
            };
            queued.push((*index, answer));
        }
        // What is queued goes now. That is all that the first step of a flush does; the waiting
        // is for the answers below, and not for those of other batches.
        _ = producer.flush().now_or_never();
        let mut told = Vec::with_capacity(queued.len());
        for (index, answer) in queued {
            let there = match answer {
                Ok(answer) => heard(timeout_at(self.deadline, answer).await),
                Err(said) => Err(said),
            };
            let placed = |there: RecordMetadata| {
                if there.is_success() { Ok(()) } else { Err(Said::Unplaced) }
            };
            told.push((index, there.and_then(placed)));
        }
        told
    }

    /// The topics that cannot be written to. They are asked for before anything is queued, and all
    /// at once, so that one which is missing holds up no other.
    async fn missing<'t>(
        &self,
        producer: &Producer,
        events: &'t [(usize, &Event, String)],
    ) -> BTreeMap<&'t str, Said> {
        let topics: BTreeSet<&str> = events.iter().map(|(_, _, topic)| topic.as_str()).collect();
        let asked = topics.into_iter().map(async |topic| {
            let answer = timeout_at(self.deadline, producer.partitions_for(topic)).await;
            heard(answer).err().map(|said| (topic, said))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// All that fills its places is ASCII, so it can be cut anywhere.
    fn topic(&self, event: &Event) -> String {
        let mut topic = self.topic.fill(event);
        topic.truncate(TOPIC_BYTES_MAX);
        topic
    }
}

fn record(topic: &str, event: &Event) -> Record {
    let mut record =
        Record::new(topic, event.payload_bytes()).header("Forebay-Key", event.idempotency_key());
    for (name, value) in about(event) {
        record = record.header(name, value.into_owned());
    }
    match event.order_key {
        Some(key) => record.key(format!("{key:016x}")),
        None => record,
    }
}
