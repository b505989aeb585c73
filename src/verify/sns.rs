//! Amazon SNS: an RSA signature in the body, over named fields of it.
//!
//! The message names the certificate that its signature fits by a URL. Nothing is ever fetched:
//! a secret of the source is a certificate whose `key_id` is such a URL, and a message that names
//! another one, of a host that SNS has, cannot be verified now. A URL of any other host is no
//! message of SNS. The signature proves that SNS sent it and not for whom, so the topic is
//! compared as well.

use std::borrow::Cow;

use ring::digest;
use serde_json::Value;

use super::compile::{only, param, wrong};
use super::encoding::{SIGNATURE_BUFFER, SignatureEncoding};
use super::json::{Paths, Slot, Values};
use super::keys::Secret;
use super::secret::SecretIndex;
use super::spec::{Algorithm, SchemeSpec, Settings, SpecError};
use crate::reject::Reject;

/// The fields of a message, in the order in which they are signed.
const FIELDS: [(&str, Need); 8] = [
    ("Message", Need::Always),
    ("MessageId", Need::Always),
    ("Subject", Need::IfThere),
    ("SubscribeURL", Need::Confirming),
    ("Timestamp", Need::Always),
    ("Token", Need::Confirming),
    ("TopicArn", Need::Always),
    ("Type", Need::Always),
];

/// When a field is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Always,
    /// In notifications, if it is there.
    IfThere,
    /// In confirmations of a subscription or of its end.
    Confirming,
}

/// A compiled scheme of this family.
#[derive(Clone, Debug)]
pub(super) struct Sns {
    topic_arn: Box<str>,
    paths: Paths,
    fields: [Slot; FIELDS.len()],
    signature: Slot,
    version: Slot,
    cert_url: Slot,
    /// What `SignatureVersion` may say, in the order of the keys of a secret.
    versions: Vec<&'static str>,
}

impl Sns {
    pub(super) fn new(spec: &SchemeSpec, settings: &Settings) -> Result<Self, SpecError> {
        only(spec, &["other_algorithms"], "means nothing with format = \"sns\"; remove it")?;
        let algorithms = std::iter::once(&spec.algorithm).chain(&spec.other_algorithms);
        let version = |algorithm: &Algorithm| match algorithm {
            Algorithm::RsaPkcs1Sha256 => Ok("2"),
            Algorithm::RsaPkcs1Sha1 => Ok("1"),
            _ => wrong("algorithm", "signs no message of SNS; use rsa-pkcs1-sha256 or -sha1"),
        };
        let versions = algorithms.map(version).collect::<Result<_, _>>()?;
        let topic_arn = String::from_utf8_lossy(param(settings, "topic_arn")?).into();
        let mut paths = Paths::default();
        let mut slot = |name: &str| match paths.add_key(name) {
            Ok(slot) => Ok(slot),
            Err(message) => wrong("format", message),
        };
        let (signature, version) = (slot("Signature")?, slot("SignatureVersion")?);
        let cert_url = slot("SigningCertURL")?;
        let mut fields = [signature; FIELDS.len()];
        for (field, (name, _)) in fields.iter_mut().zip(FIELDS) {
            *field = slot(name)?;
        }
        Ok(Self { topic_arn, paths, fields, signature, version, cert_url, versions })
    }

    pub(super) fn check(&self, secrets: &[Secret], body: &[u8]) -> Result<SecretIndex, Reject> {
        let values = self.paths.read_strictly(body).ok_or(Reject::SignatureMalformed)?;
        let text = |slot| match values.raw(slot) {
            None => Err(Reject::SignatureMissing),
            Some(_) => values.string(slot).ok_or(Reject::SignatureMalformed),
        };
        let (signature, version) = (text(self.signature)?, text(self.version)?);
        let algorithm = self.versions.iter().position(|known| *known == version);
        let algorithm = algorithm.ok_or(Reject::SignatureMalformed)?;
        let cert_url = text(self.cert_url)?;
        if !is_cert_url(&cert_url) {
            return Err(Reject::SignatureMalformed);
        }
        let (message, topic_arn) = self.message(&values)?;
        if topic_arn != *self.topic_arn {
            return Err(Reject::SignatureWrong);
        }
        let mut buffer = SIGNATURE_BUFFER;
        let count = SignatureEncoding::Base64.decode(signature.as_bytes(), &mut buffer);
        let signature = count.and_then(|count| buffer.get(..count));
        let signature = signature.ok_or(Reject::SignatureMalformed)?;
        let mut known = false;
        for (index, secret) in secrets.iter().enumerate() {
            if secret.key_id.as_deref() != Some(&*cert_url) {
                continue;
            }
            known = true;
            if secret.key(algorithm).is_some_and(|key| key.verifies(&message, signature)) {
                return Ok(SecretIndex::new(index));
            }
        }
        // A certificate that SNS may have taken into use since the configuration was written.
        Err(if known { Reject::SignatureWrong } else { Reject::CannotVerify })
    }

    /// SHA-256 of what is signed.
    pub(super) fn digest(&self, body: &[u8]) -> Result<digest::Digest, Reject> {
        let values = self.paths.read_strictly(body).ok_or(Reject::SignatureMalformed)?;
        Ok(digest::digest(&digest::SHA256, &self.message(&values)?.0))
    }

    /// What is signed, and the topic.
    fn message<'b>(&self, values: &Values<'b>) -> Result<(Vec<u8>, Cow<'b, str>), Reject> {
        let fields = || FIELDS.iter().zip(self.fields);
        let string = |wanted: &str| {
            let (_, slot) = fields().find(|((name, _), _)| *name == wanted)?;
            values.string(slot)
        };
        let confirming = match string("Type").as_deref() {
            Some("Notification") => false,
            Some("SubscriptionConfirmation" | "UnsubscribeConfirmation") => true,
            _ => return Err(Reject::SignatureMalformed),
        };
        let mut message = Vec::with_capacity(1024);
        for ((name, need), slot) in fields() {
            let wanted = match need {
                Need::Always => true,
                Need::Confirming => confirming,
                Need::IfThere => !confirming && values.raw(slot).is_some_and(|raw| raw != "null"),
            };
            if wanted {
                let text = values.string(slot).ok_or(Reject::SignatureMalformed)?;
                for part in [name, "\n", &*text, "\n"] {
                    message.extend_from_slice(part.as_bytes());
                }
            }
        }
        Ok((message, string("TopicArn").ok_or(Reject::SignatureMalformed)?))
    }

    /// The body with everything that SNS adds, as it would send it.
    pub(super) fn signed(
        &self,
        body: &[u8],
        cert_url: &str,
        sign: impl Fn(&[u8]) -> Result<Vec<u8>, SpecError>,
    ) -> Result<Vec<u8>, SpecError> {
        let unfit = || SpecError::new("body", "is no message of SNS");
        let mut whole: Value = serde_json::from_slice(body).map_err(|_| unfit())?;
        let message = {
            let text = whole.to_string();
            let values = self.paths.read_strictly(text.as_bytes()).ok_or_else(unfit)?;
            self.message(&values).map_err(|_| unfit())?.0
        };
        let signature = SignatureEncoding::Base64.encode(&sign(&message)?);
        let version = self.versions.first().copied().unwrap_or_default();
        for (name, text) in [
            ("Signature", signature.as_str()),
            ("SignatureVersion", version),
            ("SigningCertURL", cert_url),
        ] {
            whole[name] = text.into();
        }
        Ok(whole.to_string().into_bytes())
    }
}

/// `https://sns.REGION.amazonaws.com/NAME.pem`, also of China, and nothing that only looks so.
pub(super) fn is_cert_url(url: &str) -> bool {
    path_at_sns(url).is_some_and(|path| {
        plain(path, b"-_.") && path.strip_suffix(".pem").is_some_and(|name| !name.is_empty())
    })
}

/// What stands behind `https://sns.REGION.amazonaws.com/`, or the same of the regions in China;
/// none for any other host, for a port, and for anything between scheme and host.
pub(crate) fn path_at_sns(url: &str) -> Option<&str> {
    let (host, path) = url.strip_prefix("https://sns.")?.split_once('/')?;
    let region = host.strip_suffix(".cn").unwrap_or(host).strip_suffix(".amazonaws.com")?;
    (region.len() >= 3 && plain(region, b"-")).then_some(path)
}

fn plain(text: &str, more: &[u8]) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_of_sns_have_certificates() {
        for good in [
            "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem",
            "https://sns.cn-north-1.amazonaws.com.cn/SimpleNotificationService-1.pem",
        ] {
            assert!(is_cert_url(good), "{good}");
        }
        for bad in [
            "",
            "http://sns.us-east-1.amazonaws.com/a.pem",
            "https://sns.us-east-1.amazonaws.com.evil.example/a.pem",
            "https://sns.evil.example/.amazonaws.com/a.pem",
            "https://sns.us-east-1.amazonaws.com@evil.example/a.pem",
            "https://user@sns.us-east-1.amazonaws.com/a.pem",
            "https://sns.us-east-1.amazonaws.com:8443/a.pem",
            "https://evil.s3.amazonaws.com/a.pem",
            "https://sns.a.b.amazonaws.com/a.pem",
            "https://sns..amazonaws.com/a.pem",
            "https://sns.us-east-1.amazonaws.com/a.pem?x=.pem",
            "https://sns.us-east-1.amazonaws.com/a.pem#.pem",
            "https://sns.us-east-1.amazonaws.com/../a.pem/../x",
            "https://sns.us-east-1.amazonaws.com/%2e.pem",
            "https://sns.us-east-1.amazonaws.com/.pem",
            "https://SNS.us-east-1.amazonaws.com/a.pem",
        ] {
            assert!(!is_cert_url(bad), "{bad}");
        }
    }
}
