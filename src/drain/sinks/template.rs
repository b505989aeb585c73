//! Names with places in them, such as `events.{lane}.{type}`: where an event goes.
//!
//! What fills a place comes from the event, and its sender may have chosen it. So it is cleaned
//! into one word of letters, digits, `-` and `_`, of a bounded length, and never empty: a sender
//! can reach only the names that the template describes, and wildcards can count on their tokens.

use std::fmt;

use forebay_log::Tag;

use crate::drain::sink::Event;

/// The longest word that fills a place.
const WORD_BYTES_MAX: usize = 100;
/// Stands where the event says nothing.
const NOTHING: &str = "none";

/// A name with places, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Place(Place),
}

/// What may stand in braces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Lane,
    Source,
    Type,
    Tenant,
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The name would be empty.
    #[error("it is empty")]
    Empty,
    /// White space, a control character, or one that only patterns may hold.
    #[error("it holds {0:?}, which no name may")]
    Character(char),
}

impl Template {
    /// Reads a template. Braces around another word than `lane`, `source`, `type` or
    /// `tenant` are text.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.is_empty() {
            return Err(TemplateError::Empty);
        }
        let foul = |c: &char| c.is_whitespace() || c.is_control() || matches!(c, '*' | '>');
        if let Some(character) = text.chars().find(foul) {
            return Err(TemplateError::Character(character));
        }
        let mut parts = Vec::new();
        let mut text_of_part = String::new();
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            let found = Place::ALL.into_iter().find(|(name, _)| rest.starts_with(name));
            let Some((name, place)) = found else {
                text_of_part.push(next);
                rest = &rest[next.len_utf8()..];
                continue;
            };
            if !text_of_part.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text_of_part)));
            }
            parts.push(Part::Place(place));
            rest = &rest[name.len()..];
        }
        if !text_of_part.is_empty() {
            parts.push(Part::Text(text_of_part));
        }
        Ok(Self(parts))
    }

    /// The name for an event.
    pub fn fill(&self, event: &Event) -> String {
        self.filled_with(|place| match place {
            Place::Lane => word(&event.lane),
            Place::Source => word(&event.field(Tag::Source).unwrap_or_default()),
            Place::Type => word(&event.field(Tag::EventType).unwrap_or_default()),
            Place::Tenant => word(&event.field(Tag::Tenant).unwrap_or_default()),
        })
    }

    /// The name that stands for all that this template can make, with `any` for each place.
    pub fn pattern(&self, any: &str) -> String {
        self.filled_with(|_| any.to_owned())
    }

    fn filled_with(&self, fill: impl Fn(Place) -> String) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Place(place) => fill(*place),
        };
        self.0.iter().map(part).collect()
    }
}

/// As it was written.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.filled_with(|place| place.name().to_owned()))
    }
}

impl Place {
    const ALL: [(&'static str, Self); 4] = [
        ("{lane}", Self::Lane),
        ("{source}", Self::Source),
        ("{type}", Self::Type),
        ("{tenant}", Self::Tenant),
    ];

    fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, place)| *place == self).map_or("", |(name, _)| name)
    }
}

/// A text as one word of a name.
fn word(text: &str) -> String {
    if text.is_empty() {
        return NOTHING.to_owned();
    }
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    text.chars().take(WORD_BYTES_MAX).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_is_filled_and_the_rest_is_text() {
        let template = Template::parse("a.{lane}.{tag}.{type}.{tenant}").expect("a template");
        assert_eq!(template.pattern("*"), "a.*.{tag}.*.*");
        assert_eq!(template.to_string(), "a.{lane}.{tag}.{type}.{tenant}");
        let of_place = |place| if place == Place::Lane { "main" } else { "paid" }.to_owned();
        assert_eq!(template.filled_with(of_place), "a.main.{tag}.paid.paid");
    }

    #[test]
    fn a_word_is_one_token_whatever_the_sender_wrote() {
        assert_eq!(word("invoice.paid"), "invoice_paid");
        assert_eq!(word(">"), "_");
        assert_eq!(word("a b\r\n*"), "a_b___");
        assert_eq!(word(""), NOTHING);
        assert_eq!(word(&"\u{e9}".repeat(500)), "_".repeat(WORD_BYTES_MAX));
    }

    #[test]
    fn a_name_without_a_meaning_is_refused() {
        assert_eq!(Template::parse(""), Err(TemplateError::Empty));
        assert_eq!(Template::parse("a b"), Err(TemplateError::Character(' ')));
        assert_eq!(Template::parse("a.>"), Err(TemplateError::Character('>')));
    }
}
