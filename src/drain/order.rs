//! Which events may not overtake one another: none, those of a tenant, those of a key.

use std::borrow::Cow;
use std::hash::Hasher as _;

use forebay_log::{HeaderValue, RecordRef, Tag};
use siphasher::sip::SipHasher24;

use crate::identify::RuleText;
use crate::verify::json::{Paths, Slot, Values};

/// Which events keep the order of their lane.
#[derive(Clone, Debug)]
pub enum Order {
    /// Each may overtake each.
    None,
    /// Those of one tenant keep it; an event without a tenant overtakes and is overtaken.
    Tenant,
    /// Those of one key keep it; an event without one overtakes and is overtaken.
    Key(OrderKey),
}

/// Where the key of an event stands.
#[derive(Clone, Debug)]
pub struct OrderKey {
    paths: Paths,
    parts: Vec<Vec<Place>>,
    text: String,
}

#[derive(Clone, Debug)]
enum Place {
    Json(Slot),
    Header(String),
    Field(Tag),
}

/// What `field:` may name: what forebay itself says of an event.
const FIELDS: [(&str, Tag); 5] = [
    ("source", Tag::Source),
    ("tenant", Tag::Tenant),
    ("environment", Tag::Environment),
    ("event_id", Tag::EventId),
    ("event_type", Tag::EventType),
];

impl Order {
    /// The word of the configuration.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Tenant => "tenant",
            Self::Key(_) => "key",
        }
    }

    /// The rule of the key, as written.
    pub fn rule(&self) -> Option<&str> {
        if let Self::Key(key) = self { Some(&key.text) } else { None }
    }

    /// The key of an event; none where it may go in any order.
    pub fn key_of(&self, record: &RecordRef<'_>) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Tenant => record.meta().get(Tag::Tenant).map(|tenant| hash([tenant])),
            Self::Key(key) => key.read(record),
        }
    }
}

impl OrderKey {
    /// Compiles `json:PATH`, `header:NAME` or `field:NAME`, several with `|` between them, or a
    /// list of them that together are the key. The error says what is wrong with the rule.
    pub fn new(rule: &RuleText) -> Result<Self, String> {
        let texts = match rule {
            RuleText::One(text) => std::slice::from_ref(text),
            RuleText::Joined(texts) => texts,
        };
        if texts.is_empty() {
            return Err("is empty".to_owned());
        }
        let mut paths = Paths::default();
        let mut parts = Vec::with_capacity(texts.len());
        for text in texts {
            let places = text.split('|').map(|text| place(text.trim(), &mut paths));
            parts.push(places.collect::<Result<Vec<_>, String>>()?);
        }
        Ok(Self { paths, parts, text: texts.join(" and ") })
    }

    fn read(&self, record: &RecordRef<'_>) -> Option<u64> {
        let places = || self.parts.iter().flatten();
        let wanted = places().fold(0, |wanted, place| match place {
            Place::Json(slot) => wanted | slot.bit(),
            _ => wanted,
        });
        let values =
            if wanted == 0 { Values::none() } else { self.paths.read(record.body(), wanted) };
        let find = |part: &Vec<Place>| part.iter().find_map(|place| place.look(record, &values));
        let texts: Option<Vec<Cow<'_, [u8]>>> = self.parts.iter().map(find).collect();
        Some(hash(texts?.iter().map(AsRef::as_ref)))
    }
}

impl Place {
    fn look<'r>(&self, record: &RecordRef<'r>, values: &'r Values<'_>) -> Option<Cow<'r, [u8]>> {
        match self {
            Self::Field(tag) => record.meta().get(*tag).map(Cow::Borrowed),
            Self::Header(name) => record.meta().headers().find_map(|(known, value)| match value {
                HeaderValue::Bytes(bytes) if known.eq_ignore_ascii_case(name.as_bytes()) => {
                    Some(Cow::Borrowed(bytes))
                }
                _ => None,
            }),
            Self::Json(slot) => values.text(*slot).map(|text| match text {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            }),
        }
    }
}

fn place(text: &str, paths: &mut Paths) -> Result<Place, String> {
    match text.split_once(':') {
        Some(("json", path)) => Ok(Place::Json(paths.add(path)?)),
        Some(("header", name)) if !name.is_empty() => Ok(Place::Header(name.to_owned())),
        Some(("field", name)) => {
            let known = FIELDS.iter().find(|(known, _)| *known == name);
            known.map(|(_, tag)| Place::Field(*tag)).ok_or_else(|| {
                let words: Vec<&str> = FIELDS.iter().map(|(known, _)| *known).collect();
                format!("knows no field {name:?}; there are {}", words.join(", "))
            })
        }
        _ => Err(format!("holds {text:?}, which names no place")),
    }
}

/// The same for the same pieces on every machine and in every version: each goes in behind its
/// length, so that no two lists make the same bytes.
fn hash<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hasher = SipHasher24::new();
    for piece in pieces {
        hasher.write(&(piece.len() as u64).to_le_bytes());
        hasher.write(piece);
    }
    hasher.finish()
}
