//! Which event is this?
//!
//! Rules are data ([`IdentitySpec`]), compiled once into [`Rules`], and read an event's id, type,
//! time and tenant from its headers, from the claims of its token and from its JSON body, in one
//! pass over the body and only if a rule needs it. Nothing here fails: a body that cannot be read
//! identifies nothing, and what identifies nothing has a key made from its signed bytes.
//!
//! The event key comes from signed bytes where they hold the id; otherwise from the id and a
//! digest of the signed bytes; otherwise from that digest alone. A wrong "seen before" would lose
//! an event, so in doubt the key is the narrower one: two keys for one event cost a duplicate.
//!
//! A body that lists several events ([`IdentitySpec::items`]) is split into them, each with its own
//! identity and its own bytes of the body; see [`Items`].
//!
//! This stage trusts that the request was verified; it does not hash the key and knows no source.

mod key;
mod rule;
mod items;
mod identified;

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use serde::Deserialize;

pub use self::identified::{Events, Identified};
pub use self::items::{Item, Items};
pub use self::key::{EventKey, KeyKind};
pub use self::rule::RuleText;

use self::rule::{Field, Source};
use crate::limits;
use crate::verify::json::{Paths, Slot, Values};
use crate::verify::{SchemeSpec, SpecError, jwt};

/// Where an event's identity is, as written in configuration.
///
/// A rule is `header:NAME`, `json:a.b[0].c`, `form:NAME` or `claim:NAME`; several with `|` between them mean
/// the first that is there; in a batch also `item:a.b`, a path inside one of its items. A list means all of them, joined by `:`. In the list of an `event_id`
/// may also stand `digest`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentitySpec {
    /// The body holds a list of events: `json:PATH` of the list, `json:` if it is the body itself.
    pub items: Option<String>,
    /// The id of the event, the same in each of its deliveries. The part `digest` says that the
    /// others do not tell events apart by themselves: the event key, though not the id, also holds
    /// a digest of what was signed.
    pub event_id: Option<RuleText>,
    /// What tells events apart, where that is more than the id or another thing.
    pub event_key: Option<RuleText>,
    /// What happened.
    pub event_type: Option<RuleText>,
    /// When it happened, as the sender writes it.
    pub event_time: Option<RuleText>,
    /// Whose event it is.
    pub tenant: Option<RuleText>,
}

/// Compiled rules.
#[derive(Clone, Debug)]
pub struct Rules {
    event_id: Field,
    event_key: Field,
    event_type: Field,
    event_time: Field,
    tenant: Field,
    paths: Paths,
    token: Option<Token>,
    batch: Option<items::Batch>,
}

/// Where the token is whose claims are read.
#[derive(Clone, Debug)]
struct Token {
    header: HeaderName,
    prefix: Box<[u8]>,
    paths: Paths,
}

/// What a verified request says of its event. Texts are as written: numbers too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity<'r> {
    /// The id of the event, the same in each of its deliveries.
    pub event_id: Option<Cow<'r, str>>,
    /// What happened.
    pub event_type: Option<Cow<'r, str>>,
    /// When it happened, as the sender writes it.
    pub event_time: Option<Cow<'r, str>>,
    /// Whose event it is.
    pub tenant: Option<Cow<'r, str>>,
    /// What tells events apart, if that is not the id.
    event_key: Option<Cow<'r, str>>,
    kind: KeyKind,
    /// Whether anyone could change that on the way without harm to the signature.
    unsigned: bool,
    /// Which item of a batch it is of.
    item: Option<u32>,
    /// Where the parts of a joined key end.
    ends: [u16; rule::PARTS_MAX],
}

impl Rules {
    /// Compiles the rules for requests that `scheme` verifies: it says which headers are signed
    /// and where the token is.
    pub fn new(spec: &IdentitySpec, scheme: &SchemeSpec) -> Result<Self, SpecError> {
        let mut compiler = rule::Compiler::new(scheme);
        let event_id = compiler.field("event_id", spec.event_id.as_ref())?;
        let event_key = compiler.field("event_key", spec.event_key.as_ref())?;
        let event_type = compiler.field("event_type", spec.event_type.as_ref())?;
        let event_time = compiler.field("event_time", spec.event_time.as_ref())?;
        let tenant = compiler.field("tenant", spec.tenant.as_ref())?;
        let rule::Compiled { paths, token, batch } = compiler.finish(spec.items.as_deref())?;
        Ok(Self { event_id, event_key, event_type, event_time, tenant, paths, token, batch })
    }

    /// Reads a verified request as one event.
    pub fn extract<'r>(&self, headers: &'r HeaderMap, body: &'r [u8]) -> Identity<'r> {
        let wanted = self.wanted(headers, Source::json);
        let values = if wanted == 0 { Values::none() } else { self.paths.read(body, wanted) };
        let claims = self.claims(headers);
        let claim_values = self.claim_values(claims.as_deref());
        self.identity(None, |source| match source {
            Source::Header { name, .. } => header_text(headers, name).map(Cow::Borrowed),
            Source::Json { slot, .. } => values.text(*slot),
            Source::Claim(slot) => claimed(claim_values.as_ref(), *slot),
            Source::Form { name, .. } => form_text(body, name),
            Source::Item { .. } => None,
        })
    }

    fn fields(&self) -> [&Field; 5] {
        [&self.event_id, &self.event_key, &self.event_type, &self.event_time, &self.tenant]
    }

    /// The paths of one kind without which the rules cannot be settled.
    fn wanted(&self, headers: &HeaderMap, kind: fn(&Source) -> Option<Slot>) -> u32 {
        self.fields().iter().fold(0, |wanted, field| wanted | field.wanted(headers, kind))
    }

    /// The claims of the token, decoded, if a rule speaks of them.
    fn claims(&self, headers: &HeaderMap) -> Option<Vec<u8>> {
        let token = self.token.as_ref()?;
        jwt::claims_of(headers.get(&token.header)?.as_bytes(), &token.prefix)
    }

    fn claim_values<'c>(&self, claims: Option<&'c [u8]>) -> Option<Values<'c>> {
        Some(self.token.as_ref()?.paths.read(claims?, u32::MAX))
    }

    /// What the rules find where `look` looks.
    fn identity<'r>(
        &self,
        item: Option<u32>,
        look: impl Fn(&Source) -> Option<Cow<'r, str>>,
    ) -> Identity<'r> {
        let event_id = self.event_id.read(&look);
        let event_key = self.event_key.read(&look);
        let (rule, named) = match &event_key {
            Some(key) => (&self.event_key, Some(key)),
            None => (&self.event_id, event_id.as_ref()),
        };
        let kind = match named {
            None => KeyKind::Signed,
            Some(named) if rule.shared() || !named.signed => KeyKind::IdAndSigned,
            Some(_) => KeyKind::Id,
        };
        Identity {
            kind,
            unsigned: named.is_some_and(|named| !named.signed),
            item,
            ends: named.map_or_else(Default::default, |named| named.ends),
            event_key: event_key.map(|key| key.text),
            event_id: event_id.map(|id| id.text),
            event_type: self.event_type.read(&look).map(|found| found.text),
            event_time: self.event_time.read(&look).map(|found| found.text),
            tenant: self.tenant.read(&look).map(|found| found.text),
        }
    }
}

/// What a claim of the token says.
fn claimed<'r>(claims: Option<&Values<'_>>, slot: Slot) -> Option<Cow<'r, str>> {
    claims?.text(slot).map(|text| Cow::Owned(text.into()))
}

/// The value of a header that stands once and is text; of two values neither is believed.
fn header_text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    std::str::from_utf8(value.as_bytes()).ok()
}

/// The value of a field of a form that stands once; of two values neither is believed.
fn form_text<'b>(body: &'b [u8], name: &str) -> Option<Cow<'b, str>> {
    let mut values = form_urlencoded::parse(body).filter(|(known, _)| known == name);
    let (_, value) = values.next()?;
    values.next().is_none().then_some(value)
}

/// Whether a text may stand in an identity.
fn fits(text: &str) -> bool {
    !text.is_empty() && text.len() <= limits::IDENTITY_BYTES_MAX
}

#[cfg(test)]
mod tests;
