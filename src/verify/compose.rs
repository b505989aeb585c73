//! Parts of the signed bytes that do not stand in the request as they are: the URL as the sender
//! called it, sorted parameters, a digest of the body.
//!
//! The URL begins with what the configuration says and never with what a request claims: `Host`
//! and `X-Forwarded-*` are not looked at. Everything here allocates, so only the schemes that
//! need it come here.

use std::borrow::Cow;

use ring::digest;
use subtle::ConstantTimeEq as _;

use super::Head;
use super::encoding::SignatureEncoding;
use super::query::{self, Pair};
use crate::reject::Reject;

const FORM: &[u8] = b"application/x-www-form-urlencoded";
/// The parameter in which Twilio sends the digest of a body that is no form.
pub(super) const BODY_SHA256: &[u8] = b"bodySHA256";

/// A part that has to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Composed {
    /// The URL.
    Url,
    /// The URL and, of a form, its pairs sorted and without repetitions; a body of another kind
    /// is bound by its digest in the query.
    Twilio,
    /// The URL without its query, the query sorted, and the pairs of a form sorted.
    PlivoV3,
    /// The query's pairs, sorted.
    Query,
    /// The SHA-256 of the body, 32 bytes.
    BodySha256,
    /// The CRC-32 of the body, in decimal.
    BodyCrc32,
}

/// What of a request's head the parts are made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'h> {
    pub(super) target: &'h str,
    /// The body is a form.
    pub(super) form: bool,
    /// It was asked for by GET.
    pub(super) get: bool,
}

impl<'h> Asked<'h> {
    pub(super) fn new(head: &Head<'h>) -> Self {
        let media = head.headers.get(http::header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
        let essence = media.and_then(|media| media.split(|byte| *byte == b';').next());
        let form = essence.is_some_and(|media| media.trim_ascii().eq_ignore_ascii_case(FORM));
        Self { target: head.target, form, get: head.method == http::Method::GET }
    }

    fn path(&self) -> &'h str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// The public URL of this receiver as configured, up to where a request's target begins.
#[derive(Clone, Debug)]
pub(super) struct Base {
    given: Box<str>,
    /// The same without its port, or with the port of its scheme.
    other: Box<str>,
}

impl Base {
    /// Reads `https://[user:password@]host[:port][/prefix]`.
    pub(super) fn new(url: &str) -> Option<Self> {
        let url = url.strip_suffix('/').unwrap_or(url);
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte);
        let (scheme, rest) = url.split_once("://")?;
        let port = match scheme {
            "https" => "443",
            "http" => "80",
            _ => return None,
        };
        let (authority, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit('@').next().unwrap_or_default();
        let colon = host.rfind(':').filter(|colon| host.rfind(']').is_none_or(|end| *colon > end));
        let name = host.get(..colon.unwrap_or(host.len()))?;
        let own_port = colon.and_then(|colon| host.get(colon + 1..));
        let numeric = own_port.is_none_or(|port| port.parse::<u16>().is_ok());
        if name.is_empty() || !numeric || !url.bytes().all(plain) {
            return None;
        }
        let user = authority.get(..authority.len() - host.len())?;
        let other = match own_port {
            Some(_) => format!("{scheme}://{user}{name}{prefix}"),
            None => format!("{scheme}://{user}{name}:{port}{prefix}"),
        };
        Some(Self { given: url.into(), other: other.into() })
    }

    /// The URL of a request.
    pub(super) fn url(&self, target: &str) -> String {
        [&*self.given, target].concat()
    }
}

impl Composed {
    /// The part of this name.
    pub(super) fn named(text: &str) -> Option<Self> {
        Some(match text {
            "url" => Self::Url,
            "url:twilio" => Self::Twilio,
            "url:plivo-v3" => Self::PlivoV3,
            "query" => Self::Query,
            "body:sha256" => Self::BodySha256,
            "body:crc32" => Self::BodyCrc32,
            _ => return None,
        })
    }

    /// Whether another body would make another part.
    pub(super) fn covers_body(self) -> bool {
        !matches!(self, Self::Url | Self::Query)
    }

    pub(super) fn needs_url(self) -> bool {
        matches!(self, Self::Url | Self::Twilio | Self::PlivoV3)
    }

    /// Every text that the sender may have put here, the likeliest first. There are several only
    /// where a sender writes its own URL in several ways. A body that one of them names by its
    /// digest is looked at by [`Composed::binds`], and only once the signature is known to hold:
    /// so a request with a wrong one does not cost the digest too.
    pub(super) fn texts(
        self,
        base: Option<&Base>,
        asked: Asked<'_>,
        body: &[u8],
    ) -> Result<Vec<Vec<u8>>, Reject> {
        let one = match (self, base) {
            (Self::Query, _) => {
                let mut text = Vec::new();
                push_query(&mut text, &sorted(query::of(asked.target)));
                text
            }
            (Self::BodySha256, _) => digest::digest(&digest::SHA256, body).as_ref().to_vec(),
            (Self::BodyCrc32, _) => crc32fast::hash(body).to_string().into_bytes(),
            (Self::Url, Some(base)) => base.url(asked.target).into_bytes(),
            (Self::PlivoV3, Some(base)) => plivo_v3(base, asked, body)?,
            (Self::Twilio, Some(base)) => return twilio(base, asked, body),
            // A scheme that needs the URL does not load without one.
            (_, None) => return Err(Reject::CannotVerify),
        };
        Ok(vec![one])
    }

    /// Whether the body is the one that a signed text names by its digest; of other texts it is a
    /// part, or there is none.
    pub(super) fn binds(self, asked: Asked<'_>, body: &[u8]) -> bool {
        if self != Self::Twilio {
            return true;
        }
        match query::only(asked.target, BODY_SHA256) {
            Ok(said) => {
                let found = digest::digest(&digest::SHA256, body);
                let mut expected = [0; digest::SHA256_OUTPUT_LEN];
                let readable = SignatureEncoding::Hex.decode_exact(&said, &mut expected);
                readable && bool::from(found.as_ref().ct_eq(&expected))
            }
            Err(reject) => reject == Reject::SignatureMissing,
        }
    }
}

/// The pairs by name, then by value.
fn sorted(text: &[u8]) -> Vec<Pair<'_>> {
    let mut pairs: Vec<_> = query::pairs(text).collect();
    pairs.sort_unstable();
    pairs
}

/// `a=1&b=2`, decoded.
fn push_query(text: &mut Vec<u8>, pairs: &[Pair<'_>]) {
    for (index, (name, value)) in pairs.iter().enumerate() {
        if index != 0 {
            text.push(b'&');
        }
        text.extend_from_slice(name);
        text.push(b'=');
        text.extend_from_slice(value);
    }
}

/// `a1b2`, decoded.
fn push_form(text: &mut Vec<u8>, pairs: &[Pair<'_>]) {
    for (name, value) in pairs {
        text.extend_from_slice(name);
        text.extend_from_slice(value);
    }
}

/// The pairs of a form. A body of another kind is not covered, so there must be none.
fn form<'b>(asked: Asked<'_>, body: &'b [u8]) -> Result<Vec<Pair<'b>>, Reject> {
    match (asked.form, body.is_empty()) {
        (true, _) => Ok(sorted(body)),
        (false, true) => Ok(Vec::new()),
        (false, false) => Err(Reject::SignatureWrong),
    }
}

fn plivo_v3(base: &Base, asked: Asked<'_>, body: &[u8]) -> Result<Vec<u8>, Reject> {
    let mut text = base.url(asked.path()).into_bytes();
    let (pairs, params) = (sorted(query::of(asked.target)), form(asked, body)?);
    if pairs.is_empty() && params.is_empty() {
        return Ok(text);
    }
    text.push(b'?');
    push_query(&mut text, &pairs);
    if !asked.get && !pairs.is_empty() && !params.is_empty() {
        text.push(b'.');
    }
    push_form(&mut text, &params);
    Ok(text)
}

/// Twilio's voice and message services differ in whether they write the port, and in whether an
/// apostrophe in the query is encoded; its own libraries try all of it.
fn twilio(base: &Base, asked: Asked<'_>, body: &[u8]) -> Result<Vec<Vec<u8>>, Reject> {
    let mut tail = Vec::new();
    match query::only(asked.target, BODY_SHA256) {
        Ok(_) => {}
        Err(Reject::SignatureMissing) => {
            let mut pairs = form(asked, body)?;
            pairs.dedup();
            push_form(&mut tail, &pairs);
        }
        Err(_) => return Err(Reject::SignatureWrong),
    }
    let path = asked.path();
    let query = asked.target.get(path.len()..).unwrap_or_default();
    let mut queries = vec![Cow::Borrowed(query)];
    if query.contains('\'') {
        queries.push(query.replace('\'', "%27").into());
    }
    if query.contains("%27") {
        queries.push(query.replace("%27", "'").into());
    }
    let bases = [&*base.given, &*base.other];
    let urls = queries.iter().flat_map(|query| bases.map(|base| [base, path, query].concat()));
    Ok(urls.map(|url| [url.as_bytes(), &tail].concat()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(target: &str) -> Asked<'_> {
        Asked { target, form: true, get: false }
    }

    fn texts(part: &str, url: &str, asked: Asked<'_>, body: &str) -> Vec<String> {
        let part = Composed::named(part).expect("a part");
        let texts = part.texts(Base::new(url).as_ref(), asked, body.as_bytes()).expect("texts");
        texts.into_iter().map(|text| String::from_utf8(text).expect("text")).collect()
    }

    #[test]
    fn a_base_has_a_scheme_and_a_host_and_ends_where_a_target_begins() {
        let both = |url| Base::new(url).map(|base| (base.url("/in?a"), base.other));
        let of = |url: &str, other: &str| Some((url.to_owned(), other.into()));
        assert_eq!(
            both("https://a.example"),
            of("https://a.example/in?a", "https://a.example:443")
        );
        assert_eq!(both("http://a.example/"), of("http://a.example/in?a", "http://a.example:80"));
        assert_eq!(both("https://a.b:81/x"), of("https://a.b:81/x/in?a", "https://a.b/x"));
        assert_eq!(both("https://u:p@a.b"), of("https://u:p@a.b/in?a", "https://u:p@a.b:443"));
        assert_eq!(both("https://[::1]:8443"), of("https://[::1]:8443/in?a", "https://[::1]"));
        assert_eq!(both("https://[::1]"), of("https://[::1]/in?a", "https://[::1]:443"));
        for bad in [
            "",
            "a.example",
            "ftp://a",
            "https://",
            "https://:1",
            "https://a:b",
            "https://a?b",
            "https://a b",
            "https://a:99999",
        ] {
            assert!(both(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn twilio_sorts_and_thins_the_pairs_and_tries_each_way_to_write_the_url() {
        let found = texts("url:twilio", "https://a.b", asked("/in"), "b=2&a=x&b=1&b=2&c");
        assert_eq!(found, ["https://a.b/inaxb1b2c", "https://a.b:443/inaxb1b2c"]);
        let found = texts("url:twilio", "https://a.b:81", asked("/in?q='x%27"), "");
        assert_eq!(
            found,
            [
                "https://a.b:81/in?q='x%27",
                "https://a.b/in?q='x%27",
                "https://a.b:81/in?q=%27x%27",
                "https://a.b/in?q=%27x%27",
                "https://a.b:81/in?q='x'",
                "https://a.b/in?q='x'"
            ]
        );
    }

    #[test]
    fn a_body_that_nothing_covers_is_refused() {
        let base = Base::new("https://a.b");
        let json = |target| Asked { target, form: false, get: false };
        let sum = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        for part in [Composed::Twilio, Composed::PlivoV3] {
            let verdict = |target, body| part.texts(base.as_ref(), json(target), body).err();
            assert_eq!(verdict("/in", b"{}"), Some(Reject::SignatureWrong), "{part:?}");
            assert_eq!(verdict("/in", b""), None, "{part:?}");
        }
        let good = format!("/in?bodySHA256={sum}");
        let twice = format!("{good}&bodySHA256={sum}");
        let upper = format!("/in?bodySHA256={}", sum.to_uppercase());
        for (target, body, reject) in [
            (&*good, &b"{}"[..], None),
            (&good, b"{ }", Some(Reject::SignatureWrong)),
            (&twice, b"{}", Some(Reject::SignatureWrong)),
            (&upper, b"{}", Some(Reject::SignatureWrong)),
            ("/in?bodySHA256=", b"{}", Some(Reject::SignatureWrong)),
        ] {
            let texts = Composed::Twilio.texts(base.as_ref(), json(target), body);
            let bound = texts.is_ok() && Composed::Twilio.binds(json(target), body);
            assert_eq!((!bound).then_some(Reject::SignatureWrong), reject, "{target}");
        }
        assert_eq!(Composed::Url.texts(None, asked("/"), b""), Err(Reject::CannotVerify));
    }

    #[test]
    fn plivo_parts_query_and_form_only_where_both_are() {
        let text = |target, body| texts("url:plivo-v3", "https://a.b", asked(target), body);
        assert_eq!(text("/in", ""), ["https://a.b/in"]);
        assert_eq!(text("/in", "b=2&a=+1"), ["https://a.b/in?a 1b2"]);
        assert_eq!(text("/in/?d=c&a=%20b", ""), ["https://a.b/in/?a= b&d=c"]);
        assert_eq!(text("/in?d=c", "b=2"), ["https://a.b/in?d=c.b2"]);
    }

    #[test]
    fn the_other_parts_are_what_their_names_say() {
        let of = |part| texts(part, "https://a.b", asked("/in?b=2&a=1%20"), "123456789");
        assert_eq!(of("url"), ["https://a.b/in?b=2&a=1%20"]);
        assert_eq!(of("query"), ["a=1 &b=2"]);
        assert_eq!(of("body:crc32"), ["3421780262"]);
        let sum = Composed::BodySha256.texts(None, asked("/"), b"").expect("a digest");
        assert_eq!(SignatureEncoding::Hex.encode(&sum[0])[..8], *"e3b0c442");
        assert_eq!(Composed::named("url:other"), None);
    }
}
