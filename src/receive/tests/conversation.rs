//! What peers say: requests that are nearly alike, as a sender's are, with everything in them on
//! which two readers of HTTP were ever seen to differ.

use std::collections::VecDeque;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::peer::Script;

/// A conversation, as bytes and as it is cut.
#[derive(Clone, Debug)]
pub(super) struct Conversation {
    pub(super) script: Script,
    /// The first chunk was read before, as behind a proxy that introduces its client.
    pub(super) introduced: bool,
}

#[derive(Clone, Debug)]
struct Request {
    method: &'static str,
    target: String,
    version: &'static str,
    lines: Vec<Line>,
    body: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Line {
    name: String,
    colon: &'static str,
    value: Value,
    end: &'static str,
}

#[derive(Clone, Debug)]
enum Value {
    Text(Vec<u8>),
    /// The length of the body, between these.
    Length(&'static str, &'static str),
}

/// How a request differs from the one before.
#[derive(Clone, Debug)]
enum Edit {
    Value(Index, Value),
    /// As `Value`, but of a line that is no length.
    Text(Index, Value),
    Case(Index, usize),
    Colon(Index, &'static str),
    End(Index, &'static str),
    Swap(Index, Index),
    Remove(Index),
    Add(Index, Line),
    Double(Index, Index),
    Length(&'static str, &'static str),
    Lines(usize),
    Wide(usize),
    Method(&'static str),
    Target(&'static str),
    Version(&'static str),
    Body(Vec<u8>),
}

/// A change of bytes, wherever they stand.
#[derive(Clone, Debug)]
enum Mutation {
    Set(Index, u8),
    Insert(Index, &'static [u8]),
    Remove(Index, usize),
}

const NAMES: &[&str] = &[
    "host",
    "content-type",
    "webhook-id",
    "x-a",
    "X-B",
    "x-empty",
    "x-do",
    "connection",
    "transfer-encoding",
    "expect",
    "upgrade",
    "content-length",
    "te",
    "trailer",
    "keep-alive",
    "proxy-connection",
    "content-encoding",
    "http2-settings",
    "x_under",
    "x-!#$%&'*+.^`|~",
    "",
    "x y",
    "x\u{e9}",
];
const VALUES: &[&[u8]] = &[
    b"",
    b"a",
    b"b",
    b"5",
    b"0",
    b"16",
    b"+5",
    b"0x5",
    b"5, 5",
    b"5,6",
    b"-1",
    b"005",
    b"1 6",
    b"18446744073709551615",
    b"18446744073709551617",
    b"999999999999999999",
    b"99999999999999999999999",
    b"close",
    b"Close",
    b"keep-alive",
    b"Keep-Alive",
    b"keep-alive, close",
    b"close, keep-alive",
    b"upgrade",
    b"upgrade, http2-settings",
    b"chunked",
    b"Chunked",
    b"gzip, chunked",
    b"chunked, chunked",
    b"identity",
    b"xchunked",
    b"chunked;q=1",
    b"\x0bchunked",
    b"100-continue",
    b"100-Continue",
    b"200-ok",
    b"h2c",
    b"websocket",
    b"trailers",
    b"caf\xc3\xa9 \xff",
    b"a\tb",
    b"a\0b",
    b"a\x7fb",
    b"a\r\n folded",
    b"a\r\n\tContent-Length: 3",
    b"a\rb",
    b"a\nb: c",
    b"refuse",
    b"stop",
    b"wait",
    b"nothing",
    b"204",
    b"205",
    b"202",
    b"299",
    b"503",
];
const PLAIN_VALUES: &[&[u8]] = &[b"a", b"forebay.test", b"", b"v1,g0hM9SsE", b"\xe6\x9d\xb1"];
const NEW_VALUES: &[&[u8]] = &[b"a", b"wait", b"204", b"keep-alive", b"v1,\xff"];
const DEEDS: &[&[u8]] =
    &[b"refuse", b"stop", b"wait", b"nothing", b"204", b"202", b"503", b"299", b"close"];
const TARGETS: &[&str] = &[
    "/",
    "/std",
    "/std?q=1&r=%20",
    "/std?q=2",
    "//double//slash",
    "/a#fragment",
    "/\"quoted\"",
    "/{braces}|",
    "/caf\u{e9}",
    "?q",
    "*",
    "std",
    "http://forebay.test/std",
    "http://forebay.test",
    "https://other.test:443/std?x",
    "forebay.test:443",
    "/a b",
    "",
    "/%",
    "/\\",
    "/a?b?c#d",
];

/// Conversations of one to five requests.
pub(super) fn conversations() -> impl Strategy<Value = Conversation> {
    let edits = || vec(prop_oneof![2 => change(), 1 => attack()], 0..3);
    let requests =
        (request(), edits(), vec((edits(), 0..4_u8), 0..5)).prop_map(|(mut base, first, more)| {
            base.edit_all(first);
            let mut requests = vec![base.clone()];
            for (edits, kept) in more {
                let mut next = base.clone();
                next.edit_all(edits);
                if kept == 0 {
                    base = next.clone();
                }
                requests.push(next);
            }
            requests
        });
    let mutations = prop_oneof![3 => Just(Vec::new()), 1 => vec(mutation(), 1..4)];
    let cuts = prop_oneof![
        3 => Just(vec![usize::MAX]),
        2 => vec(1..40_usize, 1..6),
        4 => vec(1..3_000_usize, 1..8),
        3 => vec(1..20_000_usize, 1..4),
        1 => Just(vec![8192]),
    ];
    let ends = (any::<bool>(), any::<bool>(), any::<bool>());
    (requests, mutations, cuts, vec(any::<Index>(), 0..2), ends).prop_map(
        |(requests, mutations, cuts, cut_off, (ends, slow, introduced))| {
            let mut bytes: Vec<u8> = requests.iter().flat_map(Request::bytes).collect();
            for mutation in mutations {
                mutation.apply(&mut bytes);
            }
            if let Some(at) = cut_off.first() {
                // Most are whole: the first half of all places is far behind the first request.
                bytes.truncate(at.index(2 * bytes.len() + 1));
            }
            let script = Script { chunks: cut(&bytes, &cuts), ends, slow };
            Conversation { script, introduced }
        },
    )
}

/// Cuts bytes into parts of these sizes, over and over.
pub(super) fn cut(mut bytes: &[u8], sizes: &[usize]) -> VecDeque<Bytes> {
    let mut chunks = VecDeque::new();
    for size in sizes.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (chunk, rest) = bytes.split_at(bytes.len().min(*size));
        chunks.push_back(Bytes::copy_from_slice(chunk));
        bytes = rest;
    }
    chunks
}

fn request() -> impl Strategy<Value = Request> {
    let names = select(&["host", "Host", "content-type", "webhook-id", "x-a", "X-A", "x-b"][..]);
    let values = select(PLAIN_VALUES);
    let plain = (names, values).prop_map(|(name, value)| Line::new(name, value));
    (vec(plain, 0..6), any::<Index>(), body()).prop_map(|(mut lines, at, body)| {
        let length = Line { value: Value::Length("", ""), ..Line::new("Content-Length", b"") };
        lines.insert(at.index(lines.len() + 1), length);
        let target = "/std".to_owned();
        Request { method: "POST", target, version: "HTTP/1.1", lines, body }
    })
}

/// Bodies, some of which look like requests, or like the framing of one.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let hidden = &b"POST /smuggled HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"[..];
    let chunks = &b"5\r\nhello\r\n0\r\n\r\n"[..];
    prop_oneof![
        2 => Just(Vec::new()),
        4 => (0..200_usize).prop_map(|bytes| b"{\"n\":[1,2]}\r\n\r\n".repeat(20)[..bytes].to_vec()),
        2 => Just(hidden.to_vec()),
        2 => Just(chunks.to_vec()),
        1 => Just([chunks, hidden].concat()),
        1 => Just([&b"0\r\n\r\n"[..], hidden].concat()),
        2 => (0..20_000_usize).prop_map(|bytes| vec![b'x'; bytes]),
    ]
}

/// What a sender does from one request to the next.
fn change() -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    let text = || select(PLAIN_VALUES).prop_map(|value| Value::Text(value.to_vec()));
    let names = select(&["x-a", "X-C", "x-do", "x-d", "Connection"][..]);
    let values = select(NEW_VALUES);
    let line = (names, values).prop_map(|(name, value)| Line::new(name, value));
    prop_oneof![
        3 => (at(), text()).prop_map(|(at, value)| Edit::Text(at, value)),
        2 => (at(), any::<usize>()).prop_map(|(at, mask)| Edit::Case(at, mask)),
        2 => (at(), at()).prop_map(|(one, other)| Edit::Swap(one, other)),
        2 => (at(), line).prop_map(|(at, line)| Edit::Add(at, line)),
        1 => select(&TARGETS[..3]).prop_map(Edit::Target),
        5 => body().prop_map(Edit::Body),
    ]
}

/// What nobody does who means well, or nobody who is well.
fn attack() -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    let text = || select(VALUES).prop_map(|value| Value::Text(value.to_vec()));
    let line = (select(NAMES), select(VALUES)).prop_map(|(name, value)| Line::new(name, value));
    let known = prop_oneof![
        select(DEEDS).prop_map(|value| Line::new("x-do", value)),
        select(&["close", "keep-alive", "Keep-Alive", "x"][..])
            .prop_map(|value| Line::new("connection", value.as_bytes())),
        select(&["chunked", "Chunked", "gzip", "chunked, x", ""][..])
            .prop_map(|value| Line::new("transfer-encoding", value.as_bytes())),
        Just(Line { value: Value::Length("", ""), ..Line::new("content-length", b"") }),
        Just(Line { value: Value::Length("", ""), ..Line::new("CONTENT-LENGTH", b"") }),
        Just(Line::new("expect", b"100-continue")),
    ];
    let before = select(&["", "", "", "+", "0", "00000000000000000000", "0x", "-", " \t"][..]);
    let behind = select(&["", "", "", " ", "\t ", "0", ", 5", ";", "\r\n ", "\u{b}"][..]);
    prop_oneof![
        4 => (at(), text()).prop_map(|(at, value)| Edit::Value(at, value)),
        3 => (at(), any::<usize>()).prop_map(|(at, mask)| Edit::Case(at, mask)),
        1 => (at(), select(&[":", ":\t", ":   ", " : ", "", ": \r\n "][..]))
            .prop_map(|(at, colon)| Edit::Colon(at, colon)),
        1 => (at(), select(&["\n", "\r\n", "\r", " \r\n", "\t\r\n", "\r\n\r\n", "\r\r\n", ""][..]))
            .prop_map(|(at, end)| Edit::End(at, end)),
        2 => (at(), at()).prop_map(|(one, other)| Edit::Swap(one, other)),
        2 => at().prop_map(Edit::Remove),
        3 => (at(), line).prop_map(|(at, line)| Edit::Add(at, line)),
        4 => (at(), known).prop_map(|(at, line)| Edit::Add(at, line)),
        3 => (at(), at()).prop_map(|(at, to)| Edit::Double(at, to)),
        2 => (before, behind).prop_map(|(before, behind)| Edit::Length(before, behind)),
        1 => prop_oneof![60..70_usize, 95..106_usize].prop_map(Edit::Lines),
        1 => prop_oneof![8_000..8_400_usize, 16_000..16_600_usize, 0..30_000_usize]
            .prop_map(Edit::Wide),
        1 => select(&["POST", "GET", "HEAD", "PUT", "post", "CONNECT", "OPTIONS", "PRI", "P,T"][..])
            .prop_map(Edit::Method),
        2 => select(TARGETS).prop_map(Edit::Target),
        1 => select(&["HTTP/1.0", "HTTP/1.1", "HTTP/2.0", "HTTP/1.2", "http/1.1", "HTTP/1.1 ", ""][..])
            .prop_map(Edit::Version),
        5 => body().prop_map(Edit::Body),
    ]
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let bytes = select(&b"\r\n\0 \t:5aZ,/\x7f\x80\xff"[..]);
    let pieces: &[&[u8]] = &[
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b" ",
        b":",
        b"\0",
        b"5",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 3\r\n",
        b"content-length:16\r\n",
        b"POST /smuggled HTTP/1.1\r\n",
        b"\r\nConnection: close",
    ];
    prop_oneof![
        (any::<Index>(), bytes).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (any::<Index>(), select(pieces)).prop_map(|(at, piece)| Mutation::Insert(at, piece)),
        (any::<Index>(), 1..30_usize).prop_map(|(at, bytes)| Mutation::Remove(at, bytes)),
    ]
}

impl Line {
    fn new(name: &str, value: &[u8]) -> Self {
        let value = Value::Text(value.to_vec());
        Self { name: name.to_owned(), colon: ": ", value, end: "\r\n" }
    }
}

impl Request {
    fn edit_all(&mut self, edits: Vec<Edit>) {
        for edit in edits {
            self.edit(edit);
        }
    }

    fn edit(&mut self, edit: Edit) {
        let count = self.lines.len();
        match edit {
            Edit::Value(at, value) => self.at(at, |line| line.value = value),
            Edit::Text(at, value) => self.at(at, |line| {
                if matches!(line.value, Value::Text(_)) {
                    line.value = value;
                }
            }),
            Edit::Case(at, mask) => self.at(at, |line| line.name = cased(&line.name, mask)),
            Edit::Colon(at, colon) => self.at(at, |line| line.colon = colon),
            Edit::End(at, end) => self.at(at, |line| line.end = end),
            Edit::Swap(one, other) if count > 0 => {
                self.lines.swap(one.index(count), other.index(count));
            }
            Edit::Remove(at) if count > 0 => drop(self.lines.remove(at.index(count))),
            Edit::Add(at, line) => self.lines.insert(at.index(count + 1), line),
            Edit::Double(at, to) if count > 0 => {
                let line = self.lines[at.index(count)].clone();
                self.lines.insert(to.index(count + 1), line);
            }
            Edit::Length(before, behind) => {
                for line in &mut self.lines {
                    if matches!(line.value, Value::Length(..)) {
                        line.value = Value::Length(before, behind);
                    }
                }
            }
            Edit::Lines(lines) => {
                let more = (count..lines).map(|at| Line::new(&format!("x-{}", at % 80), b"v"));
                self.lines.extend(more);
            }
            Edit::Wide(bytes) => {
                let room = bytes.saturating_sub(self.head().len());
                self.lines.push(Line::new("x-wide", &vec![b'w'; room]));
            }
            Edit::Method(method) => self.method = method,
            Edit::Target(target) => target.clone_into(&mut self.target),
            Edit::Version(version) => self.version = version,
            Edit::Body(body) => self.body = body,
            Edit::Swap(..) | Edit::Remove(_) | Edit::Double(..) => {}
        }
    }

    fn at(&mut self, at: Index, change: impl FnOnce(&mut Line)) {
        if !self.lines.is_empty() {
            let at = at.index(self.lines.len());
            change(&mut self.lines[at]);
        }
    }

    fn head(&self) -> Vec<u8> {
        let mut bytes =
            format!("{} {} {}\r\n", self.method, self.target, self.version).into_bytes();
        for Line { name, colon, value, end } in &self.lines {
            let value = match value {
                Value::Text(text) => text.clone(),
                Value::Length(before, behind) => {
                    format!("{before}{}{behind}", self.body.len()).into_bytes()
                }
            };
            bytes.extend_from_slice(
                &[name.as_bytes(), colon.as_bytes(), &value, end.as_bytes()].concat(),
            );
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    }

    fn bytes(&self) -> Vec<u8> {
        [self.head(), self.body.clone()].concat()
    }
}

fn cased(name: &str, mask: usize) -> String {
    let upper = |at: usize| mask.checked_shr(u32::try_from(at).unwrap_or(0)).unwrap_or(0) & 1 == 1;
    name.char_indices()
        .map(
            |(at, each)| {
                if upper(at) { each.to_ascii_uppercase() } else { each.to_ascii_lowercase() }
            },
        )
        .collect()
}

impl Mutation {
    fn apply(self, bytes: &mut Vec<u8>) {
        match self {
            Self::Set(at, byte) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            Self::Insert(at, piece) => {
                let at = at.index(bytes.len() + 1);
                bytes.splice(at..at, piece.iter().copied());
            }
            Self::Remove(at, count) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Self::Set(..) | Self::Remove(..) => {}
        }
    }
}
