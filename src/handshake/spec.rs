//! Handshakes as data: the `[[handshake]]` tables of a preset, and `[[source.handshakes]]`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::verify::SignatureEncoding;

/// One question that a sender asks before or between its events, and its answer.
///
/// Places are `header:NAME`, `query:NAME` and, in a body, `json:PATH`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandshakeSpec {
    /// What logs call it.
    pub name: String,
    /// The method of its request.
    #[serde(default)]
    pub method: HandshakeMethod,
    /// Whether the sender signs it, and it is answered only after the signature was verified.
    /// Only a sender that truly does not sign it may say no.
    #[serde(default = "yes")]
    pub signed: bool,
    /// What must stand where for a request to be this handshake; `*` is anything.
    #[serde(default)]
    pub when: BTreeMap<String, String>,
    /// Where nothing may stand.
    #[serde(default)]
    pub unless: Vec<String>,
    /// What must be true of it to be answered.
    pub guard: Option<GuardSpec>,
    /// How it is answered.
    pub answer: AnswerSpec,
}

/// The methods of handshakes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HandshakeMethod {
    /// As events come.
    #[default]
    Post,
    /// Without a body.
    Get,
    /// Without a body.
    Options,
}

/// What a source's configuration must know of a handshake before it is answered.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardSpec {
    /// What is checked.
    pub is: Guard,
    /// The place of the value that is checked.
    pub at: String,
}

/// What is checked of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guard {
    /// It is the source's `verify_token`; otherwise 403.
    Token,
    /// It is one of the source's `topics`; otherwise 404.
    Topic,
    /// It is none of the source's `topics`: what is wanted is not given up by a stranger's wish.
    OtherTopic,
    /// It is one of the source's `origins`; otherwise 403.
    Origin,
}

/// How a handshake is answered.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AnswerSpec {
    /// A value of the request is given back.
    Echo {
        /// Its place.
        from: String,
        /// How it is given back: `text`, `json:FIELD` or `header:NAME`.
        #[serde(default = "text")]
        into: String,
    },
    /// A token and its MAC under the secret that signed the request.
    Mac {
        /// The token's place.
        from: String,
        /// The field of the answer that repeats the token.
        token_field: String,
        /// The field of the answer that holds the MAC.
        mac_field: String,
        /// How the MAC is written.
        encoding: SignatureEncoding,
    },
    /// Always the same.
    Fixed {
        /// The status.
        #[serde(default = "ok")]
        status: u16,
        /// The media type.
        content_type: Option<String>,
        /// The body.
        #[serde(default)]
        body: String,
    },
    /// What a sender of `CloudEvents` asks by OPTIONS: that it may send, at any rate.
    AllowOrigin {
        /// The place of the origin.
        from: String,
    },
    /// An invitation to confirm a subscription by a request to an address of the sender's. It is
    /// kept as an event, for the operator to follow, or followed if the source says so.
    Confirm {
        /// The place of the address.
        url: String,
    },
}

const fn yes() -> bool {
    true
}

const fn ok() -> u16 {
    200
}

fn text() -> String {
    "text".to_owned()
}
