//! Where in a request a handshake's values stand, and what stands there.

use std::borrow::Cow;

use http::HeaderName;
use http::request::Parts;

use crate::verify::SpecError;
use crate::verify::json::{Paths, Slot, Values};

/// A place in a request.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Header(HeaderName),
    Query(Box<str>),
    Json(Slot),
}

impl Place {
    /// Reads `header:NAME`, `query:NAME` or `json:PATH`.
    pub(super) fn new(text: &str, paths: &mut Paths) -> Result<Self, SpecError> {
        let wrong = |message: String| SpecError::new("handshakes", message);
        match text.split_once(':') {
            Some(("header", name)) => {
                let name = name.parse().map_err(|_| wrong(format!("{name:?} names no header")))?;
                Ok(Self::Header(name))
            }
            Some(("query", name)) if !name.is_empty() => Ok(Self::Query(name.into())),
            Some(("json", path)) => paths.add(path).map(Self::Json).map_err(wrong),
            _ => Err(wrong(format!(
                "{text:?} is no place; write \"header:NAME\", \"query:NAME\" or \"json:PATH\""
            ))),
        }
    }

    /// The path in the body, if it is there that this stands.
    pub(super) fn slot(&self) -> Option<Slot> {
        match self {
            Self::Json(slot) => Some(*slot),
            Self::Header(_) | Self::Query(_) => None,
        }
    }

    /// What stands there; nothing if it stands there twice.
    pub(super) fn text<'r>(&self, head: &'r Parts, body: &Values<'r>) -> Option<Cow<'r, str>> {
        match self {
            Self::Header(name) => {
                let mut values = head.headers.get_all(name).iter();
                let value = values.next().filter(|_| values.next().is_none())?;
                std::str::from_utf8(value.as_bytes()).ok().map(Cow::Borrowed)
            }
            Self::Query(name) => {
                let query = head.uri.query()?.as_bytes();
                let mut values = form_urlencoded::parse(query).filter(|(key, _)| *key == **name);
                let (_, value) = values.next()?;
                values.next().is_none().then_some(value)
            }
            Self::Json(slot) => body.text(*slot),
        }
    }
}
