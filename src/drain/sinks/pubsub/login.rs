//! Who forebay is to Google: an access token, lent for an hour or so, and asked for again before it
//! ends.
//!
//! A service account's key signs a claim (a JWT by RS256), for which the account's token endpoint
//! lends a token (RFC 7523); or the machine's metadata server lends one, of the account that the
//! machine was given.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use forebay_log::Clock;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::Full;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::ANSWER_BYTES_MAX;
use crate::drain::sink::{Class, Failure};
use crate::drain::sinks::OpenError;
use crate::drain::sinks::answer::words;
use crate::drain::sinks::http::client::Client;
use crate::verify::Algorithm;
use crate::verify::private::Private;

/// What a token is asked for.
const SCOPE: &str = "https://www.googleapis.com/auth/pubsub";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// How long a claim counts, in seconds: the most that is taken.
const CLAIM_S: u64 = 3600;
/// A token is renewed so long before it ends, or at half of its life where that is shorter.
const RENEWED_BEFORE: Duration = Duration::from_secs(300);
const PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
const FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// How forebay proves who it is.
#[derive(Clone, Debug)]
pub enum Login {
    /// Not at all, as emulators want it.
    Nobody,
    /// By the key of a service account.
    Key(Box<Account>),
    /// By what the metadata server at this host says.
    Machine(String),
}

/// The key of a service account, from its JSON.
#[derive(Clone, Deserialize)]
pub struct Account {
    client_email: String,
    private_key: String,
    #[serde(default)]
    private_key_id: Option<String>,
    token_uri: String,
}

/// Without the key.
impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("client_email", &self.client_email).finish_non_exhaustive()
    }
}

impl Account {
    /// Reads the file that Google makes of a key; the error says what is wrong, without the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let account: Self = serde_json::from_str(text)
            .map_err(|error| format!("is no key of a service account as JSON: {error}"))?;
        let url: Option<Uri> = account.token_uri.parse().ok();
        if url.is_none_or(|url| !matches!(url.scheme_str(), Some("https" | "http"))) {
            return Err("has a `token_uri` that is no URL".to_owned());
        }
        account.key().map(|_| account)
    }

    /// Whether the claim would go without TLS.
    pub fn is_plain(&self) -> bool {
        self.token_uri.starts_with("http://")
    }

    fn key(&self) -> Result<Private, String> {
        Private::read(&self.private_key, Algorithm::RsaPkcs1Sha256)
            .map_err(|why| format!("has a private key that {why}"))
    }
}

#[derive(Serialize)]
struct Head<'a> {
    alg: &'static str,
    typ: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
}

#[derive(Serialize)]
struct Claim<'a> {
    iss: &'a str,
    scope: &'static str,
    aud: &'a str,
    iat: u64,
    exp: u64,
}

#[derive(Deserialize)]
struct Lent {
    access_token: String,
    #[serde(default)]
    expires_in: u64,
}

#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    error: String,
    #[serde(default)]
    error_description: String,
}

/// The token, as long as it lasts.
#[derive(Debug)]
pub(super) struct Token {
    lender: Option<Lender>,
    clock: Clock,
    held: Mutex<Option<Held>>,
}

/// A token with the time from which another one is wanted, monotonic.
struct Held {
    value: HeaderValue,
    until: std::time::Instant,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("until", &self.until).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Lender {
    client: Client,
    url: Uri,
    key: Option<(Box<Account>, Private)>,
}

impl Token {
    /// Asks nobody yet. `client` makes what reaches a lender, who may be the machine itself.
    pub(super) fn new(
        login: &Login,
        client: impl Fn(&Uri, bool) -> Result<Client, OpenError>,
    ) -> Result<Self, OpenError> {
        let parsed = |text: &str| {
            text.parse::<Uri>().map_err(|_| OpenError(format!("`{text}` is no URL of a lender")))
        };
        let lender = match login {
            Login::Nobody => None,
            Login::Key(account) => {
                let (url, key) = (parsed(&account.token_uri)?, account.key().map_err(OpenError)?);
                let client = client(&url, false)?;
                Some(Lender { client, url, key: Some((account.clone(), key)) })
            }
            Login::Machine(host) => {
                let url = parsed(&format!("http://{host}{PATH}"))?;
                Some(Lender { client: client(&url, true)?, url, key: None })
            }
        };
        Ok(Self { lender, clock: Clock::System, held: Mutex::new(None) })
    }

    /// The header that shows it; none where nobody is asked for one. One that has ended is renewed,
    /// once for all that wait for it.
    pub(super) async fn value(&self) -> Result<Option<HeaderValue>, Failure> {
        let Some(lender) = &self.lender else { return Ok(None) };
        let mut held = self.held.lock().await;
        let now = self.clock.monotonic();
        if let Some(held) = held.as_ref().filter(|held| now < held.until) {
            return Ok(Some(held.value.clone()));
        }
        let lent = lender.lend(self.clock.wall_ns() / 1_000_000_000).await?;
        let mut value = HeaderValue::try_from(format!("Bearer {}", lent.access_token))
            .map_err(|_| Failure::temporary("the token that was lent is none"))?;
        value.set_sensitive(true);
        let life = Duration::from_secs(lent.expires_in);
        let until = now + life.saturating_sub(RENEWED_BEFORE).max(life / 2);
        *held = Some(Held { value: value.clone(), until });
        Ok(Some(value))
    }

    /// The token is refused: the next request asks for another one.
    pub(super) async fn forget(&self) {
        *self.held.lock().await = None;
    }
}

impl Lender {
    async fn lend(&self, now_s: u64) -> Result<Lent, Failure> {
        let answer = self.client.exchange(self.request(now_s)?, ANSWER_BYTES_MAX).await?;
        if !answer.status().is_success() {
            return Err(refused(&answer));
        }
        serde_json::from_slice(answer.body())
            .map_err(|_| Failure::temporary("whoever lends tokens answers with none"))
    }

    fn request(&self, now_s: u64) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = self.url.clone();
        let Some((account, key)) = &self.key else {
            request.headers_mut().insert(FLAVOR, HeaderValue::from_static("Google"));
            return Ok(request);
        };
        let assertion = assertion(account, key, now_s)
            .ok_or_else(|| Failure::temporary("the machine has no randomness to sign with"))?;
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", GRANT)
            .append_pair("assertion", &assertion)
            .finish();
        *request.method_mut() = http::Method::POST;
        *request.body_mut() = Full::new(form.into());
        request.headers_mut().insert(CONTENT_TYPE, FORM);
        Ok(request)
    }
}

/// The claim to be this account, signed.
fn assertion(account: &Account, key: &Private, now_s: u64) -> Option<String> {
    let head = Head { alg: "RS256", typ: "JWT", kid: account.private_key_id.as_deref() };
    let claim = Claim {
        iss: &account.client_email,
        scope: SCOPE,
        aud: &account.token_uri,
        iat: now_s,
        exp: now_s.saturating_add(CLAIM_S),
    };
    let part = |json: serde_json::Result<Vec<u8>>| Some(URL_SAFE_NO_PAD.encode(json.ok()?));
    let signed =
        format!("{}.{}", part(serde_json::to_vec(&head))?, part(serde_json::to_vec(&claim))?);
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes())?);
    Some(format!("{signed}.{signature}"))
}

/// A key that is refused stays so until a person acts; a lender in trouble does not.
fn refused(answer: &Response<Bytes>) -> Failure {
    let refusal: Refusal = serde_json::from_slice(answer.body()).unwrap_or_default();
    let status = answer.status();
    let class = match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Class::Overloaded,
        StatusCode::REQUEST_TIMEOUT => Class::Temporary,
        status if status.is_server_error() => Class::Temporary,
        _ => Class::Misconfigured,
    };
    let said = words(&format!("{} {}", refusal.error, refusal.error_description));
    Failure::new(class, format!("no token is lent: {} {}", status.as_u16(), said.trim()))
}
