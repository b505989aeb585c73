//! Why does a captured request not verify, and which layer changed it?
//!
//! Nothing is inferred: each known way in which a request, a secret or a clock goes wrong is
//! undone in turn, and the one under which the signature fits is the cause. A signature does not
//! fit by chance, so what is named is what happened. Time is judged last and apart, so that an old
//! capture can still be told from a forged one.
//!
//! Works on what the [`Verifier`] says and on nothing inside it. It holds secrets only as
//! [`SecretText`](crate::verify::SecretText) and tells none.

mod body;
mod head;
mod json;
mod secret;
mod time;
mod url;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};

use crate::reject::Reject;
use crate::verify::{self, Head, NamedSecret, SchemeSpec, Settings, SpecError, Validity, Verifier};

/// Longer than any clock is wrong.
const NO_TOLERANCE: Duration = Duration::from_secs(100 * 366 * 86_400);
/// Above this a body is not also tried under every form of the secret.
const PAIRED_BYTES_MAX: usize = 256 * 1024;

/// A request and everything that it is judged by.
#[derive(Clone, Debug)]
pub struct Case {
    /// How it was asked for.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// The request's headers.
    pub headers: HeaderMap,
    /// Its body, as captured.
    pub body: Bytes,
    /// How it should be signed.
    pub scheme: SchemeSpec,
    /// What it should be signed with.
    pub secrets: Vec<NamedSecret>,
    /// When each of the secrets counts; always, where nothing is said.
    pub validities: Vec<Validity>,
    /// What the source says of itself.
    pub settings: Settings,
    /// When it arrived, in nanoseconds since 1970.
    pub now_ns: u64,
}

/// Secrets of somebody else, which may have been used by mistake.
#[derive(Clone, Debug)]
pub struct Others {
    /// Whose they are.
    pub name: String,
    /// The secrets.
    pub secrets: Vec<NamedSecret>,
}

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It verifies.
    Verified {
        /// The name of the secret that matched.
        secret: String,
    },
    /// It does not.
    Refused(Refusal),
}

/// Why a case does not verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the verifier said.
    pub fault: Fault,
    /// What happened; all of it together makes the request verify. Empty if nothing that is known
    /// explains it.
    pub causes: Vec<Cause>,
    /// How many explanations were tried.
    pub tried: usize,
}

/// What stands in the way of a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request was refused.
    Rejected(Reject),
    /// The secret cannot be used with the scheme at all.
    Unusable(SpecError),
}

/// Which part is not as it was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The bytes of the body.
    Body,
    /// A header, or its absence.
    Header,
    /// The secret, as it was given here.
    Secret,
    /// The scheme or the provider, as they were named here.
    Scheme,
    /// The URL, as it is known here.
    Url,
    /// A clock.
    Clock,
}

impl Layer {
    /// Its name in JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Header => "header",
            Self::Secret => "secret",
            Self::Scheme => "scheme",
            Self::Url => "url",
            Self::Clock => "clock",
        }
    }
}

/// One thing that happened, and the cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// A stable name for scripts.
    pub code: &'static str,
    /// What is not as it was signed.
    pub layer: Layer,
    /// What happened.
    pub what: Cow<'static, str>,
    /// What to do about it.
    pub cure: Cow<'static, str>,
}

impl Cause {
    fn new(
        code: &'static str,
        layer: Layer,
        what: impl Into<Cow<'static, str>>,
        cure: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { code, layer, what: what.into(), cure: cure.into() }
    }
}

/// An explanation and the case with what it explains undone.
type Guess = (Cause, Case);

impl Case {
    /// Judges the request as it stands; the name of the secret that matched.
    pub fn judge(&self) -> Result<String, Fault> {
        self.judge_by(&self.scheme, &self.settings)
    }

    /// The same whatever its time says.
    fn judge_signature(&self) -> Result<String, Fault> {
        let mut scheme = self.scheme.clone();
        if let Some(time) = &mut scheme.time {
            (time.past, time.future) = (NO_TOLERANCE, NO_TOLERANCE);
        }
        if let Some(jwt) = &mut scheme.jwt {
            jwt.leeway = NO_TOLERANCE;
        }
        self.judge_by(&scheme, &Settings { tolerance: None, ..self.settings.clone() })
    }

    fn judge_by(&self, scheme: &SchemeSpec, settings: &Settings) -> Result<String, Fault> {
        let verifier = Verifier::new(scheme, self.secrets.clone(), settings)?;
        let verifier =
            if self.validities.is_empty() { verifier } else { verifier.valid(&self.validities) };
        let head = Head { method: &self.method, target: &self.target, headers: &self.headers };
        let claim = verifier.claim(&head, self.now_ns)?;
        let secret = verifier.check(&claim, &self.body)?;
        Ok(verifier.secret_name(secret).to_owned())
    }
}

impl From<Reject> for Fault {
    fn from(reject: Reject) -> Self {
        Self::Rejected(reject)
    }
}

impl From<SpecError> for Fault {
    fn from(error: SpecError) -> Self {
        Self::Unusable(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(reject) => f.write_str(reject.detail()),
            Self::Unusable(error) => error.fmt(f),
        }
    }
}

/// Judges a case and, if it does not verify, finds out why.
pub fn diagnose(case: &Case, others: &[Others]) -> Verdict {
    let fault = match case.judge() {
        Ok(secret) => return Verdict::Verified { secret },
        Err(fault) => fault,
    };
    let mut search = Search { tried: 0 };
    let (causes, mended) = if case.judge_signature().is_ok() {
        (Vec::new(), Some(case.clone()))
    } else {
        search.find(case, others)
    };
    let late = mended.and_then(|mended| time::cause(&mended));
    let causes = causes.into_iter().chain(late).collect();
    Verdict::Refused(Refusal { fault, causes, tried: search.tried })
}

struct Search {
    tried: usize,
}

impl Search {
    /// The causes, and the case without them if it then verifies.
    fn find(&mut self, case: &Case, others: &[Others]) -> (Vec<Cause>, Option<Case>) {
        let missing = head::missing(case);
        let singles = head::guesses(case)
            .into_iter()
            .chain(secret::guesses(case))
            .chain(body::guesses(case))
            .chain(url::guesses(case))
            .chain(time::guesses(case))
            .chain(scheme_guesses(case))
            .chain(secret::of_others(case, others));
        for (cause, mended) in singles {
            if self.fits(&mended) {
                return (vec![cause], Some(mended));
            }
        }
        if !missing.is_empty() {
            return (missing, None);
        }
        if case.body.len() <= PAIRED_BYTES_MAX {
            for (first, keyed) in secret::guesses(case) {
                for (second, mended) in body::guesses(&keyed) {
                    if self.fits(&mended) {
                        return (vec![first, second], Some(mended));
                    }
                }
            }
        }
        (Vec::new(), None)
    }

    fn fits(&mut self, case: &Case) -> bool {
        self.tried += 1;
        case.judge_signature().is_ok()
    }
}

/// Other algorithms and encodings, then other presets.
fn scheme_guesses(case: &Case) -> Vec<Guess> {
    use verify::{Algorithm as A, SignatureEncoding as E};
    let mut guesses = Vec::new();
    let mut differs = |what: String, change: &dyn Fn(&mut SchemeSpec)| {
        let mut other = case.clone();
        change(&mut other.scheme);
        let cure = "set it so in [source.scheme], or tell the sender to sign as its preset says";
        guesses.push((Cause::new("scheme_differs", Layer::Scheme, what, cure), other));
    };
    for (name, algorithm) in [
        ("hmac-sha1", A::HmacSha1),
        ("hmac-sha256", A::HmacSha256),
        ("hmac-sha384", A::HmacSha384),
        ("hmac-sha512", A::HmacSha512),
    ] {
        for (form, encoding) in [("hex", E::Hex), ("base64", E::Base64)] {
            let same = algorithm == case.scheme.algorithm
                && Some(encoding) == case.scheme.signature_encoding;
            if !same {
                differs(format!("the signature is {name} written in {form}"), &|scheme| {
                    scheme.algorithm = algorithm;
                    scheme.signature_encoding = scheme.signature_encoding.and(Some(encoding));
                });
            }
        }
    }
    // Those that verify nothing explain nothing.
    for preset in verify::presets().filter(|preset| preset.scheme.algorithm != A::None) {
        let mut other = case.clone();
        other.scheme = preset.scheme.clone();
        if preset.scheme.jwt.as_ref().is_none_or(|jwt| jwt.key_id.is_none()) {
            other.secrets.iter_mut().for_each(|secret| secret.key_id = None);
        }
        let what =
            format!("the request is signed as {} does (preset {})", preset.title, preset.name);
        let cure = format!("name the preset \"{}\"", preset.name);
        guesses.push((Cause::new("other_provider", Layer::Scheme, what, cure), other));
    }
    guesses
}

#[cfg(test)]
mod tests;
