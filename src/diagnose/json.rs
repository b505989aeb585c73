//! JSON written anew in every plausible way.
//!
//! Whoever parses a body and writes it again loses white space, order and escapes, and each
//! library has its own taste in them. Numbers are kept as they are written.

use std::fmt::{self, Write as _};

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Deeper documents are not written anew.
const DEPTH_MAX: usize = 64;

/// A document whose strings are decoded.
pub(super) enum Tree<'t> {
    /// A number or a literal, as written.
    Plain(&'t str),
    Text(String),
    List(Vec<Tree<'t>>),
    Map(Vec<(String, Tree<'t>)>),
}

/// How a document is written.
#[derive(Clone, Copy)]
pub(super) struct Style {
    pub(super) spacing: Spacing,
    pub(super) sorted: bool,
    pub(super) escapes: Escapes,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Spacing {
    Compact,
    /// A space after each comma and colon.
    Spaced,
    /// One line an entry, indented by this.
    Lines(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Escapes {
    /// Only what must be.
    Least,
    /// All but ASCII, digits in small letters.
    Ascii,
    /// All but ASCII, digits in capitals.
    AsciiCapital,
    /// `/` as well.
    Slash,
    /// All but ASCII, and `/`.
    AsciiSlash,
    /// `<`, `>`, `&` and the two line separators.
    Html,
}

const SPACINGS: [(Spacing, &str); 5] = [
    (Spacing::Compact, "without white space"),
    (Spacing::Spaced, "with a space after commas and colons"),
    (Spacing::Lines("  "), "indented by two spaces"),
    (Spacing::Lines("    "), "indented by four spaces"),
    (Spacing::Lines("\t"), "indented by tabs"),
];

const ESCAPES: [(Escapes, &str); 6] = [
    (Escapes::Least, ""),
    (Escapes::Ascii, ", all but ASCII as \\u escapes"),
    (Escapes::AsciiCapital, ", all but ASCII as \\u escapes in capitals"),
    (Escapes::Slash, ", slashes as \\/"),
    (Escapes::AsciiSlash, ", slashes as \\/ and all but ASCII as \\u escapes"),
    (Escapes::Html, ", <, > and & as \\u escapes"),
];

/// Every style with its description.
pub(super) fn styles() -> impl Iterator<Item = (Style, String)> {
    let orders = [(false, ""), (true, ", keys sorted")];
    SPACINGS.into_iter().flat_map(move |(spacing, spaced)| {
        orders.into_iter().flat_map(move |(sorted, ordered)| {
            ESCAPES.into_iter().map(move |(escapes, escaped)| {
                let style = Style { spacing, sorted, escapes };
                (style, format!("{spaced}{ordered}{escaped}"))
            })
        })
    })
}

impl<'t> Tree<'t> {
    /// Reads a document; nothing if it is none or lies too deep.
    pub(super) fn read(text: &'t str) -> Option<Self> {
        Self::read_at(text, DEPTH_MAX)
    }

    fn read_at(text: &'t str, depth: usize) -> Option<Self> {
        let depth = depth.checked_sub(1)?;
        Some(match text.trim_start().as_bytes().first()? {
            b'{' => {
                let mut deserializer = serde_json::Deserializer::from_str(text);
                let members = deserializer.deserialize_map(Members).ok()?;
                deserializer.end().ok()?;
                let read = |(key, value): (String, &'t RawValue)| {
                    Some((key, Self::read_at(value.get(), depth)?))
                };
                Self::Map(members.into_iter().map(read).collect::<Option<_>>()?)
            }
            b'[' => {
                let items: Vec<&'t RawValue> = serde_json::from_str(text).ok()?;
                let items = items.into_iter().map(|item| Self::read_at(item.get(), depth));
                Self::List(items.collect::<Option<_>>()?)
            }
            b'"' => Self::Text(serde_json::from_str(text).ok()?),
            _ => Self::Plain(serde_json::from_str::<&'t RawValue>(text).ok()?.get()),
        })
    }

    /// Writes the document.
    pub(super) fn write(&self, style: Style) -> String {
        let mut text = String::new();
        self.write_into(&mut text, style, 0);
        text
    }

    fn write_into(&self, text: &mut String, style: Style, depth: usize) {
        match self {
            Self::Plain(plain) => text.push_str(plain),
            Self::Text(string) => write_string(text, string, style.escapes),
            Self::List(items) => {
                let write = |text: &mut String, item: &Self| {
                    item.write_into(text, style, depth + 1);
                };
                write_entries(text, (style.spacing, depth, ['[', ']']), items.iter(), write);
            }
            Self::Map(members) => {
                let mut order: Vec<_> = members.iter().collect();
                if style.sorted {
                    order.sort_by(|(one, _), (other, _)| one.cmp(other));
                }
                let write = |text: &mut String, (key, value): &(String, Self)| {
                    write_string(text, key, style.escapes);
                    text.push_str(if style.spacing == Spacing::Compact { ":" } else { ": " });
                    value.write_into(text, style, depth + 1);
                };
                let order = order.into_iter();
                write_entries(text, (style.spacing, depth, ['{', '}']), order, write);
            }
        }
    }
}

/// The entries of a list or a map between its brackets.
fn write_entries<T>(
    text: &mut String,
    (spacing, depth, [open, close]): (Spacing, usize, [char; 2]),
    entries: impl ExactSizeIterator<Item = T>,
    mut write: impl FnMut(&mut String, T),
) {
    let empty = entries.len() == 0;
    let line = |text: &mut String, depth| {
        if let (Spacing::Lines(indent), false) = (spacing, empty) {
            text.push('\n');
            text.push_str(&indent.repeat(depth));
        }
    };
    text.push(open);
    for (index, entry) in entries.enumerate() {
        if index > 0 {
            text.push_str(if spacing == Spacing::Spaced { ", " } else { "," });
        }
        line(text, depth + 1);
        write(text, entry);
    }
    line(text, depth);
    text.push(close);
}

fn write_string(text: &mut String, string: &str, escapes: Escapes) {
    text.push('"');
    for character in string.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '/' if matches!(escapes, Escapes::Slash | Escapes::AsciiSlash) => text.push_str("\\/"),
            '\0'..='\u{1f}' => escape(text, character, escapes),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' if escapes == Escapes::Html => {
                escape(text, character, escapes);
            }
            _ if character.is_ascii() => text.push(character),
            _ => match escapes {
                Escapes::Ascii | Escapes::AsciiCapital | Escapes::AsciiSlash => {
                    escape(text, character, escapes);
                }
                Escapes::Least | Escapes::Slash | Escapes::Html => text.push(character),
            },
        }
    }
    text.push('"');
}

/// `\u` and four digits, for each half of a surrogate pair.
fn escape(text: &mut String, character: char, escapes: Escapes) {
    let mut units = [0; 2];
    for unit in character.encode_utf16(&mut units) {
        // Writing to a String cannot fail.
        _ = match escapes {
            Escapes::AsciiCapital => write!(text, "\\u{unit:04X}"),
            _ => write!(text, "\\u{unit:04x}"),
        };
    }
}

/// The members of an object in their order.
struct Members;

impl<'t> Visitor<'t> for Members {
    type Value = Vec<(String, &'t RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, spacing: Spacing, sorted: bool, escapes: Escapes) -> String {
        Tree::read(text).expect("a document").write(Style { spacing, sorted, escapes })
    }

    #[test]
    fn a_document_is_written_as_each_library_would() {
        // As printed by JSON.stringify, json.dumps, json_encode and encoding/json.
        let text = "{ \"b\": [1.50, {}, []],\n \"a\": \"\\u00e9/<\\ud83d\\ude00\\u0001\" }";
        let write = |spacing, sorted, escapes| written(text, spacing, sorted, escapes);
        assert_eq!(
            write(Spacing::Compact, false, Escapes::Least),
            "{\"b\":[1.50,{},[]],\"a\":\"\u{e9}/<\u{1f600}\\u0001\"}"
        );
        assert_eq!(
            write(Spacing::Spaced, true, Escapes::Ascii),
            "{\"a\": \"\\u00e9/<\\ud83d\\ude00\\u0001\", \"b\": [1.50, {}, []]}"
        );
        assert_eq!(
            write(Spacing::Compact, true, Escapes::AsciiSlash),
            "{\"a\":\"\\u00e9\\/<\\ud83d\\ude00\\u0001\",\"b\":[1.50,{},[]]}"
        );
        assert_eq!(
            write(Spacing::Compact, true, Escapes::Html),
            "{\"a\":\"\u{e9}/\\u003c\u{1f600}\\u0001\",\"b\":[1.50,{},[]]}"
        );
        assert_eq!(
            write(Spacing::Lines("  "), true, Escapes::AsciiCapital),
            "{\n  \"a\": \"\\u00E9/<\\uD83D\\uDE00\\u0001\",\n  \"b\": [\n    1.50,\n    {},\n    \
             []\n  ]\n}"
        );
    }

    #[test]
    fn what_is_no_document_is_not_written() {
        for text in ["", "{", "{}x", "[1,]", "nul", "\"\\ud800\"", &"[".repeat(100_000)] {
            assert!(Tree::read(text).is_none(), "{text:.20}");
        }
        let deep = format!("{}1{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
        assert!(Tree::read(&deep).is_none());
    }
}
