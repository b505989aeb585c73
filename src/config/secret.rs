//! `secrets`: from wherever they are kept into [`NamedSecret`]s that never print themselves.
//!
//! Each secret has exactly one origin. One that cannot be read, or that is too short to be one,
//! stops the start: a source with half of its secrets refuses half of its events.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::env::ORIGINS;
use super::section::{Reading, Section, refuse_twins};
use crate::limits;
use crate::verify::{Algorithm, NamedSecret, SchemeSpec, SecretText, Validity};

/// The largest file that a secret is read from: keys are small, and a mistaken path may not be.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file itself.
    Value,
    /// A variable of the environment.
    Env(String),
    /// A file.
    File(PathBuf),
}

/// What may be told about a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretConfig {
    /// The name that is kept with every event that it verified.
    pub name: String,
    /// Where it comes from.
    pub origin: Origin,
    /// The public name that the sender gives it.
    pub key_id: Option<String>,
    /// When it counts.
    pub validity: Validity,
}

/// Reads the secrets of a source, each long enough for the scheme that uses it.
pub(super) fn read_all(
    source: &Section<'_>,
    scheme: Option<&SchemeSpec>,
    bytes_min: usize,
) -> Option<(Vec<SecretConfig>, Vec<NamedSecret>)> {
    const CURE: &str = "write secrets = [{ name = \"main\", env = \"MY_SECRET\" }]";
    if scheme.is_some_and(|scheme| scheme.algorithm == Algorithm::None) && !source.has("secrets") {
        return Some((Vec::new(), Vec::new()));
    }
    let values = source.tables("secrets", CURE);
    if values.is_empty() {
        if source.value("secrets").is_none_or(|list| list.get_ref().is_array()) {
            source.missing("secrets", format!("nothing could be verified without one: {CURE}"));
        }
        return None;
    }
    if values.len() > limits::SECRETS_MAX {
        let cure = format!("at most {} secrets; remove those that expired", limits::SECRETS_MAX);
        source.refuse("secrets", "holds too many", cure);
        return None;
    }
    let sections: Vec<Section<'_>> = values
        .iter()
        .filter_map(|value| Section::open(source.reading, "source.secrets", value))
        .collect();
    refuse_twins(&sections, "name", "rename one of the two");
    let secrets: Vec<Option<_>> =
        sections.iter().map(|section| read(section, scheme, bytes_min)).collect();
    let secrets: Option<Vec<_>> = secrets.into_iter().collect();
    Some(secrets?.into_iter().unzip())
}

fn read(
    section: &Section<'_>,
    scheme: Option<&SchemeSpec>,
    bytes_min: usize,
) -> Option<(SecretConfig, NamedSecret)> {
    let name = section.name();
    let key_id = section.text("key_id").map(str::to_owned);
    let (key, origin, text) = origin(section)?;
    if text.trim() != text {
        section.refuse(
            key,
            "holds a secret with white space at its start or end",
            "remove the white space; it is most likely left over from copying",
        );
        return None;
    }
    let value = SecretText::new(text);
    check_length(section, key, &value, (scheme, bytes_min));
    let name = name?.to_owned();
    let secret = NamedSecret { name: name.clone(), value, key_id: key_id.clone() };
    let validity = validity(section)?;
    Some((SecretConfig { name, origin, key_id, validity }, secret))
}

/// From when until when the secret counts.
fn validity(section: &Section<'_>) -> Option<Validity> {
    let moment =
        |key, otherwise| if section.has(key) { section.moment(key) } else { Some(otherwise) };
    let Validity { from_ns, until_ns } = Validity::ALWAYS;
    let validity = Validity {
        from_ns: moment("not_before", from_ns)?,
        until_ns: moment("not_after", until_ns)?,
    };
    if validity.from_ns >= validity.until_ns {
        section.refuse("not_after", "is not after `not_before`", "swap the two, or leave one out");
        return None;
    }
    Some(validity)
}

/// What counts is the key that the text stands for, once the scheme is known.
pub(super) fn check_length(
    section: &Section<'_>,
    key: &str,
    secret: &SecretText,
    (scheme, bytes_min): (Option<&SchemeSpec>, usize),
) {
    let Some(bytes) = scheme.map(|scheme| scheme.secret_bytes(secret)) else { return };
    match bytes {
        Ok(bytes) if bytes >= bytes_min => {}
        Ok(bytes) => section.refuse(
            key,
            "holds too short a secret",
            format!(
                "its key has {bytes} bytes and needs {bytes_min}: a short one can be guessed; make \
                 one with `openssl rand -hex 32`, or copy it again from the sender"
            ),
        ),
        Err(message) => {
            let (what, cure) = parted(&message);
            section.refuse(key, &format!("holds a secret that {what}"), cure);
        }
    }
}

/// A message as `verify` words it: what is wrong, and behind a semicolon the cure.
pub(super) fn parted(message: &str) -> (&str, &str) {
    message.split_once("; ").unwrap_or((message, "see the README for what this key takes"))
}

/// A secret of a source that stands under a key of its own, and is no key of signatures.
pub(super) fn read_token(
    source: &Section<'_>,
    path: &'static str,
    key: &str,
) -> Option<SecretText> {
    let section = Section::open(source.reading, path, source.value(key)?)?;
    let (key, _, text) = origin(&section)?;
    let plain = text.len() >= limits::SECRET_BYTES_MIN && text.trim() == text;
    if !plain {
        let cure = format!(
            "write at least {} bytes that cannot be guessed, such as `openssl rand -hex 16` makes",
            limits::SECRET_BYTES_MIN
        );
        section.refuse(key, "holds too short a token, or white space around it", cure);
    }
    plain.then(|| SecretText::new(text))
}

/// A secret that a destination has given, of whatever length: a password, a token. None within if
/// the key is not there.
#[cfg(any(
    feature = "sink-kafka",
    feature = "sink-nats",
    feature = "sink-object",
    feature = "sink-postgres",
    feature = "sink-pubsub",
    feature = "sink-rabbitmq",
    feature = "sink-redis",
    feature = "sink-sqs"
))]
#[expect(clippy::option_option, reason = "none: a reported mistake; none within: no such key")]
pub(super) fn read_credential(
    section: &Section<'_>,
    path: &'static str,
    key: &str,
) -> Option<Option<SecretText>> {
    let Some(value) = section.value(key) else { return Some(None) };
    let (_, _, text) = origin(&Section::open(section.reading, path, value)?)?;
    Some(Some(SecretText::new(text)))
}

/// The one key that says where the secret is, and what stands there.
pub(super) fn origin(section: &Section<'_>) -> Option<(&'static str, Origin, String)> {
    let keys: Vec<&'static str> = ORIGINS.into_iter().filter(|key| section.has(key)).collect();
    let key = match keys.as_slice() {
        [key] => *key,
        [] => {
            section.missing("env", "say where the secret is: `env`, `file` or `value`");
            return None;
        }
        [_, second, ..] => {
            section.refuse(
                second,
                "is a second origin of one secret",
                "keep one of `env`, `file` and `value`",
            );
            return None;
        }
    };
    let text = section.text(key)?;
    let place = section.place(key);
    let (origin, secret) = match key {
        "env" => (Origin::Env(text.to_owned()), from_environment(section, text)?),
        "file" => {
            let path = section.reading.path(text, &place);
            let secret = from_file(section, &path)?;
            (Origin::File(path), secret)
        }
        _ => match section.reading.variable_at(&place) {
            Some(variable) => (Origin::Env(variable.to_owned()), text.to_owned()),
            None => (Origin::Value, text.to_owned()),
        },
    };
    Some((key, origin, secret))
}

fn from_environment(section: &Section<'_>, variable: &str) -> Option<String> {
    let Reading { environment, .. } = section.reading;
    let secret = environment.get(variable).filter(|secret| !secret.is_empty());
    if secret.is_none() {
        let what = format!("names the variable `{variable}`, which is not set");
        section.refuse("env", &what, format!("set {variable} in forebay's environment"));
    }
    secret.cloned()
}

fn from_file(section: &Section<'_>, path: &Path) -> Option<String> {
    let mut text = String::new();
    let read = fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    let problem = match read {
        Err(error) => error.to_string(),
        Ok(_) if text.len() as u64 > FILE_BYTES_MAX => "it is far too large".to_owned(),
        Ok(_) => {
            // Editors and `echo` end files with a line end that the sender does not know.
            let text = text.strip_suffix('\n').unwrap_or(&text);
            return Some(text.strip_suffix('\r').unwrap_or(text).to_owned());
        }
    };
    let what = format!("names `{}`, which cannot be read: {problem}", path.display());
    section.refuse("file", &what, "make it a text file that forebay's user may read");
    None
}
