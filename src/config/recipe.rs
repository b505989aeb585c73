//! What a source's requests look like: by a preset, or by a scheme and rules of its own.

use serde::de::DeserializeOwned;
use toml::de::ValueDeserializer;

use super::error::Problem;
use super::near::nearest;
use super::secret;
use super::section::Section;
use super::source::words;
use crate::handshake::{Confirm, Expected, HandshakeSpec, Terms};
use crate::identify::{IdentitySpec, RuleText};
use crate::limits;
use crate::verify::{self, Answers, Profile, SchemeSpec, SecretText};

/// What a source without a preset takes.
const CONTENT_TYPE: &str = "application/json";

/// What a preset says, or the source itself in its place.
pub(super) struct Recipe {
    pub(super) scheme: SchemeSpec,
    pub(super) identity: IdentitySpec,
    pub(super) content_types: Vec<String>,
    pub(super) secret_bytes_min: usize,
    pub(super) preset: Option<&'static Profile>,
}

/// Finds the recipe of a source; exactly one of `preset` and `scheme` names it.
pub(super) fn read(section: &Section<'_>) -> Option<Recipe> {
    let presets = || verify::presets().map(|profile| profile.name.as_str());
    match (section.has("preset"), section.has("scheme")) {
        (true, true) => {
            section.refuse(
                "preset",
                "and `source.scheme` exclude each other",
                "keep the preset, or the scheme where no preset fits",
            );
            None
        }
        (false, false) => {
            section.missing(
                "preset",
                format!(
                    "an unverified source is never started: name one of {}, or write a \
                         [source.scheme]",
                    words(presets())
                ),
            );
            None
        }
        (true, false) => {
            let name = section.text("preset")?;
            let Some(profile) = verify::preset(name) else {
                let cure = match nearest(name, presets()) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("name one of {}, or write a [source.scheme]", words(presets())),
                };
                section.refuse("preset", "names no preset", cure);
                return None;
            };
            Some(Recipe {
                scheme: profile.scheme.clone(),
                identity: profile.identity.clone(),
                content_types: profile.content_types.clone(),
                secret_bytes_min: profile.secret_bytes_min,
                preset: Some(profile),
            })
        }
        (false, true) => Some(Recipe {
            scheme: table(section, "scheme")?,
            identity: IdentitySpec::default(),
            content_types: vec![CONTENT_TYPE.to_owned()],
            secret_bytes_min: limits::SECRET_BYTES_MIN,
            preset: None,
        }),
    }
}

/// What the sender is answered: as the source says, else its preset, else as most senders take.
pub(super) fn answers(section: &Section<'_>, preset: Option<&Profile>) -> Option<Answers> {
    if section.has("answers") {
        return table(section, "answers");
    }
    Some(preset.map_or_else(Answers::default, |profile| profile.answers.clone()))
}

/// The handshakes of the source, else of its preset, and what the source says about them.
pub(super) fn handshakes(
    section: &Section<'_>,
    recipe: &Recipe,
) -> Option<(Vec<HandshakeSpec>, Terms)> {
    let token = if section.has("verify_token") {
        Some(secret::read_token(section, "source.verify_token", "verify_token")?)
    } else {
        None
    };
    let list = |key| -> Vec<String> {
        section.texts(key).unwrap_or_default().into_iter().map(str::to_owned).collect()
    };
    let (topics, origins) = (list("topics"), list("origins"));
    let specs = if section.has("handshakes") {
        table(section, "handshakes")?
    } else {
        recipe.preset.map_or_else(Vec::new, |profile| profile.handshakes.clone())
    };
    let token = token.as_ref().map(SecretText::expose_secret);
    let confirm = match section.choice("confirm")? {
        "auto" => Confirm::Auto,
        _ => Confirm::Log,
    };
    let mut terms = Terms::new(token, topics, origins);
    terms.confirm = confirm;
    Some((specs, terms))
}

/// What must stand in the source's requests.
pub(super) fn expected(section: &Section<'_>) -> Option<Expected> {
    if !section.has("expect") {
        return Some(Expected::default());
    }
    let spec = table(section, "expect")?;
    let compiled = Expected::new(&spec);
    compiled
        .map_err(|error| section.refuse("expect", &error.message, "write the place as it is"))
        .ok()
}

/// A table in a form of its own; serde's error is shown at the place inside it.
fn table<T: DeserializeOwned>(section: &Section<'_>, key: &str) -> Option<T> {
    let value = section.value(key)?;
    let error = match T::deserialize(ValueDeserializer::from(value.clone())) {
        Ok(table) => return Some(table),
        Err(error) => error,
    };
    let place = error.span().unwrap_or_else(|| section.place(key));
    // "unknown field `x`, expected one of `a`, `b`": the known words stand between the ticks.
    let (what, known) = error.message().split_once(", expected").unwrap_or((error.message(), ""));
    let mistyped = what.split('`').nth(1).unwrap_or_default();
    let cure = match nearest(mistyped, known.split('`').skip(1).step_by(2)) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => format!("see the README for the keys of `{key}`"),
        None => format!("expected{known}"),
    };
    let title = format!("`{}` does not fit: {what}", section.path_of(key));
    section.reading.problems.push(Problem::new(title, cure).at(place, ""));
    None
}

/// The preset's rules, each replaced where the source has its own, and the tenant if it is fixed.
pub(super) fn identity(
    section: &Section<'_>,
    mut spec: IdentitySpec,
) -> (Option<String>, IdentitySpec) {
    if section.has("event_id") {
        // What the preset knows of its own id says nothing about another.
        spec.event_key = None;
    }
    for (key, rule) in [
        ("event_id", &mut spec.event_id),
        ("event_type", &mut spec.event_type),
        ("event_time", &mut spec.event_time),
    ] {
        if section.has(key) {
            *rule = rule_text(section, key);
        }
    }
    let fixed = section.peek("tenant").filter(|text| !text.contains(':'));
    if let Some(text) = fixed
        && !(1..=limits::IDENTITY_BYTES_MAX).contains(&text.len())
    {
        let cure = format!("write 1 to {} bytes of text", limits::IDENTITY_BYTES_MAX);
        section.refuse("tenant", "is no name of a tenant", cure);
    }
    if fixed.is_some() {
        spec.tenant = None;
    } else if section.has("tenant") {
        spec.tenant = rule_text(section, "tenant");
    }
    (fixed.map(str::to_owned), spec)
}

/// A rule, or a list of rules whose findings are joined.
pub(super) fn rule_text(section: &Section<'_>, key: &str) -> Option<RuleText> {
    if section.value(key)?.get_ref().is_array() {
        let parts = section.texts(key)?;
        return Some(RuleText::Joined(parts.into_iter().map(str::to_owned).collect()));
    }
    section.text(key).map(|rule| RuleText::One(rule.to_owned()))
}

/// The media types of the source, else those of the recipe.
pub(super) fn content_types(section: &Section<'_>, default: Vec<String>) -> Vec<String> {
    let Some(written) = section.texts("content_types") else { return default };
    let plain = |text: &&str| {
        text.split_once('/').is_some_and(|(kind, subtype)| !kind.is_empty() && !subtype.is_empty())
            && text.bytes().all(|byte| byte.is_ascii_graphic() && !b";,\"".contains(&byte))
    };
    if written.is_empty() || !written.iter().all(plain) {
        section.refuse(
            "content_types",
            "is no list of media types",
            "write them without parameters: [\"application/json\"]",
        );
    }
    written.into_iter().map(str::to_ascii_lowercase).collect()
}
