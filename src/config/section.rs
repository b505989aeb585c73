//! One table of the configuration, read key by key by what the schema says of each.
//!
//! A reader never stops at a mistake: it reports it and goes on with a value that fits, so that
//! one run names every mistake. What was read is only used when nothing was reported.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::DeValue;

use super::document::{Table, Value};
use super::error::{Problem, Problems};
use super::near::nearest;
use super::schema::{self, Form};
use super::units;

/// What every reader needs beside its table.
#[derive(Debug)]
pub(super) struct Reading<'t> {
    pub(super) problems: &'t Problems,
    pub(super) environment: &'t BTreeMap<String, String>,
    /// The folder of the file: its relative paths begin here.
    pub(super) folder: &'t Path,
    /// Places from here on lie in the environment.
    pub(super) file_bytes: usize,
    /// The overrides, one line of TOML each.
    pub(super) overrides: &'t str,
}

impl Reading<'_> {
    /// A path as text; relative to the file's folder, or to the working folder if a variable
    /// holds it.
    pub(super) fn path(&self, text: &str, span: &Range<usize>) -> PathBuf {
        if span.start < self.file_bytes { self.folder.join(text) } else { PathBuf::from(text) }
    }

    /// The variable that holds the value at this place, if one does.
    pub(super) fn variable_at(&self, span: &Range<usize>) -> Option<&str> {
        let before = self.overrides.get(..span.start.checked_sub(self.file_bytes)?)?;
        before.rsplit('\n').next()?.split_whitespace().next()
    }
}

/// The longest name of a lane, a source or a secret.
const NAME_BYTES_MAX: usize = 64;

/// One table and where it stands.
#[derive(Debug)]
pub(super) struct Section<'t> {
    pub(super) reading: &'t Reading<'t>,
    table: &'t Table<'t>,
    /// Its path in the schema.
    path: &'static str,
    /// None for the file as a whole.
    span: Option<Range<usize>>,
}

/// The table of a section that the file leaves out.
pub(super) fn empty() -> Value<'static> {
    Spanned::new(0..0, DeValue::Table(Table::new()))
}

impl<'t> Section<'t> {
    /// Takes a table for reading and reports the keys that it should not hold.
    pub(super) fn open(
        reading: &'t Reading<'t>,
        path: &'static str,
        value: &'t Value<'t>,
    ) -> Option<Self> {
        let Some(table) = value.get_ref().as_table() else {
            reading.problems.push(
                Problem::new(
                    format!("`{path}` is {}, not a table", a(value.get_ref().type_str())),
                    format!("give it keys of its own: {}", listed(&schema::words_of(path))),
                )
                .at(value.span(), "a table is needed here"),
            );
            return None;
        };
        let section = Self { reading, table, path, span: Some(value.span()) };
        section.report_unknown_keys();
        Some(section)
    }

    /// Takes the whole file for reading.
    pub(super) fn root(reading: &'t Reading<'t>, table: &'t Spanned<Table<'t>>) -> Self {
        let section = Self { reading, table: table.get_ref(), path: "", span: None };
        section.report_unknown_keys();
        section
    }

    fn report_unknown_keys(&self) {
        let words = schema::words_of(self.path);
        for (key, _) in self.table {
            let word = key.get_ref().as_ref();
            if words.contains(&word) {
                continue;
            }
            let cure = match nearest(word, words.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the keys here are {}", listed(&words)),
            };
            self.reading.problems.push(
                Problem::new(format!("unknown key `{}`", self.path_of(word)), cure)
                    .at(key.span(), "no such key"),
            );
        }
    }

    /// The full path of a key, as messages and the README spell it.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Where a key's value stands; the table's own place if the key is absent.
    pub(super) fn place(&self, key: &str) -> Range<usize> {
        let whole = || self.span.clone().unwrap_or_default();
        self.table.get(key).map_or_else(whole, Spanned::span)
    }

    /// All that stands in it.
    pub(super) fn table(&self) -> &'t Table<'t> {
        self.table
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    pub(super) fn value(&self, key: &str) -> Option<&'t Value<'t>> {
        self.table.get(key)
    }

    /// Reports a mistake at a key.
    pub(super) fn refuse(&self, key: &str, what: &str, cure: impl Into<String>) {
        let title = format!("`{}` {what}", self.path_of(key));
        self.reading.problems.push(Problem::new(title, cure).at(self.place(key), ""));
    }

    /// Reports a value that does not have the key's form.
    fn misfit(&self, key: &str, form: Form, why: &str) {
        let how = match form {
            Form::Span(..) => units::DURATION_CURE,
            Form::Size(..) => units::SIZE_CURE,
            _ => "",
        };
        self.refuse(key, &format!("does not fit: {why}"), format!("write {}{how}", form.wanted()));
    }

    /// A key that must stand here and does not.
    pub(super) fn missing(&self, key: &str, cure: impl Into<String>) {
        let title = format!("`{}` is missing", self.path_of(key));
        self.lacking(title, &format!("`{key}` is needed here"), cure);
    }

    /// Reports what the table as a whole lacks; `here` says so at its place.
    pub(super) fn lacking(&self, title: String, here: &str, cure: impl Into<String>) {
        let problem = Problem::new(title, cure);
        self.reading.problems.push(match self.span.clone() {
            Some(span) => problem.at(span, here),
            None => problem,
        });
    }

    /// The text of a key, without looking at its form.
    pub(super) fn text(&self, key: &str) -> Option<&'t str> {
        let value = self.table.get(key)?;
        let text = value.get_ref().as_str();
        if text.is_none() {
            let form = schema::find(&self.path_of(key)).map_or(Form::Text, |key| key.form);
            self.misfit(key, form, &format!("it is {}", a(value.get_ref().type_str())));
        }
        text
    }

    /// The text of a key if it is one, without a word if it is not.
    pub(super) fn peek(&self, key: &str) -> Option<&'t str> {
        self.table.get(key)?.get_ref().as_str()
    }

    /// The text of a key or else its default; reports a key that has neither.
    pub(super) fn required(&self, key: &str, cure: &str) -> Option<&'t str> {
        if !self.has(key) {
            self.missing(key, cure);
        }
        self.text(key)
    }

    /// The key's text, or its default from the schema.
    pub(super) fn text_or_default(&self, key: &str) -> Option<&'t str> {
        let default = schema::find(&self.path_of(key)).map_or("", |key| key.default);
        if self.has(key) { self.text(key) } else { Some(default).filter(|text| !text.is_empty()) }
    }

    pub(super) fn duration(&self, key: &str) -> Option<Duration> {
        let text = self.text_or_default(key)?;
        let form = schema::find(&self.path_of(key))?.form;
        let Form::Span(min, max) = form else { return None };
        match units::parse_duration(text) {
            Ok(duration) if (min..=max).contains(&duration) => return Some(duration),
            Ok(_) => self.misfit(key, form, "it is out of bounds"),
            Err(why) => self.misfit(key, form, &why),
        }
        None
    }

    pub(super) fn size(&self, key: &str) -> Option<u64> {
        let text = self.text_or_default(key)?;
        let form = schema::find(&self.path_of(key))?.form;
        let Form::Size(min, max) = form else { return None };
        match units::parse_size(text) {
            Ok(size) if (min..=max).contains(&size) => return Some(size),
            Ok(_) => self.misfit(key, form, "it is out of bounds"),
            Err(why) => self.misfit(key, form, &why),
        }
        None
    }

    pub(super) fn count(&self, key: &str) -> Option<u64> {
        let schema = schema::find(&self.path_of(key))?;
        let Form::Count(min, max) = schema.form else { return None };
        let Some(value) = self.table.get(key) else { return schema.default.parse().ok() };
        let Some(integer) = value.get_ref().as_integer() else {
            self.misfit(key, schema.form, &format!("it is {}", a(value.get_ref().type_str())));
            return None;
        };
        let count = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let count = count.filter(|count| (min..=max).contains(count));
        if count.is_none() {
            self.misfit(key, schema.form, "it is out of bounds");
        }
        count
    }

    /// A moment in nanoseconds since 1970, written as text or as TOML's own date.
    pub(super) fn moment(&self, key: &str) -> Option<u64> {
        let value = self.table.get(key)?.get_ref();
        let written = match (value.as_str(), value.as_datetime()) {
            (Some(text), _) => text.to_owned(),
            (None, Some(date)) => date.to_string(),
            (None, None) => {
                let what = format!("it is {}", a(value.type_str()));
                self.misfit(key, Form::Moment, &what);
                return None;
            }
        };
        let at = written.parse::<jiff::Timestamp>().ok();
        let ns = at.and_then(|at| u64::try_from(at.as_nanosecond()).ok());
        if ns.is_none() {
            self.misfit(key, Form::Moment, "it is no moment since 1970");
        }
        ns
    }

    /// One of the form's words.
    pub(super) fn choice(&self, key: &str) -> Option<&'t str> {
        let text = self.text_or_default(key)?;
        let form = schema::find(&self.path_of(key))?.form;
        let Form::Choice(words) = form else { return None };
        if words.contains(&text) {
            return Some(text);
        }
        match nearest(text, words.iter().copied()) {
            Some(near) => {
                let what = format!("knows no \"{text}\"");
                self.refuse(key, &what, format!("did you mean \"{near}\"?"));
            }
            None => self.misfit(key, form, &format!("it knows no \"{text}\"")),
        }
        None
    }

    /// Yes or no; no if nothing is said.
    pub(super) fn truth(&self, key: &str) -> Option<bool> {
        let Some(value) = self.table.get(key) else { return Some(false) };
        let truth = value.get_ref().as_bool();
        if truth.is_none() {
            self.misfit(key, Form::Truth, &format!("it is {}", a(value.get_ref().type_str())));
        }
        truth
    }

    pub(super) fn address(&self, key: &str) -> Option<SocketAddr> {
        let text = self.text_or_default(key)?;
        let address = text.parse().ok();
        if address.is_none() {
            let cure = "write an IP address and a port: \"127.0.0.1:8080\", \"0.0.0.0:8080\" for \
                        every interface, \"[::]:8080\"";
            self.refuse(key, "is no address", cure);
        }
        address
    }

    /// The name of a lane, a source or a secret.
    pub(super) fn name(&self) -> Option<&'t str> {
        let name = self.required("name", "add name = \"...\", in small letters, digits and `-`")?;
        self.plain_word("name", name).then_some(name)
    }

    /// Whether a text may be a name; reports one that may not.
    pub(super) fn plain_word(&self, key: &str, text: &str) -> bool {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let fits = (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain);
        if !fits {
            let cure = format!("use 1 to {NAME_BYTES_MAX} small letters, digits and `-`");
            self.refuse(key, "is no name", cure);
        }
        fits
    }

    /// A list of texts.
    pub(super) fn texts(&self, key: &str) -> Option<Vec<&'t str>> {
        let value = self.table.get(key)?;
        let texts: Option<Vec<&'t str>> = value
            .get_ref()
            .as_array()
            .and_then(|list| list.iter().map(|item| item.get_ref().as_str()).collect());
        if texts.is_none() {
            let form = schema::find(&self.path_of(key)).map_or(Form::Texts, |key| key.form);
            self.misfit(key, form, "it is not a list of texts");
        }
        texts
    }

    /// A list of networks and addresses; empty if it is not there.
    pub(super) fn networks(&self, key: &str) -> Option<Vec<IpNet>> {
        if !self.has(key) {
            return Some(Vec::new());
        }
        let mut networks = Vec::new();
        for text in self.texts(key)? {
            let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
            let Some(network) = text.parse().ok().or_else(address) else {
                let cure = "write it as \"192.0.2.0/24\", \"2001:db8::/32\" or \"192.0.2.7\"";
                self.refuse(key, &format!("holds \"{text}\", which is no network"), cure);
                return None;
            };
            networks.push(network);
        }
        Some(networks)
    }

    /// The tables of a list; the cure says how one is written.
    pub(super) fn tables(&self, key: &str, cure: &str) -> &'t [Value<'t>] {
        let Some(value) = self.table.get(key) else { return &[] };
        if let Some(list) = value.get_ref().as_array() {
            return list;
        }
        let what = format!("is {}, not a list of tables", a(value.get_ref().type_str()));
        self.refuse(key, &what, cure);
        &[]
    }
}

/// Reports every value of a key that stands in several sections and may stand in one.
pub(super) fn refuse_twins(sections: &[Section<'_>], key: &str, cure: &str) {
    let mut taken: BTreeMap<&str, &Section<'_>> = BTreeMap::new();
    for section in sections {
        let Some(text) = section.peek(key) else { continue };
        let Some(twin) = taken.get(text) else {
            taken.insert(text, section);
            continue;
        };
        let title = format!("`{}` \"{text}\" is taken", section.path_of(key));
        section.reading.problems.push(
            Problem::new(title, cure)
                .at(section.place(key), "stands here again")
                .with_other(twin.place(key), "taken here"),
        );
    }
}

/// Keys in a sentence.
fn listed(words: &[&str]) -> String {
    format!("`{}`", words.join("`, `"))
}

/// A type of TOML with its article.
fn a(type_name: &str) -> String {
    let article = if type_name.starts_with(['a', 'i', 'o']) { "an" } else { "a" };
    format!("{article} {type_name}")
}
