//! Signatures that stand in the body, over some of its fields: Adyen's payment items, Mailgun.
//!
//! Only the named fields are covered, and whoever has seen one request can send it again with the
//! others changed. So the fields are read strictly: no key on the way to one may stand twice, and
//! what is there must be text, a number or a truth value. Nothing can be judged before the body
//! is there.

use std::borrow::Cow;

use ring::digest;
use serde_json::Value;
use serde_json::value::RawValue;

use super::compile::{only, param, wrong};
use super::encoding::{SIGNATURE_BUFFER, SignatureEncoding};
use super::json::{Paths, Slot, Values};
use super::keys::Secret;
use super::secret::SecretIndex;
use super::spec::{Format, SchemeSpec, Settings, SpecError, TimeSpec};
use super::time::{TimeUnit, Tolerance};
use crate::reject::Reject;

/// A compiled scheme of this family.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    encoding: SignatureEncoding,
    /// The list whose items are signed one by one.
    each: Option<(Box<str>, Paths, Slot)>,
    paths: Paths,
    signature: (Box<str>, Slot),
    parts: Vec<Part>,
    time: Option<(Box<str>, Slot, TimeUnit, Tolerance)>,
}

#[derive(Clone, Debug)]
enum Part {
    Literal(Box<[u8]>),
    /// A field; one that is not there is an empty text.
    Field(Slot),
}

impl Fields {
    /// `time` is the scheme's, within the source's tolerance.
    pub(super) fn new(
        spec: &SchemeSpec,
        time: Option<&TimeSpec>,
        settings: &Settings,
    ) -> Result<Self, SpecError> {
        let used = ["signature", "each", "signed", "signature_encoding", "time"];
        only(spec, &used, "means nothing where the signature stands in the body; remove it")?;
        if spec.format != Format::Plain {
            return wrong(
                "format",
                "means nothing where the signature stands in the body; remove it",
            );
        }
        let Some(encoding) = spec.signature_encoding else {
            return wrong("signature_encoding", "is missing; say \"hex\" or \"base64\"");
        };
        let mut paths = Paths::default();
        let mut add = |key: &str, text: &str| match text.strip_prefix("json:") {
            Some(path) => match paths.add(path) {
                Ok(slot) => Ok((Box::from(path), slot)),
                Err(message) => wrong(key, message),
            },
            None => wrong(key, format!("{text:?} is no field of the body; write \"json:PATH\"")),
        };
        let signature = add("signature", spec.signature.as_deref().unwrap_or_default())?;
        let mut parts = Vec::with_capacity(spec.signed.len());
        for (index, text) in spec.signed.iter().enumerate() {
            parts.push(match text.split_once(':') {
                Some(("literal", literal)) => Part::Literal(literal.as_bytes().into()),
                Some(("param", name)) => Part::Literal(param(settings, name)?.into()),
                _ => Part::Field(add(&format!("signed[{index}]"), text)?.1),
            });
        }
        if !parts.iter().any(|part| matches!(part, Part::Field(_))) {
            return wrong("signed", "has no field of the body; write \"json:PATH\"");
        }
        let time = match time {
            None => None,
            Some(time) => {
                let (path, slot) = add("time.from", &time.from)?;
                Some((path, slot, time.unit, Tolerance::new(time.past, time.future)))
            }
        };
        let each = match &spec.each {
            None => None,
            Some(path) => {
                let mut list = Paths::default();
                match list.add(path) {
                    Ok(slot) => Some((path.as_str().into(), list, slot)),
                    Err(message) => return wrong("each", message),
                }
            }
        };
        Ok(Self { encoding, each, paths, signature, parts, time })
    }

    /// Judges every item of the body.
    pub(super) fn check(
        &self,
        secrets: &[Secret],
        body: &[u8],
        now_ns: u64,
    ) -> Result<SecretIndex, Reject> {
        let mut by = None;
        for item in self.items(body)? {
            let values = self.paths.read_strictly(item).ok_or(Reject::SignatureMalformed)?;
            let secret = self.check_item(secrets, &values)?;
            by = by.or(Some(secret));
            if let Some((_, slot, unit, tolerance)) = &self.time {
                let text = text_of(&values, *slot)?;
                let at_ns = unit.parse(text.as_bytes()).ok_or(Reject::TimestampMalformed)?;
                tolerance.check(at_ns, now_ns)?;
            }
        }
        by.ok_or(Reject::SignatureMissing)
    }

    fn check_item(&self, secrets: &[Secret], values: &Values<'_>) -> Result<SecretIndex, Reject> {
        let text = match values.raw(self.signature.1) {
            None => return Err(Reject::SignatureMissing),
            Some(_) => values.string(self.signature.1).ok_or(Reject::SignatureMalformed)?,
        };
        let mut buffer = SIGNATURE_BUFFER;
        let count = self.encoding.decode(text.as_bytes(), &mut buffer);
        let signature = count.and_then(|count| buffer.get(..count));
        let signature = signature.ok_or(Reject::SignatureMalformed)?;
        let message = self.message(values)?;
        let made_it = |secret: &Secret| secret.key.verifies(&message, signature);
        secrets.iter().position(made_it).map(SecretIndex::new).ok_or(Reject::SignatureWrong)
    }

    /// SHA-256 of what is signed in all items.
    pub(super) fn digest(&self, body: &[u8]) -> Result<digest::Digest, Reject> {
        let mut sha256 = digest::Context::new(&digest::SHA256);
        for item in self.items(body)? {
            let values = self.paths.read_strictly(item).ok_or(Reject::SignatureMalformed)?;
            let message = self.message(&values)?;
            sha256.update(&(message.len() as u64).to_le_bytes());
            sha256.update(&message);
        }
        Ok(sha256.finish())
    }

    fn message(&self, values: &Values<'_>) -> Result<Vec<u8>, Reject> {
        let mut message = Vec::with_capacity(256);
        for part in &self.parts {
            match part {
                Part::Literal(text) => message.extend_from_slice(text),
                Part::Field(slot) => message.extend_from_slice(text_of(values, *slot)?.as_bytes()),
            }
        }
        Ok(message)
    }

    /// The items, each as it stands in the body, or the body itself.
    fn items<'b>(&self, body: &'b [u8]) -> Result<Vec<&'b [u8]>, Reject> {
        let Some((_, list, slot)) = &self.each else { return Ok(vec![body]) };
        let list = list.read_strictly(body).and_then(|values| values.raw(*slot));
        let list = list.ok_or(Reject::SignatureMissing)?;
        let items: Vec<&RawValue> =
            serde_json::from_str(list).or(Err(Reject::SignatureMalformed))?;
        Ok(items.into_iter().map(|item| item.get().as_bytes()).collect())
    }

    /// The body with the time and a signature put into each item, as its sender would send it.
    pub(super) fn signed(
        &self,
        body: &[u8],
        now_ns: u64,
        sign: impl Fn(&[u8]) -> Result<Vec<u8>, SpecError>,
    ) -> Result<Vec<u8>, SpecError> {
        let unfit = || SpecError::new("body", "does not have the shape that this sender signs");
        let mut whole: Value = serde_json::from_slice(body).map_err(|_| unfit())?;
        let list = match &self.each {
            None => std::slice::from_mut(&mut whole),
            Some((path, ..)) => {
                place(&mut whole, path).and_then(Value::as_array_mut).ok_or_else(unfit)?
            }
        };
        for item in list {
            if let Some((path, _, unit, _)) = &self.time {
                *place(item, path).ok_or_else(unfit)? = unit.write(now_ns).into();
            }
            let text = item.to_string();
            let values = self.paths.read_strictly(text.as_bytes()).ok_or_else(unfit)?;
            let message = self.message(&values).map_err(|_| unfit())?;
            let signature = self.encoding.encode(&sign(&message)?);
            *place(item, &self.signature.0).ok_or_else(unfit)? = signature.into();
        }
        Ok(whole.to_string().into_bytes())
    }
}

/// A field as it is signed.
fn text_of<'b>(values: &Values<'b>, slot: Slot) -> Result<Cow<'b, str>, Reject> {
    match values.raw(slot) {
        None => Ok(Cow::Borrowed("")),
        Some(raw) if raw.starts_with('"') => values.string(slot).ok_or(Reject::SignatureMalformed),
        Some(raw) if raw.starts_with(['{', '[', 'n']) => Err(Reject::SignatureMalformed),
        Some(raw) => Ok(Cow::Borrowed(raw)),
    }
}

/// The place of a path of names, made where it is not there.
fn place<'v>(value: &'v mut Value, path: &str) -> Option<&'v mut Value> {
    path.split('.').try_fold(value, |value, name| {
        if value.is_null() {
            *value = Value::Object(serde_json::Map::new());
        }
        Some(value.as_object_mut()?.entry(name).or_insert(Value::Null))
    })
}
