//! Which records a purge takes, and why each.
//!
//! What is named by an event is a payload, and one payload may lie in several records: a captured
//! request that comes again under another id, which is not signed, is an event or a delivery of its
//! own. Its record holds the key of its signed bytes beside its own key, so from the event that was
//! named on everything goes that shares either key with something that goes. A refused request has
//! no key; it goes if its body is that of an event that goes.

use std::collections::{BTreeSet, HashMap};

use forebay_log::{Candidate, Key, Kind, Position, PurgeError, Purger, Tag};
use memchr::memmem;
use ring::digest::{Context, SHA256};
use serde_json::{Value, json};

use super::PurgeArgs;
use crate::cli::place::Named;

/// Why a record goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It is what was named.
    Named,
    /// It came under another id with the signed bytes of what was named.
    SameSignedBytes,
    /// It was refused, and has the body of what was named.
    SameBody,
}

/// Which records go.
pub(super) struct Chosen<'a> {
    pub(super) args: &'a PurgeArgs,
    pub(super) before_ns: Option<u64>,
    /// The keys of the event, as its records in all lanes tell them.
    named: BTreeSet<[u8; 16]>,
    /// Those, and all that are tied to one of them by the same signed bytes.
    keys: BTreeSet<[u8; 16]>,
    /// Where the events that go were in quarantine, as their records write it.
    held: BTreeSet<Vec<u8>>,
    /// What the event's source and body come to.
    bodies: BTreeSet<[u8; 32]>,
}

/// The records that go though nobody has named them. A segment may be looked at twice, so they are
/// told apart by their positions.
#[derive(Debug, Default)]
pub(super) struct Copies(HashMap<Position, Why>);

impl Copies {
    /// Whether a record goes; if so it is counted.
    pub(super) fn takes(&mut self, chosen: &Chosen<'_>, found: &Candidate<'_>) -> bool {
        let why = chosen.why(found);
        if let Some(why @ (Why::SameSignedBytes | Why::SameBody)) = why {
            self.0.insert(found.position, why);
        }
        why.is_some()
    }

    pub(super) fn count(&self, why: Why) -> usize {
        self.0.values().filter(|is| **is == why).count()
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "same_signed_bytes": self.count(Why::SameSignedBytes),
            "same_body": self.count(Why::SameBody),
        })
    }
}

impl<'a> Chosen<'a> {
    /// Takes from all logs what must be known before the first record can be judged.
    pub(super) fn among(
        args: &'a PurgeArgs,
        before_ns: Option<u64>,
        logs: &[(Named, Purger)],
    ) -> Result<Self, PurgeError> {
        let mut chosen = Self {
            args,
            before_ns,
            named: BTreeSet::new(),
            keys: BTreeSet::new(),
            held: BTreeSet::new(),
            bodies: BTreeSet::new(),
        };
        if let Some(event) = &args.event {
            for (_, log) in logs {
                let named = chosen.named_in(log, event)?;
                chosen.named.extend(named);
            }
            chosen.keys.clone_from(&chosen.named);
            chosen.tie(logs)?;
        }
        if args.event.is_some() || args.tenant.is_some() {
            for (_, log) in logs {
                chosen.note_origins(log)?;
            }
        }
        Ok(chosen)
    }

    /// The keys of the event that was named, by key or by id.
    fn named_in(&self, log: &Purger, event: &str) -> Result<BTreeSet<[u8; 16]>, PurgeError> {
        let mut keys = BTreeSet::new();
        log.look(|found| {
            let id = found.meta.and_then(|meta| meta.get(Tag::EventId));
            let named = id == Some(event.as_bytes()) || found.key.to_string() == event;
            let of_it = named && self.is_of_source_and_tenant(found);
            if of_it && found.kind != Some(Kind::Quarantine) {
                keys.insert(found.key.0);
            }
            false
        })?;
        // What was purged before no longer says whose it is, and still ties others to its key.
        if self.args.source.is_none() && self.args.tenant.is_none() {
            let named = parsed_key(event);
            log.each_pair(|Key(own), _| keys.extend(named.filter(|key| *key == own)))?;
        }
        Ok(keys)
    }

    /// Adds the keys of records that share one with what goes, until there are no more.
    fn tie(&mut self, logs: &[(Named, Purger)]) -> Result<(), PurgeError> {
        let mut known = usize::MAX;
        while known != self.keys.len() {
            known = self.keys.len();
            for (_, log) in logs {
                log.each_pair(|Key(own), Key(signed)| {
                    if self.keys.contains(&own) || self.keys.contains(&signed) {
                        self.keys.extend([own, signed]);
                    }
                })?;
            }
        }
        Ok(())
    }

    /// Where the events that go were in quarantine, and what bodies they have.
    fn note_origins(&mut self, log: &Purger) -> Result<(), PurgeError> {
        let (mut held, mut bodies) = (BTreeSet::new(), BTreeSet::new());
        log.look(|found| {
            if self.why(found).is_some() {
                let was = found.meta.and_then(|meta| meta.get(Tag::Quarantined));
                held.extend(was.map(<[u8]>::to_vec));
                let of_event = self.args.event.is_some() && found.kind == Some(Kind::Event);
                bodies.extend(body_digest(found).filter(|_| of_event));
            }
            false
        })?;
        self.held.extend(held);
        self.bodies.extend(bodies);
        Ok(())
    }

    /// The keys of all that goes by its event, for the journal.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        self.keys.iter().copied().map(Key)
    }

    /// Why a record goes; nothing if it stays.
    pub(super) fn why(&self, found: &Candidate<'_>) -> Option<Why> {
        let by_event = self.args.event.is_some();
        let early = self.before_ns.is_none_or(|before_ns| found.received_ns < before_ns);
        if found.kind == Some(Kind::Quarantine) {
            let was_released = self.held.contains(found.position.to_string().as_bytes());
            if was_released || early && self.mentions(found) {
                return Some(Why::Named);
            }
            let body = (!self.bodies.is_empty()).then(|| body_digest(found)).flatten();
            let same = body.is_some_and(|body| self.bodies.contains(&body));
            return (early && same).then_some(Why::SameBody);
        }
        if !early {
            return None;
        }
        if !by_event {
            return self.is_of_source_and_tenant(found).then_some(Why::Named);
        }
        // The key is of one source and one tenant already, so that a damaged record goes too.
        if self.named.contains(&found.key.0) {
            return Some(Why::Named);
        }
        let is_tied = |key: Key| self.keys.contains(&key.0);
        let tied = is_tied(found.key) || found.signed_key.is_some_and(is_tied);
        tied.then_some(Why::SameSignedBytes)
    }

    /// Whether a refused request has the id and the tenant that were named in it, as they stand.
    fn mentions(&self, found: &Candidate<'_>) -> bool {
        let (Some(meta), Some(body)) = (found.meta, found.body) else {
            // Nobody can say what it mentions; by its time alone it may go.
            let PurgeArgs { event, tenant, source, .. } = self.args;
            return event.is_none() && tenant.is_none() && source.is_none();
        };
        let args = self.args;
        let holds = |wanted: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| {
                let within = |bytes: &[u8]| memmem::find(bytes, wanted.as_bytes()).is_some();
                within(meta.as_bytes()) || within(body)
            })
        };
        let source = meta.get(Tag::Source);
        let of_source = args.source.as_ref().is_none_or(|it| source == Some(it.as_bytes()));
        of_source && holds(&args.event) && holds(&args.tenant)
    }

    fn is_of_source_and_tenant(&self, found: &Candidate<'_>) -> bool {
        let fits = |tag, wanted: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| {
                found.meta.and_then(|meta| meta.get(tag)) == Some(wanted.as_bytes())
            })
        };
        fits(Tag::Source, &self.args.source) && fits(Tag::Tenant, &self.args.tenant)
    }
}

/// A key as it is shown.
fn parsed_key(text: &str) -> Option<[u8; 16]> {
    let number = u128::from_str_radix(text, 16).ok()?;
    let mut key = number.to_le_bytes();
    key.reverse();
    (text.len() == 32).then_some(key)
}

/// What tells a body of a source from others; nothing if there is none, or it does not hold.
fn body_digest(found: &Candidate<'_>) -> Option<[u8; 32]> {
    let (source, body) = (found.meta?.get(Tag::Source)?, found.body?);
    if body.is_empty() {
        return None;
    }
    let mut digest = Context::new(&SHA256);
    digest.update(source);
    // No name of a source has a zero in it.
    digest.update(&[0]);
    digest.update(body);
    digest.finish().as_ref().try_into().ok()
}
