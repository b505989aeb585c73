//! The families of `tests/keys/families.toml`, each with a request that it signed.
//!
//! A module of whoever goes through all families and has the names of `forebay::verify` in its
//! scope: a test inside of the crate, and benches outside of it.

use std::path::Path;

use http::HeaderMap;
use serde::Deserialize;

use super::{
    DigestOf, Head, NamedSecret, Profile, Reject, SchemeSpec, SecretIndex, SecretText, Settings,
    SignInput, SignedRequest, Signer, Verifier,
};

/// When the requests are signed and judged.
pub(crate) const NOW: u64 = 1_700_000_000 * 1_000_000_000;
/// The secret that all families share who have no key pair.
pub(crate) const SECRET: &str = "name:a-secret-of-thirty-two-characters";
/// Where the requests go.
pub(crate) const TARGET: &str = "/in?b=2&a=1";

/// What every family that reads JSON finds its fields in.
const JSON: &str = r#"{"id":"id-1","type":"x.y",
"items":[{"id":"1","amount":{"value":10}},{"id":"2"}],
"Type":"Notification","Message":"{\"a\":1}","MessageId":"m",
"Timestamp":"2026-11-21T18:00:00Z","TopicArn":"arn:mine"PAD}"#;
const FORM: &str = "To=%2B1415&From=%2B1800&Body=hello+world&Body=again";

#[derive(Deserialize)]
struct File {
    family: Vec<Family>,
}

/// One scheme and where its keys are.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Family {
    pub(crate) name: String,
    pub(crate) scheme: SchemeSpec,
    /// Its bodies are forms, and not JSON.
    #[serde(default)]
    form: bool,
    /// Its requests have no body.
    #[serde(default)]
    empty: bool,
    key_id: Option<String>,
    pub(crate) public: Option<String>,
    private: Option<String>,
}

/// A family with a request that it signed.
pub(crate) struct Case {
    pub(crate) family: Family,
    pub(crate) verifier: Verifier,
    pub(crate) request: SignedRequest,
}

/// All of them, in the order of the file.
pub(crate) fn families() -> Vec<Family> {
    let text = std::fs::read_to_string(folder().join("families.toml")).expect("it is there");
    toml::from_str::<File>(&text).expect("the families read").family
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys")
}

/// A source that says whatever any of the families asks for.
pub(crate) fn settings() -> Settings {
    let text = |text: &str| text.to_owned();
    let params = [("account", "account-1"), ("topic_arn", "arn:mine")];
    Settings {
        public_url: Some(text("https://hooks.example")),
        params: params.map(|(name, value)| (text(name), text(value))).into(),
        ..Settings::default()
    }
}

impl Family {
    /// What the receiver holds: the public key, or this text.
    pub(crate) fn secret(&self, text: &str) -> NamedSecret {
        self.named(self.public.as_ref(), text)
    }

    fn named(&self, file: Option<&String>, text: &str) -> NamedSecret {
        let text = match file {
            Some(file) => std::fs::read_to_string(folder().join(file)).expect("it is there"),
            None => text.to_owned(),
        };
        NamedSecret { name: "s".into(), value: SecretText::new(text), key_id: self.key_id.clone() }
    }

    /// A preset of this family.
    pub(crate) fn profile(&self) -> Profile {
        let media = if self.form { "application/x-www-form-urlencoded" } else { "text/plain" };
        let head = format!("name = \"own\"\ntitle = \"\"\ncontent_types = [\"{media}\"]\n");
        let text = format!("{head}scheme = {{ algorithm = \"none\" }}\nidentity = {{}}");
        let mut profile: Profile = toml::from_str(&text).expect("a profile");
        profile.scheme = self.scheme.clone();
        profile
    }

    /// A body of about this length, or the shortest that has what the family signs.
    pub(crate) fn body(&self, bytes: usize) -> Vec<u8> {
        if self.empty {
            return Vec::new();
        }
        if self.form {
            let pad = "&Pad=some+more+text".repeat(bytes.saturating_sub(FORM.len()) / 19);
            return format!("{FORM}{pad}").into_bytes();
        }
        let pad = "x".repeat(bytes.saturating_sub(JSON.len()));
        JSON.replace("PAD", &format!(",\"pad\":\"{pad}\"")).into_bytes()
    }
}

impl Case {
    /// A case with a body of about this length.
    pub(crate) fn with_body(family: Family, bytes: usize) -> Self {
        let (name, profile) = (&family.name, family.profile());
        let verifier = Verifier::new(&profile.scheme, vec![family.secret(SECRET)], &settings())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let private = family.named(family.private.as_ref(), SECRET);
        let signer = Signer::for_source(&profile, private, &settings())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let body = &family.body(bytes)[..];
        let input = SignInput { id: "id-1", now_ns: NOW, event_type: "x.y", target: TARGET, body };
        let request = signer.request(&input).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { family, verifier, request }
    }

    /// The headers of the request.
    pub(crate) fn headers(&self) -> HeaderMap {
        self.request.headers.iter().cloned().collect()
    }

    /// What a receiver says of the request, with every digest that it may want of it.
    pub(crate) fn judged_by(&self, verifier: &Verifier) -> Result<usize, Reject> {
        let headers = self.headers();
        let head = Head { target: &self.request.target, ..(&headers).into() };
        let claim = verifier.claim(&head, NOW)?;
        let secret = verifier.check(&claim, &self.request.body)?;
        verifier.digest(DigestOf::Signed, &claim, &self.request.body)?;
        verifier.digest(DigestOf::SignedButTime, &claim, &self.request.body)?;
        Ok(SecretIndex::as_usize(secret))
    }
}
