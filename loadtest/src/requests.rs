//! Requests as bytes ready to be written, signed by the server's own signing code, and those that
//! a receiver has to refuse.

use std::io;

use forebay::verify::{
    self, Family, NamedSecret, Profile, SecretText, SignInput, SignedRequest, SpecError,
};
use forebay_log::Clock;
use jiff::Timestamp;

use crate::schedule::Happening;

/// The secret of this tool's own servers; as text it also serves the schemes that take text.
pub(crate) const SECRET: &str = "whsec_Zm9yZWJheS1sb2FkdGVzdC1zZWNyZXQtMDEyMzQ1Njc4OQ==";
/// The id of that secret, in the schemes that name it.
const KEY_ID: &str = "loadtest";
/// How far back the time of a stale request lies: further than any tolerance of a preset.
const STALE_NS: u64 = 7 * 86_400 * 1_000_000_000;

/// Who sends, to where, and with which secret.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    /// The preset, which is also the name of the source.
    pub(crate) preset: String,
    /// What the `Host` header says.
    pub(crate) host: String,
    /// The path of the source.
    pub(crate) path: String,
    pub(crate) secret: String,
    pub(crate) key_id: Option<String>,
}

impl Sender {
    /// A sender to one of this tool's own servers.
    pub(crate) fn own(preset: &str) -> io::Result<Self> {
        let profile = profile(preset)?;
        let named = profile.scheme.jwt.as_ref().is_some_and(|jwt| jwt.key_id.is_some());
        Ok(Self {
            preset: preset.to_owned(),
            host: "127.0.0.1".to_owned(),
            path: format!("/load/{preset}"),
            secret: SECRET.to_owned(),
            key_id: named.then(|| KEY_ID.to_owned()),
        })
    }

    /// The facts about it.
    pub(crate) fn profile(&self) -> io::Result<&'static Profile> {
        profile(&self.preset)
    }
}

fn profile(preset: &str) -> io::Result<&'static Profile> {
    verify::preset(preset).ok_or_else(|| io::Error::other(format!("no preset is called {preset}")))
}

/// What is wrong with a request, on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    #[default]
    None,
    /// An event that was sent before.
    Duplicate,
    /// Its body was changed after it was signed.
    Forged,
    /// It was signed long ago.
    Stale,
    /// No HTTP, or not signed at all.
    Malformed,
}

impl Fault {
    /// What reports call a request of this kind.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "genuine",
            Self::Duplicate => "duplicate",
            Self::Forged => "forged",
            Self::Stale => "stale",
            Self::Malformed => "malformed",
        }
    }

    /// Whether a receiver has to keep the event.
    pub(crate) fn is_kept(self) -> bool {
        matches!(self, Self::None | Self::Duplicate)
    }

    /// Whether its sender is a real one, who waits his turn and tries again.
    pub(crate) fn is_sent_again(self) -> bool {
        self.is_kept()
    }
}

/// All that one request is made of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Draft {
    pub(crate) number: u32,
    /// Of the sender.
    pub(crate) sender: u8,
    pub(crate) room: u32,
    pub(crate) happening: Happening,
    pub(crate) fault: Fault,
    /// When the event happened; its body says so.
    pub(crate) created_ns: u64,
    pub(crate) signed_ns: u64,
}

/// Where in its bodies a sender says what happened, and when: it decides how much of a body has to
/// be read for it.
#[derive(Clone, Copy, Debug)]
enum Frame {
    /// `type` and `timestamp`, then `data`: the payload structure of Standard Webhooks
    /// (`spec/standard-webhooks.md`, "Payload structure").
    Standard,
    /// By name, as the examples of Stripe's "The Event object" are: `type` stands last.
    Stripe,
    /// In the order of the fields of `WebhookEvent` in `livekit_webhook.proto`, as protojson writes
    /// them: `id` and `createdAt` stand last.
    LiveKit,
    /// Under the names of several others, in front.
    Plain,
}

impl Frame {
    fn of(preset: &str) -> Self {
        match preset {
            "standard-webhooks" | "svix" => Self::Standard,
            "stripe" => Self::Stripe,
            "livekit" => Self::LiveKit,
            _ => Self::Plain,
        }
    }

    /// The body of an event, `about` being members that say what it is about. Of one frame all are
    /// as long as what is given.
    fn body(self, id: &str, event: &str, created_ns: u64, about: &str) -> String {
        let created = format!("{:010}", created_ns / 1_000_000_000);
        match self {
            Self::Standard => {
                let (event, at) =
                    (event.replace('_', "."), Timestamp::from_nanosecond(created_ns.into()));
                let at = at.unwrap_or_default();
                format!(
                    "{{\"type\":\"{event}\",\"timestamp\":\"{at:.6}\",\
                     \"data\":{{\"id\":\"{id}\",{about}}}}}"
                )
            }
            Self::Stripe => format!(
                "{{\"id\":\"{id}\",\"object\":\"event\",\"api_version\":\"2024-06-20\",\
                 \"created\":{created},\"data\":{{\"object\":{{{about}}}}},\"livemode\":false,\
                 \"pending_webhooks\":1,\"request\":null,\"type\":\"{event}\"}}"
            ),
            Self::LiveKit => format!(
                "{{\"event\":\"{event}\",{about},\"id\":\"{id}\",\"createdAt\":\"{created}\"}}"
            ),
            Self::Plain => format!(
                "{{\"id\":\"{id}\",\"type\":\"{event}\",\"event\":\"{event}\",\
                 \"created\":{created},\"createdAt\":\"{created}\",{about}}}"
            ),
        }
    }
}

/// Makes requests to one path as one sender, signed by one secret.
#[derive(Debug)]
pub(crate) struct Signer {
    inner: verify::Signer,
    sender: Sender,
    frame: Frame,
    prefix: String,
    pad: String,
}

impl Signer {
    /// Requests as the sender makes them, with bodies of `body_bytes`, or as many as an event's
    /// frame takes. `run` tells the events of one run from those of another.
    pub(crate) fn new(sender: Sender, body_bytes: usize, run: u64) -> io::Result<Self> {
        let secret = NamedSecret {
            name: "only".to_owned(),
            value: SecretText::new(&*sender.secret),
            key_id: sender.key_id.clone(),
        };
        let named = |error: SpecError| io::Error::other(format!("{}: {error}", sender.preset));
        let inner = verify::Signer::new(sender.profile()?, secret).map_err(named)?;
        let frame = Frame::of(&sender.preset);
        let mut made = Self { inner, sender, frame, prefix: prefix(run), pad: String::new() };
        let bare = made.body(&Draft::default(), "").len();
        made.pad = "x".repeat(body_bytes.saturating_sub(bare));
        Ok(made)
    }

    /// Whether a request can be told stale: the sender signs a time.
    pub(crate) fn tells_time(&self) -> bool {
        let scheme = self.sender.profile().ok().map(|profile| &profile.scheme);
        scheme.is_some_and(|scheme| scheme.time.is_some() || scheme.jwt.is_some())
    }

    /// Whether a change of the body shows.
    pub(crate) fn covers_body(&self) -> bool {
        let family = self.sender.profile().ok().map(Profile::family);
        matches!(family, Some(Family::Hmac | Family::PublicKey | Family::Jwt))
    }

    /// An event as platforms send them.
    fn body(&self, draft: &Draft, id: &str) -> String {
        let event = match draft.happening {
            Happening::Joined => "participant_joined",
            Happening::Left => "participant_left",
            Happening::Finished => "room_finished",
        };
        let room = draft.room;
        let short = id.len() + usize::try_from(room.checked_ilog10().unwrap_or(0)).unwrap_or(0) * 2;
        let about = format!(
            "\"room\":{{\"sid\":\"RM_{room}\",\"name\":\"stage {room}\"}},\
             \"participant\":{{\"sid\":\"PA_1\",\"identity\":\"guest\",\"metadata\":\"{}\"}}",
            self.pad.get(short..).unwrap_or_default()
        );
        self.frame.body(id, event, draft.created_ns, &about)
    }

    /// The event's id.
    pub(crate) fn id(&self, number: u32) -> String {
        format!("{}{number}", self.prefix)
    }

    /// The signed request: target, headers and body.
    pub(crate) fn request(&self, draft: &Draft) -> io::Result<SignedRequest> {
        let id = self.id(draft.number);
        let body = self.body(draft, &id);
        let stale = if draft.fault == Fault::Stale { STALE_NS } else { 0 };
        let input = SignInput {
            id: &id,
            now_ns: draft.signed_ns.saturating_sub(stale),
            event_type: "participant_joined",
            target: &self.sender.path,
            body: body.as_bytes(),
        };
        self.inner.request(&input).map_err(io::Error::other)
    }

    /// Appends the request to `into`.
    pub(crate) fn write(&self, into: &mut Vec<u8>, draft: &Draft) -> io::Result<()> {
        if draft.fault == Fault::Malformed {
            malformed(into, &self.sender, draft.number);
            return Ok(());
        }
        let mut request = self.request(draft)?;
        if draft.fault == Fault::Forged {
            forge(&mut request.body);
        }
        into.extend_from_slice(b"POST ");
        into.extend_from_slice(request.target.as_bytes());
        into.extend_from_slice(b" HTTP/1.1\r\nhost: ");
        into.extend_from_slice(self.sender.host.as_bytes());
        into.extend_from_slice(b"\r\nuser-agent: forebay-loadtest\r\ncontent-length: ");
        into.extend_from_slice(request.body.len().to_string().as_bytes());
        into.extend_from_slice(b"\r\n");
        for (name, value) in &request.headers {
            into.extend_from_slice(name.as_str().as_bytes());
            into.extend_from_slice(b": ");
            into.extend_from_slice(value.as_bytes());
            into.extend_from_slice(b"\r\n");
        }
        into.extend_from_slice(b"\r\n");
        into.extend_from_slice(&request.body);
        Ok(())
    }
}

/// What the ids of a run's events begin with.
pub(crate) fn prefix(run: u64) -> String {
    format!("msg_{run:x}_")
}

/// Another guest than the one that was signed; still JSON, and no longer.
fn forge(body: &mut [u8]) {
    const GUEST: &[u8] = b"\"guest\"";
    if let Some(start) = body.windows(GUEST.len()).position(|window| window == GUEST) {
        body[start..start + GUEST.len()].copy_from_slice(b"\"owner\"");
    }
}

/// What no receiver may take: two lengths, a length that is none, a header that is none, nothing
/// signed.
fn malformed(into: &mut Vec<u8>, sender: &Sender, number: u32) {
    let head: &[u8] = match number % 4 {
        0 => b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        1 => b"content-length: 2x\r\n\r\n{}",
        2 => b"content-length: 2\r\nno colon\r\n\r\n{}",
        _ => b"content-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
    };
    let line = format!("POST {} HTTP/1.1\r\nhost: {}\r\n", sender.path, sender.host);
    into.extend_from_slice(line.as_bytes());
    into.extend_from_slice(head);
}

/// Requests made in advance, so that a measurement spends nothing on making them.
#[derive(Debug)]
pub(crate) struct Pool {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Pool {
    /// Signs `count` requests.
    pub(crate) fn new(signer: &Signer, count: usize) -> io::Result<Self> {
        let now_ns = Clock::System.wall_ns();
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(count));
        for number in 0..u32::try_from(count).unwrap_or(u32::MAX) {
            let times = Draft { created_ns: now_ns, signed_ns: now_ns, ..Draft::default() };
            signer.write(&mut bytes, &Draft { number, ..times })?;
            ends.push(bytes.len());
        }
        Ok(Self { bytes, ends })
    }

    /// The same events in another frame, made of each body.
    pub(crate) fn reframed(&self, mut frame: impl FnMut(&[u8], &mut Vec<u8>)) -> Self {
        let mut made = Self { bytes: Vec::new(), ends: Vec::with_capacity(self.len()) };
        for index in 0..self.len() {
            let request = self.request(index);
            let head = request.windows(4).position(|window| window == b"\r\n\r\n");
            frame(&request[head.map_or(0, |head| head + 4)..], &mut made.bytes);
            made.ends.push(made.bytes.len());
        }
        made
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of one request; empty beyond the last.
    pub(crate) fn request(&self, index: usize) -> &[u8] {
        let end = self.ends.get(index).copied().unwrap_or(self.bytes.len());
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before.min(self.len() - 1)]);
        &self.bytes[start..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(preset: &str) -> Signer {
        Signer::new(Sender::own(preset).expect("a preset"), 1024, 7).expect("it can sign")
    }

    fn text(signer: &Signer, draft: Draft) -> String {
        let mut bytes = Vec::new();
        signer.write(&mut bytes, &draft).expect("it can be written");
        String::from_utf8(bytes).expect("requests are text")
    }

    #[test]
    fn a_pool_holds_requests_of_their_own() {
        let pool = Pool::new(&signer("standard-webhooks"), 3).expect("requests can be signed");
        assert_eq!(pool.len(), 3);
        for index in 0..3 {
            let text = std::str::from_utf8(pool.request(index)).expect("requests are text");
            assert!(text.starts_with("POST /load/standard-webhooks HTTP/1.1\r\n"), "{text}");
            assert!(text.contains(&format!("_{index}\r\n")), "{text}");
            let (_, body) = text.split_once("\r\n\r\n").expect("a head and a body");
            assert_eq!(body.len(), 1024);
            assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
        }
        assert!(pool.request(3).is_empty());
    }

    #[test]
    fn a_body_says_what_happened_where_its_sender_says_it() {
        let draft = Draft { created_ns: 1_667_507_170_344_522_999, room: 20, ..Draft::default() };
        for (preset, starts, ends) in [
            (
                "standard-webhooks",
                "{\"type\":\"participant.joined\",\"timestamp\":\"2022-11-03T20:26:10.344522Z\",\
                 \"data\":{\"id\":\"msg_7_0\",",
                "x\"}}}",
            ),
            ("stripe", "{\"id\":\"msg_7_0\",", ",\"type\":\"participant_joined\"}"),
            (
                "livekit",
                "{\"event\":\"participant_joined\",",
                ",\"id\":\"msg_7_0\",\"createdAt\":\"1667507170\"}",
            ),
            ("wave", "{\"id\":\"msg_7_0\",\"type\":\"participant_joined\",", "x\"}}"),
        ] {
            let request = text(&signer(preset), draft);
            let (_, body) = request.split_once("\r\n\r\n").expect("a head and a body");
            assert!(body.starts_with(starts) && body.ends_with(ends), "{body}");
            assert_eq!(body.len(), 1024, "{preset}");
            assert!(serde_json::from_str::<serde_json::Value>(body).is_ok(), "{preset}");
        }
    }

    #[test]
    fn a_request_can_be_made_again_byte_for_byte() {
        for preset in ["livekit", "stripe", "wave", "standard-webhooks"] {
            let draft = Draft { number: 12, room: 3, created_ns: 5, ..Draft::default() };
            let (once, again) = (text(&signer(preset), draft), text(&signer(preset), draft));
            assert_eq!(once, again);
        }
    }

    #[test]
    fn a_forgery_differs_from_what_was_signed_in_its_body_alone() {
        let livekit = signer("livekit");
        let draft = Draft::default();
        let (signed, forged) =
            (text(&livekit, draft), text(&livekit, Draft { fault: Fault::Forged, ..draft }));
        assert_eq!(signed.len(), forged.len());
        assert_eq!(signed.replace("guest", "owner"), forged);
        assert!(livekit.covers_body() && livekit.tells_time());
        assert!(!signer("wave").tells_time());
    }
}
