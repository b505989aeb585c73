//! Presets: what is known of each sender, as data files compiled in.
//!
//! A preset holds facts and no behaviour. What is not confirmed by the sender's own source or by
//! a live capture says so in `unconfirmed`.

use std::fmt;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::answers::{Answers, Delivery};
use super::spec::{Algorithm, Format, SchemeSpec};
use crate::handshake::HandshakeSpec;
use crate::identify::IdentitySpec;
use crate::limits;

/// The data files, one a sender, in the order in which they are listed to people.
const FILES: [&str; 54] = [
    include_str!("presets/livekit.toml"),
    include_str!("presets/twitch.toml"),
    include_str!("presets/mux.toml"),
    include_str!("presets/zoom.toml"),
    include_str!("presets/agora.toml"),
    include_str!("presets/cloudflare-stream.toml"),
    include_str!("presets/cloudflare-notifications.toml"),
    include_str!("presets/aws-sns.toml"),
    include_str!("presets/standard-webhooks.toml"),
    include_str!("presets/svix.toml"),
    include_str!("presets/twilio.toml"),
    include_str!("presets/signalwire.toml"),
    include_str!("presets/signalwire-compatibility.toml"),
    include_str!("presets/vonage.toml"),
    include_str!("presets/vonage-sms.toml"),
    include_str!("presets/getstream.toml"),
    include_str!("presets/sendbird.toml"),
    include_str!("presets/daily.toml"),
    include_str!("presets/youtube-websub.toml"),
    include_str!("presets/kick.toml"),
    include_str!("presets/discord.toml"),
    include_str!("presets/dyte.toml"),
    include_str!("presets/videosdk.toml"),
    include_str!("presets/jaas.toml"),
    include_str!("presets/whereby.toml"),
    include_str!("presets/livepeer.toml"),
    include_str!("presets/api-video.toml"),
    include_str!("presets/bunny-stream.toml"),
    include_str!("presets/bitmovin.toml"),
    include_str!("presets/telnyx.toml"),
    include_str!("presets/plivo.toml"),
    include_str!("presets/messagebird.toml"),
    include_str!("presets/messagebird-legacy.toml"),
    include_str!("presets/bandwidth.toml"),
    include_str!("presets/ringcentral.toml"),
    include_str!("presets/meta.toml"),
    include_str!("presets/slack.toml"),
    include_str!("presets/stripe.toml"),
    include_str!("presets/jwplayer.toml"),
    include_str!("presets/wave.toml"),
    include_str!("presets/wavespeedai.toml"),
    include_str!("presets/100ms.toml"),
    include_str!("presets/pusher.toml"),
    include_str!("presets/github.toml"),
    include_str!("presets/intercom.toml"),
    include_str!("presets/linear.toml"),
    include_str!("presets/paddle.toml"),
    include_str!("presets/paypal.toml"),
    include_str!("presets/shopify.toml"),
    include_str!("presets/adyen.toml"),
    include_str!("presets/adyen-payload.toml"),
    include_str!("presets/sendgrid.toml"),
    include_str!("presets/mailgun.toml"),
    include_str!("presets/cloudevents.toml"),
];

/// Facts about one sender.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The name in `preset = "..."`.
    pub name: String,
    /// The name for people.
    pub title: String,
    /// Where the sender tells these facts: its documentation and its own libraries.
    #[serde(default)]
    pub references: Vec<String>,
    /// The content types that the sender is known to use, kindly read.
    pub content_types: Vec<String>,
    /// Events may come by GET too, everything in the query, which the signature then covers.
    #[serde(default)]
    pub events_by_get: bool,
    /// The shortest key that the sender lets its users choose, if that is below our own bound.
    #[serde(default = "secret_bytes_min")]
    pub secret_bytes_min: usize,
    /// What of this file is a guess, and what would settle it.
    pub unconfirmed: Option<String>,
    /// How its signatures are made.
    pub scheme: SchemeSpec,
    /// Where an event's id, type, time and tenant are.
    pub identity: IdentitySpec,
    /// What it must be answered.
    #[serde(default)]
    pub answers: Answers,
    /// How it tries, and how long.
    #[serde(default)]
    pub delivery: Delivery,
    /// What it asks before or between its events.
    #[serde(default, rename = "handshake")]
    pub handshakes: Vec<HandshakeSpec>,
    /// What else its users should know.
    #[serde(default)]
    pub notes: Notes,
    /// The data file itself.
    #[serde(skip)]
    pub text: &'static str,
}

/// What kind of proof a sender gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// A MAC with a shared secret over parts of the request.
    Hmac,
    /// A signature with the sender's private key over parts of the request.
    PublicKey,
    /// A JSON Web Token.
    Jwt,
    /// A MAC over the URL and the fields of a form.
    UrlForm,
    /// A signature that stands in the body, over some of its fields.
    InBody,
    /// No signature: the secret itself.
    Token,
    /// No signature: a name and a password.
    Basic,
    /// Nothing at all.
    None,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hmac => "hmac",
            Self::PublicKey => "public-key",
            Self::Jwt => "jwt",
            Self::UrlForm => "url-form",
            Self::InBody => "in-body",
            Self::Token => "token",
            Self::Basic => "basic",
            Self::None => "none",
        })
    }
}

impl Profile {
    /// The kind of its scheme.
    pub fn family(&self) -> Family {
        let scheme = &self.scheme;
        match (scheme.format, scheme.algorithm) {
            (Format::Jwt, _) => Family::Jwt,
            (Format::Sns, _) => Family::InBody,
            (Format::Params, _) => Family::UrlForm,
            _ if scheme.signature.is_some() => Family::InBody,
            _ if scheme.signed.iter().any(|part| part.starts_with("url")) => Family::UrlForm,
            (_, Algorithm::Token) => Family::Token,
            (_, Algorithm::Basic) => Family::Basic,
            (_, Algorithm::None) => Family::None,
            (_, algorithm) if algorithm.mac().is_some() => Family::Hmac,
            _ => Family::PublicKey,
        }
    }
}

/// What the sender expects and does, in words.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notes {
    /// Which answers it takes for success, and how soon.
    pub answer: Option<String>,
    /// What it asks before or between events.
    pub handshake: Option<String>,
    /// How long it tries again.
    pub retry: Option<String>,
    /// How its secrets are changed.
    pub rotation: Option<String>,
    /// What its signature does not cover, and other traps.
    pub weakness: Option<String>,
}

const fn secret_bytes_min() -> usize {
    limits::SECRET_BYTES_MIN
}

/// The preset of this name.
pub fn preset(name: &str) -> Option<&'static Profile> {
    presets().find(|profile| profile.name == name)
}

/// Every preset.
pub fn presets() -> impl Iterator<Item = &'static Profile> {
    static PROFILES: OnceLock<Vec<Profile>> = OnceLock::new();
    let read = |text: &&'static str| {
        let read = toml::from_str(text).expect("a test reads every compiled-in preset");
        Profile { text, ..read }
    };
    PROFILES.get_or_init(|| FILES.iter().map(read).collect()).iter()
}
