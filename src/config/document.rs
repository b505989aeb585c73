//! The file and the environment as one text with one numbering of places.
//!
//! The overrides by environment are written out as lines of TOML behind the file, so that a value
//! keeps its place wherever it came from, and errors of serde inside `source.scheme` point into
//! either. What is shown of the text is masked: a secret never reaches a report, even one about
//! the line that it stands on.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Problem;
use super::schema;

/// A table with the places of its keys and values.
pub(super) type Table<'t> = DeTable<'t>;
/// A value with its place.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// The text that errors may show: the configuration with its secrets masked.
#[derive(Clone)]
pub(super) struct Shown {
    path: String,
    text: String,
    file_bytes: usize,
}

impl Shown {
    /// Nothing to show but the file's name.
    pub(super) fn nothing(path: String) -> Self {
        Self { path, text: String::new(), file_bytes: 0 }
    }

    /// A text that is not yet known to be TOML, so that masking has only its lines to go by.
    pub(super) fn unparsed(path: String, file: &str) -> Self {
        let text = mask_lines(file);
        Self { path, file_bytes: text.len(), text }
    }

    /// File and environment, masked by what they parsed to.
    pub(super) fn parsed(path: String, texts: Texts<'_>, tables: [&Table<'_>; 2]) -> Self {
        let mut text = format!("{}{}", texts.file, texts.environment).into_bytes();
        for table in tables {
            mask_table(table, &mut text);
        }
        // Whole characters are replaced, so this is never lossy.
        let text = String::from_utf8_lossy(&text).into_owned();
        Self { path, text, file_bytes: texts.file.len() }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Is the place in the file, or else in the environment?
    fn in_file(&self, place: usize) -> bool {
        place < self.file_bytes || self.text.len() == self.file_bytes
    }

    /// The whole file, or the one line of the environment.
    pub(super) fn source_of(&self, place: usize) -> Range<usize> {
        if self.in_file(place) {
            return 0..self.file_bytes;
        }
        let place = self.boundary(place);
        let start = self.text[self.file_bytes..place]
            .rfind('\n')
            .map_or(self.file_bytes, |newline| self.file_bytes + newline + 1);
        let end = self.text[place..].find('\n').map_or(self.text.len(), |newline| place + newline);
        start..end
    }

    /// What that source is called.
    pub(super) fn name_of(&self, place: usize) -> &str {
        if self.in_file(place) { &self.path } else { "environment" }
    }

    /// The file, or the variable at this place of the environment.
    pub(super) fn variable_of(&self, place: usize) -> &str {
        if self.in_file(place) {
            return &self.path;
        }
        self.text(self.source_of(place)).split(' ').next().unwrap_or_default()
    }

    /// Where a place of the file is for people: line and character, both from 1.
    pub(super) fn line_and_column(&self, place: usize) -> Option<(usize, usize)> {
        if self.text.is_empty() || !self.in_file(place) {
            return None;
        }
        let before = &self.text[..self.boundary(place)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        Some((line, before[line_start..].chars().count() + 1))
    }

    pub(super) fn text(&self, range: Range<usize>) -> &str {
        &self.text[self.boundary(range.start)..self.boundary(range.end)]
    }

    /// A place of the joint text as a place of the source, kept inside it.
    pub(super) fn within(&self, source: Range<usize>, span: &Range<usize>) -> Range<usize> {
        let clamp =
            |place: usize| self.boundary(place.clamp(source.start, source.end)) - source.start;
        let start = clamp(span.start);
        // Of a place that spans lines, the first is enough: a whole table would hide the words.
        let end = clamp(span.end).max(start);
        let text = &self.text[source.start + start..source.start + end];
        start..text.find('\n').map_or(end, |newline| start + newline)
    }

    /// The nearest place at or before this one that does not split a character.
    fn boundary(&self, place: usize) -> usize {
        let place = place.min(self.text.len());
        (0..=place).rev().find(|place| self.text.is_char_boundary(*place)).unwrap_or(0)
    }
}

/// The two parts of the joint text.
#[derive(Clone, Copy)]
pub(super) struct Texts<'t> {
    pub(super) file: &'t str,
    /// One line of TOML for each variable.
    pub(super) environment: &'t str,
}

/// Parses TOML; the error is a problem with its place.
pub(super) fn parse(text: &str) -> Result<Spanned<Table<'_>>, Problem> {
    DeTable::parse(text).map_err(|error| {
        let problem = Problem::new(
            format!("not TOML: {}", error.message()),
            "correct the place, or see https://toml.io for how TOML is written",
        );
        match error.span() {
            Some(span) => problem.at(span, ""),
            None => problem,
        }
    })
}

/// Keys below which text is masked, whatever their place: a mistyped or misplaced `secret` is one
/// all the same.
const SECRET_WORDS: [&str; 5] = ["secret", "value", "token", "password", "private"];
/// Keys of a secret that say where it is, not what it is.
const SECRET_NEIGHBOURS: [&str; 6] = ["name", "env", "file", "key_id", "not_before", "not_after"];

fn is_secret_word(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| key.contains(word))
}

/// Overwrites every text and number below a secret's key.
fn mask_table(table: &Table<'_>, text: &mut [u8]) {
    for (key, value) in table {
        mask_value(value, is_secret_word(key.get_ref()), text);
    }
}

fn mask_value(value: &Value<'_>, secret: bool, text: &mut [u8]) {
    match value.get_ref() {
        DeValue::Table(table) => {
            for (key, value) in table {
                let key = key.get_ref();
                let neighbour = SECRET_NEIGHBOURS.contains(&key.as_ref());
                mask_value(value, (secret && !neighbour) || is_secret_word(key), text);
            }
        }
        DeValue::Array(values) => values.iter().for_each(|value| mask_value(value, secret, text)),
        _ if secret => {
            for byte in text.get_mut(value.span()).into_iter().flatten() {
                if !matches!(byte, b'\n' | b'\r' | b'"' | b'\'') {
                    *byte = b'*';
                }
            }
        }
        _ => mask_user(text.get_mut(value.span()).unwrap_or_default()),
    }
}

/// Overwrites user and password in a URL, whose key need not speak of secrets.
fn mask_user(text: &mut [u8]) {
    let Some(start) = text.windows(3).position(|window| window == b"://") else { return };
    let rest = text.get_mut(start + 3..).unwrap_or_default();
    let ends = |byte: &u8| matches!(byte, b'/' | b'?' | b'#' | b'"' | b'\'' | b'\n');
    let end = rest.iter().position(ends).unwrap_or(rest.len());
    let user = rest[..end].iter().rposition(|byte| *byte == b'@').unwrap_or(0);
    rest.iter_mut().take(user).for_each(|byte| *byte = b'*');
}

/// Masks by lines, for text that is not TOML has no other marks: what follows the first `=` or
/// quote of a line that speaks of secrets, and the lines behind it up to one that plainly begins
/// something else.
fn mask_lines(text: &str) -> String {
    let mut secret = false;
    let mut masked = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let speaks = is_secret_word(line);
        secret = speaks || (secret && !begins_anew(line));
        let from = match (secret, speaks) {
            (true, true) => line.find(['=', '"', '\'']).unwrap_or(line.len()),
            (true, false) => 0,
            (false, _) => line.len(),
        };
        masked.push_str(&line[..from]);
        for character in line[from..].chars() {
            if matches!(character, '\n' | '\r' | '=' | '"' | '\'' | ' ' | '{' | '}' | '[' | ']') {
                masked.push(character);
            } else {
                // As many bytes as before, so that places stay true.
                masked.extend(std::iter::repeat_n('*', character.len_utf8()));
            }
        }
    }
    masked
}

/// Is this the header of a table, or a key of ours?
fn begins_anew(line: &str) -> bool {
    let line = line.trim();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"[]._-".contains(&byte);
    let header = line.starts_with('[') && line.ends_with(']') && line.bytes().all(plain);
    let key = line.split('=').next().unwrap_or_default().trim();
    let ours = || schema::keys().any(|known| known.path.rsplit('.').next() == Some(key));
    header || (line.contains('=') && ours())
}
