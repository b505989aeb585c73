//! Secrets: the right one, written or read in another way, or somebody else's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::{Case, Cause, Guess, Layer, Others};
use crate::verify::{KeyEncoding, NamedSecret, SecretText, jwt};

const ENCODINGS: [(KeyEncoding, &str); 5] = [
    (KeyEncoding::Utf8, "the text itself"),
    (KeyEncoding::Base64, "base64"),
    (KeyEncoding::Hex, "hexadecimal"),
    (KeyEncoding::Whsec, "base64 behind `whsec_`"),
    (KeyEncoding::WhsecRaw, "text behind `whsec_`"),
];

/// The case with its secrets in every other form in which they may have been meant.
pub(super) fn guesses(case: &Case) -> Vec<Guess> {
    let mut guesses = Vec::new();
    for (what, cure, change) in FORMS {
        let mut other = case.clone();
        let mut changed = false;
        for secret in &mut other.secrets {
            let text = secret.value.expose_secret();
            if let Some(form) = change(text).filter(|form| form != text) {
                secret.value = SecretText::new(form);
                changed = true;
            }
        }
        if changed {
            guesses.push((Cause::new("secret_form", Layer::Secret, *what, *cure), other));
        }
    }
    for (encoding, name) in ENCODINGS {
        if encoding != case.scheme.key_encoding {
            let mut other = case.clone();
            other.scheme.key_encoding = encoding;
            let what = format!("the key is {name}, which is not how the scheme reads a secret");
            let cure = "give the secret in the form that the sender's documentation shows, or set \
                        key_encoding in [source.scheme]";
            guesses.push((Cause::new("secret_encoding", Layer::Secret, what, cure), other));
        }
    }
    guesses.extend(key_id(case));
    if !case.validities.is_empty() {
        let what = "the secret that signed it does not count at that time";
        let cure = "look at its not_before and not_after, and at when the request arrived";
        let told = Cause::new("secret_not_valid", Layer::Secret, what, cure);
        guesses.push((told, Case { validities: Vec::new(), ..case.clone() }));
    }
    guesses
}

/// Another form of a secret's text.
type Form = fn(&str) -> Option<String>;

/// What happened to the text, the cure, and how to undo it.
const FORMS: &[(&str, &str, Form)] = &[
    ("the secret has white space around it", "remove it; `printf %s` writes no line end", |text| {
        Some(text.trim().to_owned())
    }),
    ("the secret has quotes around it", "remove the quotes", |text| {
        let text = text.trim();
        let inner = |quote| text.strip_prefix(quote)?.strip_suffix(quote);
        inner('"').or_else(|| inner('\'')).map(str::to_owned)
    }),
    (
        "the secret is one base64 too deep, as in a Kubernetes manifest",
        "decode it once before it is given here",
        |text| {
            let bytes = STANDARD_NO_PAD.decode(text.trim().trim_end_matches('=')).ok()?;
            Some(String::from_utf8(bytes).ok()?.trim_end().to_owned())
        },
    ),
    ("the secret lacks its prefix `whsec_`", "give it whole, as the sender shows it", |text| {
        (!text.starts_with("whsec_")).then(|| format!("whsec_{text}"))
    }),
    ("the prefix of the secret is none of the key", "leave the part up to `_` out", |text| {
        text.split_once('_').map(|(_, rest)| rest.to_owned())
    }),
    (
        "the secret is base64url where base64 is meant",
        "write `+` for `-` and `/` for `_`",
        |text| {
            let (prefix, rest) = text.split_at(text.strip_prefix("whsec_").map_or(0, |_| 6));
            Some(format!("{prefix}{}", rest.replace('-', "+").replace('_', "/")))
        },
    ),
    ("the secret should be in small letters", "copy it again from the sender", |text| {
        Some(text.to_ascii_lowercase())
    }),
    ("the secret should be in capitals", "copy it again from the sender", |text| {
        Some(text.to_ascii_uppercase())
    }),
    ("the secret is percent-encoded, as in a URL", "decode it before it is given here", |text| {
        percent_decoded(text)
    }),
];

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// The key that the token itself names.
fn key_id(case: &Case) -> Option<Guess> {
    let spec = case.scheme.jwt.as_ref()?;
    let name = spec.key_id.as_deref()?;
    let prefix = case.scheme.prefix.as_deref().unwrap_or_default();
    let value = case.headers.get(&case.scheme.header)?;
    let claims = jwt::claims_of(value.as_bytes(), prefix.as_bytes())?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    let named = claims.get(name)?.as_str()?;
    let mut other = case.clone();
    other.secrets.iter_mut().for_each(|secret| secret.key_id = Some(named.to_owned()));
    let what = format!("the token names the key {named:?}, and the secret is known as another");
    let cure = format!("set key_id (--key-id) to {named:?}");
    Some((Cause::new("key_id", Layer::Secret, what, cure), other))
}

/// The case with the secrets of others.
pub(super) fn of_others(case: &Case, others: &[Others]) -> Vec<Guess> {
    let mut guesses = Vec::new();
    for of in others {
        for secret in &of.secrets {
            let mut other = case.clone();
            let key_id = case.secrets.first().and_then(|secret| secret.key_id.clone());
            other.secrets = vec![NamedSecret { key_id, ..secret.clone() }];
            other.validities.clear();
            let what = format!("it is signed with the secret `{}` of {}", secret.name, of.name);
            let cure = "give this source that secret, or correct the URL at the sender";
            guesses.push((Cause::new("secret_of_another", Layer::Secret, what, cure), other));
        }
    }
    guesses
}
