//! Bodies: parsed and written anew, with other line ends, in another charset, with or without a
//! mark of their byte order.

use std::borrow::Cow;

use bytes::Bytes;

use super::json::{self, Tree};
use super::{Case, Cause, Guess, Layer};

const BOM: &[u8] = b"\xef\xbb\xbf";
/// Above this a body is not written anew as JSON.
const JSON_BYTES_MAX: usize = 4 * 1024 * 1024;

const CURE_BYTES: &str = "hand the body on as the bytes that arrived: verify before anything \
                          parses it (request.body in bytes, express.raw(), php://input)";
const CURE_CAPTURE: &str = "capture the body as bytes (curl --data-binary, no editor), and see \
                            that no proxy rewrites it";

/// The case with its body in every form that it may have had when it was signed.
pub(super) fn guesses(case: &Case) -> Vec<Guess> {
    let mut guesses = Vec::new();
    let mut guess = |told: Cause, body: Vec<u8>| {
        if body != *case.body {
            guesses.push((told, Case { body: Bytes::from(body), ..case.clone() }));
        }
    };
    for (code, what, cure, change) in FORMS {
        if let Some(body) = change(&case.body) {
            guess(Cause::new(code, Layer::Body, *what, *cure), body);
        }
    }
    let text = std::str::from_utf8(&case.body).ok().filter(|text| text.len() <= JSON_BYTES_MAX);
    if let Some(tree) = text.and_then(Tree::read) {
        for (style, described) in json::styles() {
            let written = tree.write(style);
            for (end, ended) in [("", ""), ("\n", ", with a line end")] {
                let what = format!(
                    "the JSON was parsed and written anew: what was signed is the same document \
                     {described}{ended}"
                );
                let told = Cause::new("json_rewritten", Layer::Body, what, CURE_BYTES);
                guess(told, format!("{written}{end}").into_bytes());
            }
        }
    }
    guesses
}

/// Another form of a body, if it has one.
type Form = fn(&[u8]) -> Option<Vec<u8>>;

/// What happened to the body, the cure, and how to undo it.
const FORMS: &[(&str, &str, &str, Form)] = &[
    ("newline_missing", "the line end at the end of the body was cut off", CURE_CAPTURE, |body| {
        Some([body, b"\n"].concat())
    }),
    ("newline_missing", "CR LF at the end of the body was cut off", CURE_CAPTURE, |body| {
        Some([body, b"\r\n"].concat())
    }),
    ("newline_added", "a line end was added to the body", CURE_CAPTURE, |body| {
        let cut = body.strip_suffix(b"\n")?;
        Some(cut.strip_suffix(b"\r").unwrap_or(cut).to_vec())
    }),
    ("newline_added", "white space was added around the body", CURE_CAPTURE, |body| {
        Some(body.trim_ascii().to_vec())
    }),
    ("line_ends", "the line ends of the body were CR LF and are LF", CURE_CAPTURE, |body| {
        Some(to_crlf(&to_lf(body)))
    }),
    ("line_ends", "the line ends of the body were LF and are CR LF", CURE_CAPTURE, |body| {
        Some(to_lf(body).into_owned())
    }),
    (
        "newline_missing",
        "the line ends were CR LF and are LF, and the last was cut off",
        CURE_CAPTURE,
        |body| Some(to_crlf(&[&*to_lf(body), b"\n"].concat())),
    ),
    ("bom_removed", "the body began with a byte order mark", CURE_BYTES, |body| {
        Some([BOM, body].concat())
    }),
    ("bom_added", "a byte order mark was put before the body", CURE_BYTES, |body| {
        body.strip_prefix(BOM).map(<[u8]>::to_vec)
    }),
    ("charset", "the body was in Latin-1 and is in UTF-8, or in UTF-8 twice", CURE_BYTES, |body| {
        let text = std::str::from_utf8(body).ok().filter(|text| !text.is_ascii())?;
        text.chars().map(|character| u8::try_from(u32::from(character)).ok()).collect()
    }),
    (
        "charset",
        "the body was in windows-1252 and is in UTF-8, or in UTF-8 twice",
        CURE_BYTES,
        |body| {
            let text = std::str::from_utf8(body).ok().filter(|text| !text.is_ascii())?;
            text.chars().map(windows_1252).collect()
        },
    ),
    ("charset", "the body was in UTF-8 and is in Latin-1", CURE_BYTES, |body| {
        let text: String = body.iter().map(|byte| char::from(*byte)).collect();
        (!body.is_ascii()).then(|| text.into_bytes())
    }),
    ("charset", "the body was in UTF-8 and is in UTF-16", CURE_BYTES, |body| {
        let (pairs, rest) = body.as_chunks::<2>();
        let units: Vec<u16> = match pairs.split_first()? {
            ([0xff, 0xfe], pairs) => pairs.iter().map(|pair| u16::from_le_bytes(*pair)).collect(),
            ([0xfe, 0xff], pairs) => {
                pairs.iter().map(|[high, low]| u16::from_le_bytes([*low, *high])).collect()
            }
            _ => return None,
        };
        rest.is_empty().then(|| String::from_utf16(&units).ok())?.map(String::into_bytes)
    }),
    ("form_rewritten", "the form was decoded and written anew, with `+`", CURE_BYTES, |body| {
        form(body).then(|| replaced(body, "%20", "+"))
    }),
    ("form_rewritten", "the form was decoded and written anew, with %20", CURE_BYTES, |body| {
        form(body).then(|| replaced(body, "+", "%20"))
    }),
    ("body_lost", "what was signed is an empty body", CURE_BYTES, |_| Some(Vec::new())),
];

/// Whether it looks like a form.
fn form(body: &[u8]) -> bool {
    body.contains(&b'=') && body.is_ascii() && !body.contains(&b' ') && !body.contains(&b'{')
}

fn replaced(body: &[u8], from: &str, to: &str) -> Vec<u8> {
    String::from_utf8_lossy(body).replace(from, to).into_bytes()
}

fn to_lf(body: &[u8]) -> Cow<'_, [u8]> {
    if !body.contains(&b'\r') {
        return Cow::Borrowed(body);
    }
    let mut text = Vec::with_capacity(body.len());
    for (index, byte) in body.iter().enumerate() {
        if *byte != b'\r' || body.get(index + 1) != Some(&b'\n') {
            text.push(*byte);
        }
    }
    Cow::Owned(text)
}

fn to_crlf(body: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(body.len() + 16);
    for byte in body {
        if *byte == b'\n' {
            text.push(b'\r');
        }
        text.push(*byte);
    }
    text
}

/// What windows-1252 has from 0x80 to 0x9f; where it has nothing, browsers take the control.
#[rustfmt::skip]
const WINDOWS_1252: [char; 32] = [
    '\u{20ac}', '\u{81}', '\u{201a}', '\u{192}', '\u{201e}', '\u{2026}', '\u{2020}', '\u{2021}',
    '\u{2c6}', '\u{2030}', '\u{160}', '\u{2039}', '\u{152}', '\u{8d}', '\u{17d}', '\u{8f}',
    '\u{90}', '\u{2018}', '\u{2019}', '\u{201c}', '\u{201d}', '\u{2022}', '\u{2013}', '\u{2014}',
    '\u{2dc}', '\u{2122}', '\u{161}', '\u{203a}', '\u{153}', '\u{9d}', '\u{17e}', '\u{178}',
];

fn windows_1252(character: char) -> Option<u8> {
    match u8::try_from(u32::from(character)) {
        Ok(byte) if !(0x80..0xa0).contains(&byte) => Some(byte),
        _ => {
            let place = WINDOWS_1252.iter().position(|known| *known == character)?;
            u8::try_from(place + 0x80).ok()
        }
    }
}
