//! What a sender asks before or between its events, and how it is answered.
//!
//! A handshake is data ([`HandshakeSpec`]) of the preset or of the source: which request it is,
//! what must be true of it, how it is answered. It takes no room in the log, so it is answered
//! while a lane refuses events.
//!
//! ```text
//! head ------> at_head: unsigned, without a body          (GET hub.challenge, OPTIONS, a header)
//! body ------> unsigned: a body that nobody signed        (a probe when an endpoint is made)
//! verified --> signed: everything that the sender signs   (challenges, pings, tokens)
//! ```
//!
//! Invariants:
//! - what a sender signs is verified first; `signed` takes nothing but a [`Verified`];
//! - no answer is a MAC of bytes that could be signed bytes of the scheme;
//! - what is given back is short and of harmless characters, and is never logged;
//! - nothing is ever requested from an address that stands in a request, but for one: where the
//!   source says `confirm = "auto"`, the address at SNS in a verified invitation of its topic, and
//!   that from another thread (`confirm.rs`).

mod spec;
mod place;
mod answer;
mod confirm;
mod expected;

use http::Method;
use http::request::Parts;
use ring::digest;
use subtle::ConstantTimeEq as _;

pub use self::confirm::{Confirm, Confirmer, Invitation};
pub use self::expected::{Expected, OneOf};
pub use self::spec::{AnswerSpec, Guard, GuardSpec, HandshakeMethod, HandshakeSpec};

use self::answer::{Asked, Reply};
use self::place::Place;
use crate::limits::HANDSHAKE_BYTES_MAX;
use crate::receive::Answer;
use crate::reject::Reject;
use crate::verify::json::{Paths, Values};
use crate::verify::{Format, SchemeSpec, SpecError, Verified};

/// What a source's configuration says about its handshakes.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The token that a sender shows who was told it, as its digest.
    verify_token: Option<digest::Digest>,
    /// The topics that are wanted.
    pub topics: Vec<String>,
    /// The origins that may send.
    pub origins: Vec<String>,
    /// What becomes of an invitation to confirm a subscription.
    pub confirm: Confirm,
}

impl Terms {
    /// The terms of a source; of the token only a digest is kept.
    pub fn new(verify_token: Option<&str>, topics: Vec<String>, origins: Vec<String>) -> Self {
        let verify_token = verify_token.map(token_digest);
        Self { verify_token, topics, origins, confirm: Confirm::Log }
    }

    fn check(&self, guard: Guard, value: Option<&str>) -> Result<(), Reject> {
        let topic = || value.is_some_and(|value| self.topics.iter().any(|topic| topic == value));
        let (holds, otherwise) = match guard {
            Guard::Token => {
                let shown = value.map(token_digest);
                let same = self
                    .verify_token
                    .zip(shown)
                    .is_some_and(|(known, shown)| bool::from(known.as_ref().ct_eq(shown.as_ref())));
                (same, Reject::HandshakeRefused)
            }
            Guard::Topic => (topic(), Reject::HandshakeTopic),
            Guard::OtherTopic => (value.is_some() && !topic(), Reject::HandshakeTopic),
            Guard::Origin => {
                let known =
                    |value: &str| self.origins.iter().any(|o| o.eq_ignore_ascii_case(value));
                (value.is_some_and(known), Reject::HandshakeRefused)
            }
        };
        if holds { Ok(()) } else { Err(otherwise) }
    }
}

/// Digests are compared, so that the time says nothing of the token.
fn token_digest(token: &str) -> digest::Digest {
    digest::digest(&digest::SHA256, token.as_bytes())
}

/// The handshakes of one source, by the moment at which they can be told.
#[derive(Clone, Debug, Default)]
pub struct Handshakes {
    at_head: Vec<Handshake>,
    unsigned: Vec<Handshake>,
    signed: Vec<Handshake>,
    terms: Terms,
}

#[derive(Clone, Debug)]
struct Handshake {
    name: String,
    method: HandshakeMethod,
    when: Vec<(Place, Option<Box<str>>)>,
    unless: Vec<Place>,
    guard: Option<(Guard, Place)>,
    reply: Reply,
    paths: Paths,
    /// The paths that `when` and `unless` need.
    asked: u32,
}

impl Handshakes {
    /// Compiles the handshakes of a source whose requests `scheme` signs.
    pub fn new(
        specs: &[HandshakeSpec],
        scheme: &SchemeSpec,
        terms: Terms,
    ) -> Result<Self, SpecError> {
        let mut all = Self { terms, ..Self::default() };
        for spec in specs {
            let handshake = Handshake::new(spec, scheme).map_err(|error| {
                SpecError::new(error.key, format!("`{}` {}", spec.name, error.message))
            })?;
            let post = spec.method == HandshakeMethod::Post;
            let list = match (spec.signed, handshake.asked != 0) {
                (true, _) if post => &mut all.signed,
                (false, true) if post => &mut all.unsigned,
                (false, false) => &mut all.at_head,
                _ => {
                    let message = format!(
                        "`{}` has no body to sign or to read; say signed = false, and name no \
                         json: place",
                        spec.name
                    );
                    return Err(SpecError::new("handshakes", message));
                }
            };
            list.push(handshake);
        }
        all.check_confirm(scheme)?;
        Ok(all)
    }

    /// An address is followed only where the scheme has verified the sender and the topic.
    fn check_confirm(&self, scheme: &SchemeSpec) -> Result<(), SpecError> {
        let able = scheme.format == Format::Sns && self.confirm().is_some();
        if self.terms.confirm == Confirm::Auto && !able {
            let message = "\"auto\" follows what Amazon SNS signs and nothing else; remove it";
            return Err(SpecError::new("confirm", message));
        }
        Ok(())
    }

    /// The names of the handshakes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let lists = [&self.at_head, &self.unsigned, &self.signed];
        lists.into_iter().flatten().map(|handshake| handshake.name.as_str())
    }

    /// What becomes of an invitation to confirm a subscription; none where there is none.
    pub fn confirm(&self) -> Option<Confirm> {
        let confirms = |each: &Handshake| matches!(each.reply, Reply::Confirm { .. });
        self.signed.iter().any(confirms).then_some(self.terms.confirm)
    }

    /// Whether a body of this length may be a handshake, and is taken whatever the load.
    pub fn may_be(&self, body_bytes: u64) -> bool {
        let some = !self.signed.is_empty() || !self.unsigned.is_empty();
        some && body_bytes <= HANDSHAKE_BYTES_MAX
    }

    /// Whether a body that nobody signed may be a handshake.
    pub fn may_be_unsigned(&self, body_bytes: u64) -> bool {
        !self.unsigned.is_empty() && body_bytes <= HANDSHAKE_BYTES_MAX
    }

    /// Answers a request that has no body, if it is a handshake.
    pub fn at_head(&self, head: &Parts) -> Option<Result<Answer, Reject>> {
        let handshake = self.at_head.iter().find(|each| each.is(head, &Values::none()))?;
        let asked = Asked { head, body: &Values::none(), mac: &|_| None };
        Some(match handshake.answer(&self.terms, &asked) {
            Ok(Told::Answer(answer)) => Ok(*answer),
            Ok(Told::Nothing | Told::Invitation(_)) => Err(Reject::HandshakeMalformed),
            Err(reject) => Err(reject),
        })
    }

    /// Answers a request without a signature, if it is a handshake that has none.
    pub fn unsigned(&self, head: &Parts, body: &[u8]) -> Option<Result<Answer, Reject>> {
        let no_mac = |_: &[u8]| None;
        self.unsigned.iter().find_map(|handshake| {
            match handshake.answer_if(&self.terms, (head, body), &no_mac) {
                Ok(Told::Answer(answer)) => Some(Ok(*answer)),
                Ok(Told::Nothing | Told::Invitation(_)) => None,
                Err(reject) => Some(Err(reject)),
            }
        })
    }

    /// What a verified request is answered, or invites to, if it is a handshake.
    pub fn signed(&self, verified: &Verified<'_>) -> Result<Told, Reject> {
        let admitted = verified.admitted();
        let (head, body) = (admitted.received().head, admitted.body());
        if self.signed.is_empty() || body.len() as u64 > HANDSHAKE_BYTES_MAX {
            return Ok(Told::Nothing);
        }
        let mac = |text: &[u8]| verified.mac(text);
        for handshake in &self.signed {
            match handshake.answer_if(&self.terms, (head, body), &mac)? {
                Told::Nothing => {}
                told => return Ok(told),
            }
        }
        Ok(Told::Nothing)
    }
}

/// What a handshake comes to.
#[derive(Debug)]
pub enum Told {
    /// It is none, or is kept as an event and nothing more.
    Nothing,
    /// It is answered, and leaves nothing; boxed, since few requests are one.
    Answer(Box<Answer>),
    /// It is kept as an event, and what it invites to is followed.
    Invitation(Invitation),
}

impl Handshake {
    fn new(spec: &HandshakeSpec, scheme: &SchemeSpec) -> Result<Self, SpecError> {
        let mut paths = Paths::default();
        let when = spec.when.iter().map(|(place, value)| {
            let value = (value != "*").then(|| value.as_str().into());
            Ok((Place::new(place, &mut paths)?, value))
        });
        let when: Vec<_> = when.collect::<Result<_, SpecError>>()?;
        let unless = spec.unless.iter().map(|place| Place::new(place, &mut paths));
        let unless: Vec<_> = unless.collect::<Result<_, _>>()?;
        let asked = when.iter().map(|(place, _)| place).chain(&unless).filter_map(Place::slot);
        let asked = asked.fold(0, |asked, slot| asked | slot.bit());
        let guard = match &spec.guard {
            Some(guard) => Some((guard.is, Place::new(&guard.at, &mut paths)?)),
            None => None,
        };
        let reply = Reply::new(&spec.answer, &mut paths, scheme, spec.signed)?;
        let (name, method) = (spec.name.clone(), spec.method);
        Ok(Self { name, method, when, unless, guard, reply, paths, asked })
    }

    /// Whether a request is this handshake, as far as its head tells.
    fn is_by_head(&self, head: &Parts) -> bool {
        let method = match self.method {
            HandshakeMethod::Post => Method::POST,
            HandshakeMethod::Get => Method::GET,
            HandshakeMethod::Options => Method::OPTIONS,
        };
        let in_head = |place: &Place| place.slot().is_none();
        head.method == method && self.stands(head, &Values::none(), in_head)
    }

    fn is(&self, head: &Parts, body: &Values<'_>) -> bool {
        self.is_by_head(head) && self.stands(head, body, |place| place.slot().is_some())
    }

    /// Whether what must stand at these places does, and nothing where nothing may.
    fn stands(&self, head: &Parts, body: &Values<'_>, here: impl Fn(&Place) -> bool) -> bool {
        let found = |place: &Place, wanted: Option<&str>| {
            let text = place.text(head, body);
            text.is_some_and(|text| wanted.is_none_or(|wanted| wanted == text))
        };
        let when = self.when.iter().filter(|(place, _)| here(place));
        let mut unless = self.unless.iter().filter(|place| here(place));
        when.into_iter().all(|(place, wanted)| found(place, wanted.as_deref()))
            && !unless.any(|place| found(place, None))
    }

    /// The answer, if the request is this handshake. The body is read only if the head fits, and
    /// for the rest only if its beginning does.
    fn answer_if(
        &self,
        terms: &Terms,
        (head, body): (&Parts, &[u8]),
        mac: &dyn Fn(&[u8]) -> Option<ring::hmac::Tag>,
    ) -> Result<Told, Reject> {
        if !self.is_by_head(head) || !self.is(head, &self.paths.read(body, self.asked)) {
            return Ok(Told::Nothing);
        }
        self.answer(terms, &Asked { head, body: &self.paths.read(body, u32::MAX), mac })
    }

    fn answer(&self, terms: &Terms, asked: &Asked<'_, '_>) -> Result<Told, Reject> {
        if let Some((guard, place)) = &self.guard {
            terms.check(*guard, asked.text(place).as_deref())?;
        }
        let Reply::Confirm { url } = &self.reply else {
            let answer = self.reply.to(asked)?;
            tracing::debug!(handshake = self.name, answered = answer.is_some(), "handshake");
            return Ok(answer.map_or(Told::Nothing, |answer| Told::Answer(Box::new(answer))));
        };
        let invitation = asked.text(url).and_then(|url| Invitation::new(&url));
        let invitation = invitation.ok_or(Reject::HandshakeRefused)?;
        if terms.confirm == Confirm::Auto {
            return Ok(Told::Invitation(invitation));
        }
        tracing::warn!(
            handshake = self.name,
            "a subscription asks to be confirmed: the address to open stands in the event \
             that is stored for it, see `forebay tail`"
        );
        Ok(Told::Nothing)
    }
}

#[cfg(test)]
mod tests;
