//! `FOREBAY_SECTION__KEY`: every key, overridden by environment.
//!
//! Which variables exist follows from the file: its lanes, sources and sinks are addressed by name, in
//! capitals, `-` as `_`. The overrides become lines of TOML and are laid over the file's table
//! before anything reads it, so that nothing behind this module knows where a value came from.
//!
//! ```text
//! FOREBAY_DATA_DIR                              data_dir
//! FOREBAY_RECEIVE__LISTEN                       receive.listen
//! FOREBAY_LANE__MAIN__RETENTION__AGE            retention.age of the lane `main`
//! FOREBAY_SOURCE__ZOOM_EU__TOLERANCE            tolerance of the source `zoom-eu`
//! FOREBAY_SOURCE__ZOOM_EU__SECRETS__A           the secret `a` itself; also ..__A__FILE, __KEY_ID
//! ```
//!
//! A variable that is meant for a key and fits none is an error. Others that begin with `FOREBAY_`
//! are not ours to judge: Kubernetes gives every pod `FOREBAY_SERVICE_HOST` and its kind for a
//! service of that name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeValue};

use super::document::{Table, Value};
use super::error::{Problem, Problems};
use super::near::nearest;
use super::schema::{self, Form};

const PREFIX: &str = "FOREBAY_";
/// Variables with a meaning of their own.
const RESERVED: [&str; 2] = ["FOREBAY_LOG", "FOREBAY_CONFIG"];
/// Where a secret comes from: one of these, so setting one displaces the others.
pub(super) const ORIGINS: [&str; 3] = ["value", "env", "file"];

/// Keys of a source that hold a secret of another kind.
const TOKENS: [&str; 2] = ["verify_token", "path_token"];

/// One step from a table to the value that a variable means.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    /// The table of this name in a list, appended if the list has none.
    Named(String),
}

/// The overrides that an environment holds for one file.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    /// One line of TOML a variable, in their order.
    pub(super) lines: String,
    targets: Vec<(String, Vec<Step>)>,
    /// Variables that fit no key, with the nearest that does.
    unknown: Vec<(String, Option<String>)>,
}

impl Overrides {
    /// Finds the variables that mean a key of this file.
    pub(super) fn find(environment: &BTreeMap<String, String>, file: &Table<'_>) -> Self {
        let mut overrides = Self::default();
        let ours = || environment.iter().filter(|(name, _)| is_candidate(name));
        if ours().next().is_none() {
            return overrides;
        }
        let known = known(file);
        let mut read_elsewhere = named_by_secrets(file);
        let of_secrets = |name: &str| name.contains("__SECRETS__") && name.ends_with("__ENV");
        read_elsewhere
            .extend(ours().filter(|(name, _)| of_secrets(name)).map(|(_, value)| value.as_str()));
        for (name, value) in ours() {
            if let Some((steps, form)) = known.0.get(name) {
                overrides.line(name, &toml_value(*form, value));
                overrides.targets.push((name.clone(), steps.clone()));
            } else if let Some((steps, form)) = open_ended(file, name) {
                overrides.line(name, &toml_value(form, value));
                overrides.targets.push((name.clone(), steps));
            } else if !read_elsewhere.contains(name.as_str()) {
                let near = nearest(name, known.0.keys().map(String::as_str)).map(str::to_owned);
                if name.contains("__") || near.is_some() {
                    // Its value may be a secret under a wrong name, and nobody needs it.
                    overrides.line(name, "\"...\"");
                    overrides.unknown.push((name.clone(), near));
                }
            }
        }
        overrides
    }

    fn line(&mut self, name: &str, value: &str) {
        self.lines.push_str(name);
        self.lines.push_str(" = ");
        self.lines.push_str(value);
        self.lines.push('\n');
    }

    /// Lays the values over the file's table and reports the variables that fit no key.
    pub(super) fn apply<'t>(
        &self,
        values: &Table<'t>,
        file: &mut Spanned<Table<'t>>,
        problems: &Problems,
    ) {
        for (name, steps) in &self.targets {
            let Some((key, value)) = values.get_key_value(name.as_str()) else { continue };
            lay(file.get_mut(), steps, key.span(), value.clone());
        }
        for (name, near) in &self.unknown {
            let Some((key, _)) = values.get_key_value(name.as_str()) else { continue };
            let cure = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => "unset it, or see the README for the names of the variables; lanes, \
                         sources and secrets are named as in the file, in capitals, `-` as `_`"
                    .to_owned(),
            };
            problems.push(
                Problem::new(format!("the variable `{name}` overrides no key"), cure)
                    .at(key.span(), "no such key"),
            );
        }
    }
}

fn is_candidate(name: &str) -> bool {
    // Anything else could not be written as a line of TOML, and no key is called so.
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    plain && name.starts_with(PREFIX) && !RESERVED.contains(&name)
}

/// A name of the file as it stands in a variable.
fn capitals(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}

/// The names of the tables in a list.
fn names<'t>(table: &'t Table<'_>, list: &str) -> impl Iterator<Item = (&'t str, &'t Table<'t>)> {
    let values = table.get(list).and_then(|value| value.get_ref().as_array());
    values.into_iter().flatten().filter_map(|value| {
        let table = value.get_ref().as_table()?;
        Some((table.get("name")?.get_ref().as_str()?, table))
    })
}

/// Every variable that this file gives a meaning.
fn known(file: &Table<'_>) -> Known {
    let mut known = Known::default();
    for key in schema::keys() {
        let parts: Vec<&str> = key.path.split('.').collect();
        match parts.as_slice() {
            // Renaming is not overriding, and a table has keys of its own.
            [.., "name"]
            | ["source", "scheme" | "answers" | "handshakes" | "expect"]
            | ["sink", "http", "secrets" | "headers", ..] => {}
            [list @ ("lane" | "source" | "sink"), rest @ ..] => {
                for (name, table) in names(file, list) {
                    let start = Start::default().key(list).named(name);
                    match rest {
                        ["secrets", field] => {
                            let start = start.key("secrets");
                            for (secret, _) in names(table, "secrets") {
                                known.add_secret(start.clone().named(secret), field);
                            }
                        }
                        rest => known.add(start.keys(rest), key.form),
                    }
                }
            }
            rest => known.add(Start::default().keys(rest), key.form),
        }
    }
    known
}

/// A variable and the steps that it means, as they grow.
#[derive(Clone, Default)]
struct Start {
    variable: Vec<String>,
    steps: Vec<Step>,
}

impl Start {
    fn key(mut self, key: &str) -> Self {
        self.variable.push(capitals(key));
        self.steps.push(Step::Key(key.to_owned()));
        self
    }

    fn keys(self, keys: &[&str]) -> Self {
        keys.iter().fold(self, |start, key| start.key(key))
    }

    fn named(mut self, name: &str) -> Self {
        self.variable.push(capitals(name));
        self.steps.push(Step::Named(name.to_owned()));
        self
    }
}

/// The variables that mean something, and what.
#[derive(Debug, Default)]
struct Known(BTreeMap<String, (Vec<Step>, Form)>);

impl Known {
    fn add(&mut self, Start { variable, steps }: Start, form: Form) {
        self.0.insert(format!("{PREFIX}{}", variable.join("__")), (steps, form));
    }

    /// `..__SECRETS__A__FIELD`, and for the value also `..__SECRETS__A` alone.
    fn add_secret(&mut self, start: Start, field: &str) {
        let full = start.clone().key(field);
        if field == "value" {
            self.add(Start { variable: start.variable, steps: full.steps.clone() }, Form::Text);
        }
        self.add(full, Form::Text);
    }
}

/// Keys that the schema cannot list: those of a scheme, and the secrets of a source whose file
/// names none. Where it names some, an unknown one is a slip.
fn open_ended(file: &Table<'_>, variable: &str) -> Option<(Vec<Step>, Form)> {
    for (name, source) in names(file, "source") {
        let start = format!("{PREFIX}SOURCE__{}__", capitals(name));
        let Some(rest) = variable.strip_prefix(&start) else { continue };
        let mut steps = vec![Step::Key("source".to_owned()), Step::Named(name.to_owned())];
        if let Some(rest) = rest.strip_prefix("SCHEME__") {
            steps.push(Step::Key("scheme".to_owned()));
            steps.extend(rest.split("__").map(|part| Step::Key(part.to_ascii_lowercase())));
            return Some((steps, Form::Table));
        }
        let rest = rest.strip_prefix("SECRETS__")?;
        if source.contains_key("secrets") {
            return None;
        }
        let (secret, field) = rest.split_once("__").unwrap_or((rest, "VALUE"));
        let field = field.to_ascii_lowercase();
        let known = ["key_id", "not_before", "not_after"];
        if !known.contains(&field.as_str()) && !ORIGINS.contains(&field.as_str()) {
            return None;
        }
        steps.push(Step::Key("secrets".to_owned()));
        steps.push(Step::Named(secret.to_ascii_lowercase().replace('_', "-")));
        steps.push(Step::Key(field));
        return Some((steps, Form::Text));
    }
    None
}

/// The variables that secrets are read from, which may be called anything.
fn named_by_secrets<'t>(file: &'t Table<'_>) -> BTreeSet<&'t str> {
    let of_secrets =
        names(file, "source").flat_map(|(_, source)| names(source, "secrets")).map(|(_, of)| of);
    let of_tokens = names(file, "source").flat_map(|(_, source)| {
        TOKENS.into_iter().filter_map(|key| source.get(key)?.get_ref().as_table())
    });
    of_secrets.chain(of_tokens).filter_map(|table| table.get("env")?.get_ref().as_str()).collect()
}

/// The variable's text as TOML. What does not fit its form stays text, which the reader refuses.
fn toml_value(form: Form, text: &str) -> String {
    let literal = match form {
        Form::Count(..) => text.parse::<u64>().is_ok(),
        Form::Rule => text.trim_start().starts_with('['),
        Form::Texts if !text.trim_start().starts_with('[') => {
            let items: Vec<String> = text.split(',').map(|item| quoted(item.trim())).collect();
            return format!("[{}]", items.join(", "));
        }
        Form::Texts | Form::Table | Form::Truth => true,
        Form::Text | Form::Moment | Form::Choice(_) | Form::Span(..) | Form::Size(..) => false,
    };
    // A literal of several lines would break the rule of one line a variable.
    if literal && !text.contains(['\n', '\r']) && DeValue::parse(text).is_ok() {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// A basic string of TOML on one line.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            _ if character.is_control() => {
                // Writing to a String cannot fail.
                _ = write!(quoted, "\\u{:04X}", u32::from(character));
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// Puts a value at the end of the steps, making tables on the way where the file has none.
fn lay<'t>(table: &mut Table<'t>, steps: &[Step], place: Range<usize>, value: Value<'t>) {
    let Some((Step::Key(key), rest)) = steps.split_first() else { return };
    let spanned_key = Spanned::new(place.clone(), key.clone().into());
    if rest.is_empty() {
        if ORIGINS.contains(&key.as_str()) {
            for origin in ORIGINS {
                table.remove(origin);
            }
        }
        // Removed first, or else the file's key would keep its place.
        table.remove(key.as_str());
        table.insert(spanned_key, value);
        return;
    }
    if !table.contains_key(key.as_str()) {
        let empty = match rest[0] {
            Step::Key(_) => DeValue::Table(Table::new()),
            Step::Named(_) => DeValue::Array(DeArray::new()),
        };
        table.insert(spanned_key, Spanned::new(place.clone(), empty));
    }
    // A value of another type in the file stays, and is reported where it stands.
    match (table.get_mut(key.as_str()).map(Spanned::get_mut), rest) {
        (Some(DeValue::Table(inner)), [Step::Key(_), ..]) => lay(inner, rest, place, value),
        (Some(DeValue::Array(list)), [Step::Named(name), rest @ ..]) => {
            let named = |item: &Value<'_>| {
                let item = item.get_ref().get("name");
                item.and_then(|item| item.get_ref().as_str()) == Some(name)
            };
            if !list.iter().any(named) {
                let mut item = Table::new();
                let name = DeValue::String(name.clone().into());
                item.insert(
                    Spanned::new(place.clone(), "name".into()),
                    Spanned::new(place.clone(), name),
                );
                list.push(Spanned::new(place.clone(), DeValue::Table(item)));
            }
            if let Some(DeValue::Table(inner)) =
                list.iter_mut().find(|item| named(item)).map(Spanned::get_mut)
            {
                lay(inner, rest, place, value);
            }
        }
        _ => {}
    }
}
