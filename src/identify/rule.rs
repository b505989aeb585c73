//! Rules: their text, their compiled form, and how one is read.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use serde::Deserialize;

use super::items::Batch;
use super::{Token, fits, header_text};
use crate::limits;
use crate::verify::json::{Paths, Slot};
use crate::verify::{Format, SchemeSpec, SpecError};

/// The most parts of a joined id.
pub(super) const PARTS_MAX: usize = 6;
const _: () = assert!(limits::IDENTITY_BYTES_MAX <= u16::MAX as usize, "ends are u16");

/// The fields of a message of SNS that its signature covers.
const SNS_SIGNED: [&str; 6] = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"];

/// The part of an id that stands for a digest of the signed bytes.
const DIGEST: &str = "digest";

/// A rule as written: one, or a list of parts to be joined.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum RuleText {
    /// `header:NAME`, `json:PATH`, `claim:NAME`, or several with `|` between them.
    One(String),
    /// All of these, joined by `:`.
    Joined(Vec<String>),
}

/// A compiled rule: parts, each with its alternatives in order. No parts: no rule.
#[derive(Clone, Debug, Default)]
pub(super) struct Field {
    parts: Vec<Vec<Source>>,
    digest: bool,
}

/// One place to look.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Header { name: HeaderName, signed: bool },
    Json { slot: Slot, signed: bool },
    Item { slot: Slot, signed: bool },
    Form { name: Box<str>, signed: bool },
    Claim(Slot),
}

impl Source {
    fn signed(&self) -> bool {
        match self {
            Self::Header { signed, .. }
            | Self::Json { signed, .. }
            | Self::Item { signed, .. }
            | Self::Form { signed, .. } => *signed,
            // A token signs its claims.
            Self::Claim(_) => true,
        }
    }

    /// The path into the body.
    pub(super) fn json(&self) -> Option<Slot> {
        if let Self::Json { slot, .. } = self { Some(*slot) } else { None }
    }

    /// The path into an item.
    pub(super) fn item(&self) -> Option<Slot> {
        if let Self::Item { slot, .. } = self { Some(*slot) } else { None }
    }
}

/// What a rule found.
pub(super) struct FoundText<'r> {
    pub(super) text: Cow<'r, str>,
    pub(super) signed: bool,
    pub(super) ends: [u16; PARTS_MAX],
}

impl Field {
    /// Whether what is found here does not tell events apart by itself.
    pub(super) fn shared(&self) -> bool {
        self.digest
    }

    /// The paths of one kind without which this rule cannot be settled: those of each part's
    /// first alternative. The others are read on the way if the first is not there.
    pub(super) fn wanted(&self, headers: &HeaderMap, kind: fn(&Source) -> Option<Slot>) -> u32 {
        let needed = |part: &Vec<Source>| {
            let first = part.iter().enumerate().find_map(|(at, source)| Some((at, kind(source)?)));
            let Some((at, slot)) = first else { return 0 };
            let there = |source: &Source| match source {
                Source::Header { name, .. } => header_text(headers, name).is_some_and(fits),
                _ => false,
            };
            if part.iter().take(at).any(there) { 0 } else { slot.bit() }
        };
        self.parts.iter().fold(0, |wanted, part| wanted | needed(part))
    }

    pub(super) fn read<'r>(
        &self,
        look: impl Fn(&Source) -> Option<Cow<'r, str>>,
    ) -> Option<FoundText<'r>> {
        let mut found: Option<FoundText<'r>> = None;
        for (index, part) in self.parts.iter().enumerate() {
            let look = |source| Some((source, look(source).filter(|text| fits(text))?));
            let (source, text) = part.iter().find_map(look)?;
            let whole = match &mut found {
                None => {
                    found.insert(FoundText { text, signed: source.signed(), ends: [0; PARTS_MAX] })
                }
                Some(whole) => {
                    whole.signed &= source.signed();
                    let joined = whole.text.to_mut();
                    joined.push(':');
                    joined.push_str(&text);
                    whole
                }
            };
            *whole.ends.get_mut(index)? = u16::try_from(whole.text.len()).ok()?;
        }
        found.filter(|whole| fits(&whole.text))
    }
}

/// Collects the paths of all rules, so that one pass serves them.
pub(super) struct Compiler<'s> {
    scheme: &'s SchemeSpec,
    signed: Vec<HeaderName>,
    paths: Paths,
    items: Option<Paths>,
    claims: Option<Paths>,
}

/// What all rules together need.
pub(super) struct Compiled {
    pub(super) paths: Paths,
    pub(super) token: Option<Token>,
    pub(super) batch: Option<Batch>,
}

impl<'s> Compiler<'s> {
    pub(super) fn new(scheme: &'s SchemeSpec) -> Self {
        let signed = scheme.signed_headers();
        Self { scheme, signed, paths: Paths::default(), items: None, claims: None }
    }

    pub(super) fn field(&mut self, key: &str, rule: Option<&RuleText>) -> Result<Field, SpecError> {
        let texts = match rule {
            None => &[][..],
            Some(RuleText::One(text)) => std::slice::from_ref(text),
            Some(RuleText::Joined(texts)) => texts,
        };
        if rule.is_some() && texts.is_empty() || texts.len() > PARTS_MAX {
            let message = format!("has {} parts; give 1 to {PARTS_MAX}", texts.len());
            return Err(SpecError::new(key, message));
        }
        let digest =
            ["event_id", "event_key"].contains(&key) && texts.iter().any(|text| text == DIGEST);
        let mut parts = Vec::with_capacity(texts.len());
        for text in texts.iter().filter(|text| !digest || *text != DIGEST) {
            let sources = text.split('|').map(|text| self.source(text.trim()));
            let sources = sources.collect::<Result<Vec<_>, String>>();
            parts.push(sources.map_err(|message| SpecError::new(key, message))?);
        }
        Ok(Field { parts, digest })
    }

    fn source(&mut self, text: &str) -> Result<Source, String> {
        match text.split_once(':') {
            Some(("header", name)) => {
                let Ok(name) = name.parse::<HeaderName>() else {
                    return Err(format!(
                        "{name:?} is not the name of a header; use letters, digits and hyphens"
                    ));
                };
                let signed = self.signed.contains(&name);
                Ok(Source::Header { name, signed })
            }
            Some(("json", path)) => Ok(Source::Json { slot: self.paths.add(path)?, signed: true }),
            Some(("item", path)) => {
                let slot = self.items.get_or_insert_default().add(path)?;
                Ok(Source::Item { slot, signed: self.covers(path, true) })
            }
            Some(("form", name)) if !name.is_empty() => {
                Ok(Source::Form { name: name.into(), signed: true })
            }
            Some(("claim", name)) if self.scheme.format == Format::Jwt => {
                Ok(Source::Claim(self.claims.get_or_insert_default().add(name)?))
            }
            Some(("claim", _)) => {
                Err("speaks of a claim, which only a JWT has; use \"header:\" or \"json:\""
                    .to_owned())
            }
            _ => Err(format!(
                "{text:?} is not a rule; write \"header:NAME\", \"json:data.items[0].id\", \
                 \"form:NAME\" or \"claim:NAME\""
            )),
        }
    }

    /// Whether the signature covers what stands at a path of the body or of its items. Where it
    /// stands in the body it covers the fields that it names, and of a list those of each item;
    /// every other scheme covers the body whole.
    fn covers(&self, path: &str, item: bool) -> bool {
        let scheme = self.scheme;
        match (&scheme.signature, scheme.format) {
            (None, Format::Sns) => SNS_SIGNED.contains(&path),
            (None, _) => true,
            (Some(_), _) => {
                let named = |part: &String| part.strip_prefix("json:") == Some(path);
                item == scheme.each.is_some() && scheme.signed.iter().any(named)
            }
        }
    }

    /// `items` says where the list of a batch is.
    pub(super) fn finish(mut self, items: Option<&str>) -> Result<Compiled, SpecError> {
        let wrong = |message: &str| Err(SpecError::new("items", message));
        let batch = match (items, self.items.take()) {
            (None, None) => None,
            (None, Some(_)) => {
                return wrong("is missing, and a rule speaks of an item; say where the list is");
            }
            (Some(list), paths) => {
                let Some(path) = list.strip_prefix("json:") else {
                    return wrong("is no place of a list; write \"json:PATH\", or \"json:\"");
                };
                let list = Batch::new(path, paths.unwrap_or_default());
                Some(list.map_err(|message| SpecError::new("items", message))?)
            }
        };
        let token = self.claims.take().map(|paths| token(self.scheme, paths)).transpose()?;
        Ok(Compiled { paths: self.paths, token, batch })
    }
}

fn token(scheme: &SchemeSpec, paths: Paths) -> Result<Token, SpecError> {
    let Ok(header) = scheme.header.parse::<HeaderName>() else {
        let message = format!(
            "{:?} is not the name of a header; use letters, digits and hyphens",
            scheme.header
        );
        return Err(SpecError::new("scheme.header", message));
    };
    let prefix = scheme.prefix.as_deref().unwrap_or_default().as_bytes().into();
    Ok(Token { header, prefix, paths })
}
