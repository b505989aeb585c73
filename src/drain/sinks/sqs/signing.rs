//! Signatures of AWS (`SigV4`), and who forebay is there.
//!
//! Without a key in the configuration these are asked, one after the other, until one knows: the
//! environment, the shared files of AWS (`AWS_PROFILE`), a web identity (Kubernetes), a container's
//! endpoint (ECS, EKS) and the machine's (EC2). What they know for a time is asked for again before
//! it ends. Their addresses are private by nature, and come from nobody who sends events.

use std::time::Duration;

use bytes::Bytes;
use forebay_log::Clock;
use http::{Request, Response, Uri};
use http_body_util::Full;
use reqsign_aws_v4::{
    Credential, DefaultCredentialProvider, RequestSigner, StaticCredentialProvider,
};
use reqsign_core::{Context, Env, Error, ErrorKind, FileRead, HttpSend, OsEnv, Signer};

use super::{ANSWER_BYTES_MAX, CONNECT_MAX, IDLE_MAX, Settings};
use crate::drain::sink::{Class, Failure};
use crate::drain::sinks::OpenError;
use crate::drain::sinks::answer::words;
use crate::drain::sinks::http::client::{Client, Reach};
use crate::verify::SecretText;

/// The word of SQS in a signature.
const SERVICE: &str = "sqs";
/// A file of credentials is small.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Where an identity is changed into a key. Only the scheme counts: authorities are wanted.
const STS: &str = "https://sts.amazonaws.com";

/// Signs requests; knows who forebay is, or finds out.
#[derive(Debug)]
pub(super) struct Signing(Signer<Credential>);

impl Signing {
    pub(super) fn new(settings: &Settings, timeout: Duration) -> Result<Self, OpenError> {
        Self::with_env(settings, timeout, OsEnv)
    }

    pub(super) fn with_env(
        settings: &Settings,
        timeout: Duration,
        env: impl Env,
    ) -> Result<Self, OpenError> {
        let request = RequestSigner::new(SERVICE, &settings.region);
        if let Some(known) = &settings.credentials {
            let secret = known.secret_key.expose_secret();
            let mut provider = StaticCredentialProvider::new(&known.access_key, secret);
            if let Some(token) = known.session_token.as_ref().map(SecretText::expose_secret) {
                provider = provider.with_session_token(token);
            }
            return Ok(Self(Signer::new(Context::new(), provider, request)));
        }
        let reach = Reach {
            url: &Uri::from_static(STS),
            authorities: settings.authorities.as_ref(),
            allow_private: true,
            connect_timeout: timeout.min(CONNECT_MAX),
            idle_timeout: IDLE_MAX,
        };
        let client = Client::reaching(&reach, Clock::System)?;
        let context =
            Context::new().with_env(env).with_file_read(Files).with_http_send(Asked(client));
        // Nobody is there to log in, and no program is run.
        let provider = DefaultCredentialProvider::builder().no_sso().no_process().build();
        Ok(Self(Signer::new(context, provider, request)))
    }

    /// Adds what proves who asks.
    pub(super) async fn sign(&self, request: &mut Request<Full<Bytes>>) -> Result<(), Failure> {
        let (mut parts, body) = std::mem::take(request).into_parts();
        let signed = self.0.sign(&mut parts, None).await;
        *request = Request::from_parts(parts, body);
        signed.map_err(|error| of_error(&error))
    }
}

fn of_error(error: &Error) -> Failure {
    let class = match error.kind() {
        ErrorKind::RateLimited => Class::Overloaded,
        ErrorKind::Unexpected => Class::Temporary,
        _ if error.is_retryable() => Class::Temporary,
        _ => Class::Misconfigured,
    };
    // What is behind it was said in the log by then; it may hold an answer.
    Failure::new(class, format!("no credentials for SQS: {}", words(&error.to_string())))
}

/// Reads files beside the runtime.
#[derive(Clone, Copy, Debug)]
struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
        use std::io::Read as _;
        let path = path.to_owned();
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            let file = std::fs::File::open(path)?;
            file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map(|_| bytes)
        });
        let read = read.await.map_err(|error| Error::unexpected(error.to_string()))?;
        read.map_err(|error| Error::config_invalid(error.to_string()))
    }
}

/// Asks who gives credentials out.
#[derive(Debug)]
struct Asked(Client);

impl HttpSend for Asked {
    async fn http_send(&self, request: Request<Bytes>) -> reqsign_core::Result<Response<Bytes>> {
        let answer = self.0.exchange(request.map(Full::new), ANSWER_BYTES_MAX).await;
        answer.map_err(|failure| Error::unexpected(failure.reason).set_retryable(true))
    }
}
