//! Kafka: each event a record of a topic, acknowledged by all of its replicas that are in sync.
//!
//! **Effect: at least once; once within one session of the producer.** What the client itself sends
//! again, as after a reply that was lost, the brokers know by its number. A batch whose
//! outcome nobody knows (no answer in time, forebay killed) is handed over again as new records,
//! and may be there twice. `Forebay-Key` is the same for all deliveries of one event, also by all
//! forebays that share a `dedupe.key`, and `Forebay-Position` tells events of a lane apart.
//!
//! A record's key is the event's order key, as 16 hexadecimal digits: events of one key are in one
//! partition, in the order of their lane, one after the other. Its headers are those of the sink
//! `nats`, as they were sent. The producer outlives failures: under a new epoch of the same id the
//! brokers refuse what an old connection may still deliver late, behind what came after it.
//!
//! A broker refuses a batch as a whole where one record of it is at fault, and its answer does not
//! always say which. Halves of it are sent again, each in a session of its own, so that nobody
//! else's records are beside them, until the one at fault is alone.

mod attempt;
mod failure;

use std::mem::take;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use krafka::admin::DescribeClusterOptions;
use krafka::auth::{AuthConfig, TlsConfig};
use krafka::producer::{Acks, Producer};
use krafka::{CloseOptions, Compression, KrafkaError};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::answer::{gathered, patience, timed_out, within};
use super::template::Template;
use super::{Destination, Kind, OpenError};
use crate::drain::sink::{Class, Delivered, Event, Failure, Nature, Sink};
use crate::verify::SecretText;
use attempt::{Attempt, Said, heard};
use failure::{of_connect, of_error};

/// A little less than the largest batch that a broker takes unless it is told otherwise, 1 MiB.
const BATCH_BYTES: usize = 1_000_000;
/// What is queued in the client at the most. The sink's own `memory` is the bound that counts: this
/// one is only above it.
const QUEUED_BYTES_MAX: usize = u32::MAX as usize;
const UNPLACED: &str = "the broker takes the record for one that it has, and does not say where";
/// A batch is sent when all of it is queued; this is for what the client seals by itself.
const LINGER_MAX: Duration = Duration::from_millis(50);

/// Where events go, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `HOST:PORT` of brokers of one cluster; any of them is asked for the others.
    pub brokers: Vec<String>,
    /// Who forebay is.
    pub sasl: Option<Sasl>,
    /// Whether connections are encrypted.
    pub tls: bool,
    /// The authority that the brokers' certificates come from, as PEM; none: those that the system
    /// trusts.
    pub ca_pem: Option<Vec<u8>>,
    /// The topic of an event.
    pub topic: Template,
    /// How batches are compressed.
    pub compression: Compression,
    /// Whether brokers may make a topic that is missing.
    pub create_topics: bool,
}

/// How forebay proves who it is.
#[derive(Clone, Debug)]
pub struct Sasl {
    /// By which exchange.
    pub mechanism: Mechanism,
    /// The user.
    pub user: String,
    /// The user's password.
    pub password: SecretText,
}

/// An exchange of SASL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// The password as it is.
    Plain,
    /// A proof that the password is known.
    ScramSha256,
    /// The same with the longer hash.
    ScramSha512,
}

/// The sink.
#[derive(Debug)]
pub struct Kafka {
    settings: Settings,
    timeout: Duration,
    link: Mutex<Option<Arc<Link>>>,
}

/// A producer, with the connections that it keeps by itself.
#[derive(Debug)]
struct Link {
    kafka: krafka::Kafka,
    producer: Producer,
    /// It can send nothing more.
    lost: AtomicBool,
}

/// Events of a batch, by their places in it.
type Part = Vec<usize>;

/// What became of a batch so far.
#[derive(Debug)]
struct Outcome {
    verdicts: Vec<Result<(), Failure>>,
    /// Refused for good, for themselves or for their company.
    refused: Part,
    /// Not written: the session of their producer has come to its end.
    fenced: Part,
}

impl Kafka {
    /// A sink that is not connected yet; a batch may take so long.
    pub fn new(settings: Settings, timeout: Duration) -> Self {
        Self { settings, timeout: patience(timeout), link: Mutex::new(None) }
    }

    /// Half of what a batch may take: for what is asked before an event is queued, and for its
    /// delivery. So the client has given up by the time that the sink does, and writes nothing
    /// behind its back.
    fn half(&self) -> Duration {
        self.timeout / 2
    }

    /// The producer, made if there is none that can send.
    async fn link(&self) -> Result<Arc<Link>, Failure> {
        let mut slot = self.link.lock().await;
        // Relaxed: nothing else is read by it.
        if let Some(link) = slot.as_ref().filter(|link| !link.lost.load(Ordering::Relaxed)) {
            return Ok(Arc::clone(link));
        }
        if let Some(old) = slot.take() {
            end(&old.producer).await;
        }
        let link = within(self.timeout, self.connect()).await?;
        Ok(Arc::clone(slot.insert(Arc::new(link))))
    }

    async fn connect(&self) -> Result<Link, Failure> {
        let attempt = self.half().saturating_sub(self.linger());
        let kafka = krafka::Kafka::builder(self.settings.brokers.join(","))
            .client_id("forebay")
            .security(self.security())
            .connect_timeout(attempt)
            .request_timeout(attempt)
            .metadata_recovery_rebootstrap_trigger(self.timeout)
            .allow_auto_create_topics(self.settings.create_topics)
            .connect()
            .await
            .map_err(|error| of_connect(&error))?;
        let producer = self.session(&kafka).await?;
        Ok(Link { kafka, producer, lost: AtomicBool::new(false) })
    }

    /// A producer with a number of its own.
    async fn session(&self, kafka: &krafka::Kafka) -> Result<Producer, Failure> {
        let built = kafka
            .producer()
            .acks(Acks::All)
            .idempotent(true)
            .compression(self.settings.compression)
            .batch_size(BATCH_BYTES)
            .linger(self.linger())
            .delivery_timeout(self.half())
            .max_block(self.half())
            .buffer_memory(QUEUED_BYTES_MAX)
            .metrics_push(false)
            .build();
        built.await.map_err(|error| of_connect(&error))
    }

    fn linger(&self) -> Duration {
        LINGER_MAX.min(self.half() / 10)
    }

    fn security(&self) -> AuthConfig {
        let security = match &self.settings.sasl {
            None => AuthConfig::plaintext(),
            Some(Sasl { mechanism, user, password }) => {
                let password = password.expose_secret();
                match mechanism {
                    Mechanism::Plain => AuthConfig::sasl_plain(user, password),
                    Mechanism::ScramSha256 => AuthConfig::sasl_scram_sha256(user, password),
                    Mechanism::ScramSha512 => AuthConfig::sasl_scram_sha512(user, password),
                }
            }
        };
        if !self.settings.tls {
            return security;
        }
        security.with_tls(match &self.settings.ca_pem {
            Some(pem) => TlsConfig::new().with_ca_cert_pem(pem.clone()),
            None => TlsConfig::new().with_native_roots(),
        })
    }

    async fn produce_all(&self, batch: &[Event]) -> Result<Delivered, Failure> {
        let link = self.link().await?;
        let deadline = Instant::now() + self.timeout;
        let attempt = Attempt { topic: &self.settings.topic, batch, deadline };
        let mut outcome = Outcome::of(batch.len());
        let told = attempt.run(&link.producer, (0..batch.len()).collect()).await;
        if told.iter().any(|(_, said)| said.as_ref().is_err_and(Said::is_fatal)) {
            // Relaxed: nothing else is read by it.
            link.lost.store(true, Ordering::Relaxed);
        }
        outcome.take(told, self.timeout);
        let mut parts = vec![take(&mut outcome.refused), take(&mut outcome.fenced)];
        while let Some(part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            // Without the time for an answer it would be left open what became of them.
            if deadline < Instant::now() + self.half() {
                outcome.fail(&part, &timed_out(self.timeout));
                continue;
            }
            let producer = match within(self.half(), self.session(&link.kafka)).await {
                Ok(producer) => producer,
                Err(failure) => {
                    outcome.fail(&part, &failure);
                    continue;
                }
            };
            let divisible = part.len() > 1;
            outcome.take(attempt.run(&producer, part).await, self.timeout);
            end(&producer).await;
            let mut first = take(&mut outcome.refused);
            if divisible {
                // The first half goes first: what is good stays in its order.
                let second = first.split_off(first.len().div_ceil(2));
                parts.extend([second, first]);
            }
        }
        Ok(gathered(outcome.verdicts))
    }
}

impl Outcome {
    fn of(count: usize) -> Self {
        Self { verdicts: vec![Ok(()); count], refused: Part::new(), fenced: Part::new() }
    }

    fn take(&mut self, told: Vec<(usize, Result<(), Said>)>, timeout: Duration) {
        self.fenced.clear();
        for (index, said) in told {
            let verdict = said.map_err(|said| {
                let failure = match &said {
                    Said::Error(error) => of_error(error),
                    Said::Unplaced => Failure::temporary(UNPLACED),
                    Said::Nothing => timed_out(timeout),
                };
                match said {
                    Said::Error(KrafkaError::Fenced { .. }) => self.fenced.push(index),
                    _ if failure.class == Class::Permanent => self.refused.push(index),
                    _ => {}
                }
                failure
            });
            self.put(index, verdict);
        }
    }

    fn fail(&mut self, part: &[usize], failure: &Failure) {
        for index in part {
            self.put(*index, Err(failure.clone()));
        }
    }

    fn put(&mut self, index: usize, verdict: Result<(), Failure>) {
        if let Some(place) = self.verdicts.get_mut(index) {
            *place = verdict;
        }
    }
}

impl Kind for Settings {
    fn word(&self) -> &'static str {
        "kafka"
    }

    fn destination(&self) -> Destination {
        Destination::among(&self.brokers).named("topic", &self.topic)
    }

    /// With as many replicas as its topic is set up to have.
    fn replicates(&self) -> bool {
        true
    }

    fn open(&self, _name: &str, timeout: Duration) -> Result<Arc<dyn Sink>, OpenError> {
        Ok(Arc::new(Kafka::new(self.clone(), timeout)))
    }
}

impl Sink for Kafka {
    fn nature(&self) -> Nature {
        Nature::PARALLEL
    }

    fn deliver<'a>(&'a self, batch: &'a [Event]) -> BoxFuture<'a, Delivered> {
        Box::pin(async move { self.produce_all(batch).await.unwrap_or_else(Delivered::None) })
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let link = self.link().await?;
            let admin = link.kafka.admin();
            let asked = admin.describe_cluster(DescribeClusterOptions::default());
            match heard(tokio::time::timeout(self.timeout, asked).await) {
                // Any answer tells that the cluster is there, also one that refuses the question.
                Ok(_) | Err(Said::Error(KrafkaError::Broker { .. })) => Ok(()),
                Err(Said::Error(error)) => Err(of_error(&error)),
                Err(Said::Nothing | Said::Unplaced) => Err(timed_out(self.timeout)),
            }
        })
    }
}

/// Ends a session at once: nothing of it may be written behind what another one sends.
async fn end(producer: &Producer) {
    // It says only that there was something left.
    _ = producer.close_with(CloseOptions::new().timeout(Duration::ZERO)).await;
}
