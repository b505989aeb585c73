//! The vectors of `tests/vectors`: requests, each with the verdict of a correct receiver; and
//! `tests/unseen.toml`, what a change of one cannot show.
//!
//! A module of whoever judges them and has the names of `forebay::verify` in its scope: tests
//! inside of the crate, and the tests of the whole server outside of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Format, NamedSecret, Profile, SchemeSpec, SecretText, Settings, SpecError, Verifier, preset,
};

/// The fewest vectors that there may be: less would mean that some were lost.
const VECTORS_MIN: usize = 229;
/// For vectors without a time of their own.
const ANY_TIME_S: u64 = 1_700_000_000;
/// For vectors whose URL is not signed.
const ANY_HOST: &str = "https://hooks.example";

/// What a message of SNS has to say for itself. `UnsubscribeURL` is not among it.
const SNS_FIELDS: [&str; 11] = [
    "Message",
    "MessageId",
    "Signature",
    "SignatureVersion",
    "SigningCertURL",
    "Subject",
    "SubscribeURL",
    "Timestamp",
    "Token",
    "TopicArn",
    "Type",
];

/// Senders whose schemes are one: under one key, what one has signed the other accepts.
const KIN: [&[&str]; 4] = [
    &["svix", "standard-webhooks"],
    &["github", "meta"],
    &["twilio", "signalwire-compatibility"],
    &["intercom", "youtube-websub"],
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    vector: Vec<Vector>,
}

/// One request and what is to be said of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Vector {
    pub(crate) name: String,
    #[serde(rename = "source")]
    _source: String,
    #[serde(rename = "kind")]
    _kind: String,
    pub(crate) why: String,
    #[serde(rename = "policy")]
    _policy: Option<String>,
    #[serde(rename = "unconfirmed")]
    _unconfirmed: Option<String>,
    /// Why the whole server refuses it whatever its signature.
    pub(crate) unsupported: Option<String>,
    /// It is answered before any event is verified: the whole server alone can be asked.
    #[serde(default)]
    pub(crate) handshake: bool,
    expect: String,
    pub(crate) secrets: Vec<String>,
    pub(crate) key_id: Option<String>,
    /// What the source says for the scheme's `param:`.
    #[serde(default)]
    pub(crate) params: BTreeMap<String, String>,
    pub(crate) method: Option<String>,
    /// As the sender called it, where that is signed.
    pub(crate) url: Option<String>,
    now_s: Option<u64>,
    body: Option<String>,
    body_base64: Option<String>,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) event: Option<Event>,
    pub(crate) response: Option<Response>,
}

/// What an extractor returns.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) r#type: Option<String>,
    pub(crate) time: Option<String>,
    pub(crate) tenant: Option<String>,
}

/// What the sender must be answered.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Response {
    pub(crate) status: u16,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) body: String,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// Every vector with its preset, in the order of the files' names.
pub(crate) fn vectors() -> &'static [(&'static Profile, Vector)] {
    static READ: OnceLock<Vec<(&'static Profile, Vector)>> = OnceLock::new();
    READ.get_or_init(|| {
        let entries = std::fs::read_dir(folder().join("vectors")).expect("the vectors are there");
        let mut paths: Vec<PathBuf> =
            entries.map(|entry| entry.expect("the folder reads").path()).collect();
        paths.sort();
        let mut vectors = Vec::new();
        for path in paths {
            let text = std::fs::read_to_string(&path).expect("the file reads");
            let file: File =
                toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
            let profile = preset(name).expect("a file is named after its preset");
            vectors.extend(file.vector.into_iter().map(|vector| (profile, vector)));
        }
        assert!(vectors.len() >= VECTORS_MIN, "vectors were lost");
        vectors
    })
}

impl Vector {
    /// Whether a correct receiver accepts it.
    pub(crate) fn accepted(&self) -> bool {
        self.expect == "accept" && self.unsupported.is_none()
    }

    /// Whether it is accepted for its signature, so that a change of it can be seen.
    pub(crate) fn verified(&self) -> bool {
        self.accepted() && !self.handshake
    }

    /// The body, byte for byte.
    pub(crate) fn body(&self) -> Vec<u8> {
        match (&self.body, &self.body_base64) {
            (Some(text), None) => text.clone().into_bytes(),
            (None, Some(text)) => STANDARD.decode(text).expect("base64"),
            _ => panic!("{} needs one body", self.name),
        }
    }

    /// The receiver's clock, in seconds since 1970.
    pub(crate) fn now_s(&self) -> u64 {
        self.now_s.unwrap_or(ANY_TIME_S)
    }

    /// Scheme and host, path, and the query with its question mark; the path is `path` where the
    /// vector has none of its own.
    pub(crate) fn url(&self, path: &str) -> [String; 3] {
        let Some(url) = &self.url else {
            return [ANY_HOST.to_owned(), path.to_owned(), String::new()];
        };
        let host = url.find("://").expect("a URL") + 3;
        let query = url.find('?').unwrap_or(url.len());
        let path = url[host..query].find('/').map_or(query, |at| at + host);
        let absent = if path == query { "/" } else { "" };
        [url[..path].to_owned(), url[path..query].to_owned() + absent, url[query..].to_owned()]
    }

    /// What judges it by these secrets, as a source of `profile`.
    pub(crate) fn verifier(
        &self,
        profile: &Profile,
        secrets: &[String],
    ) -> Result<Verifier, SpecError> {
        let wants_key_id = profile.scheme.names_keys();
        let key_id = || Some(self.key_id.clone().unwrap_or_else(|| "id".to_owned()));
        let named = |(index, text): (usize, &String)| NamedSecret {
            name: format!("s{index}"),
            value: SecretText::new(text),
            key_id: wants_key_id.then(key_id).flatten(),
        };
        let secrets = secrets.iter().enumerate().map(named).collect();
        let [host, ..] = self.url("/");
        let settings =
            Settings { public_url: Some(host), params: self.params.clone(), ..Settings::default() };
        Verifier::new(&profile.scheme, secrets, &settings)
    }
}

/// Whether what one of two presets signs the other accepts under the same key.
pub(crate) fn kin(one: &str, other: &str) -> bool {
    one == other || KIN.iter().any(|kin| kin.contains(&one) && kin.contains(&other))
}

/// What a change cannot show.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Unseen {
    headers: BTreeMap<String, Names>,
    bodies: BTreeMap<Seen, Presets>,
    clock: Presets,
    signatures: Signatures,
    keys: Presets,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Names {
    #[serde(rename = "why")]
    _why: String,
    names: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Presets {
    #[serde(rename = "why")]
    _why: Option<String>,
    presets: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signatures {
    vectors: Vec<String>,
    from: BTreeMap<String, String>,
}

/// What of a body is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Seen {
    Nothing,
    Fields,
    Json,
    Form,
    /// Every byte; no preset is listed for that.
    All,
}

impl Unseen {
    /// As `tests/unseen.toml` says.
    pub(crate) fn read() -> Self {
        let text = std::fs::read_to_string(folder().join("unseen.toml")).expect("it is there");
        toml::from_str(&text).unwrap_or_else(|error| panic!("unseen.toml: {error}"))
    }

    /// Whether this header may be missing.
    pub(crate) fn header(&self, preset: &str, name: &str) -> bool {
        let names = |preset| self.headers.get(preset).map_or(&[][..], |of| &of.names);
        names("*").iter().chain(names(preset)).any(|known| known.eq_ignore_ascii_case(name))
    }

    /// How a body of this sender is seen.
    pub(crate) fn body(&self, preset: &str) -> Seen {
        let listed = self.bodies.iter().find(|(_, of)| of.has(preset));
        listed.map_or(Seen::All, |(seen, _)| *seen)
    }

    /// Whether no time is signed.
    pub(crate) fn clock(&self, preset: &str) -> bool {
        self.clock.has(preset)
    }

    /// Whether much of what stands in the secret is not its key.
    pub(crate) fn key(&self, preset: &str) -> bool {
        self.keys.has(preset)
    }

    /// Whether one of several signatures is enough.
    pub(crate) fn spare_signatures(&self, vector: &str) -> bool {
        self.signatures.vectors.iter().any(|part| vector.contains(part.as_str()))
    }

    /// Where in the header's value the signature of this sender begins.
    pub(crate) fn signature_start(&self, preset: &str, value: &[u8]) -> usize {
        let label = self.signatures.from.get(preset);
        label.map_or(0, |label| {
            let text = std::str::from_utf8(value).expect("text");
            text.find(label.as_str()).expect("the label stands there")
        })
    }
}

impl Presets {
    fn has(&self, preset: &str) -> bool {
        self.presets.iter().any(|known| known == preset)
    }
}

/// Whether two bodies are one to a sender of whom so much is seen: other bytes that say the same,
/// as `%2b` for `%2B`, or a change of what nothing covers.
pub(crate) fn same_body(profile: &Profile, seen: Seen, one: &[u8], other: &[u8]) -> bool {
    match seen {
        Seen::All => one == other,
        Seen::Nothing => true,
        Seen::Fields => covered(profile, one) == covered(profile, other),
        Seen::Json => {
            let value = |text| serde_json::from_slice::<Value>(text).ok();
            value(one).is_some() && value(one) == value(other)
        }
        Seen::Form => form_urlencoded::parse(one).eq(form_urlencoded::parse(other)),
    }
}

/// What of a body the signature in it covers, with the signature, as another reader of JSON sees
/// it.
fn covered(profile: &Profile, body: &[u8]) -> Option<Vec<Value>> {
    let SchemeSpec { signature, each, signed, format, .. } = &profile.scheme;
    let paths: Vec<&str> = match format {
        Format::Sns => SNS_FIELDS.to_vec(),
        _ => signature.iter().chain(signed).filter_map(|part| part.strip_prefix("json:")).collect(),
    };
    let whole: Value = serde_json::from_slice(body).ok()?;
    let items = match each {
        Some(list) => whole.get(list)?.as_array()?.clone(),
        None => vec![whole],
    };
    let pointers: Vec<String> =
        paths.iter().map(|path| format!("/{}", path.replace('.', "/"))).collect();
    let of = |item| pointers.iter().map(move |at| Value::pointer(item, at).cloned());
    Some(items.iter().flat_map(of).map(Option::unwrap_or_default).collect())
}
