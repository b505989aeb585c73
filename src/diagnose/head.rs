//! Headers: dropped, doubled or renamed on the way, and signatures written in another form.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Case, Cause, Guess, Layer};

/// What gateways put before the name of a header that they hand on.
const PREFIXES: [&str; 5] =
    ["http-", "x-forwarded-", "x-original-", "x-amzn-remapped-", "x-envoy-original-"];

/// The headers that the scheme speaks of, each with its aliases.
fn needed(case: &Case) -> Vec<Vec<HeaderName>> {
    let scheme = &case.scheme;
    let time = scheme.time.as_ref().map(|time| time.from.as_str());
    let parts = scheme.signed.iter().map(String::as_str).chain(time);
    let spoken_of = parts.filter_map(|part| part.strip_prefix("header:"));
    let mut found: Vec<Vec<HeaderName>> = Vec::new();
    for name in std::iter::once(scheme.header.as_str()).chain(spoken_of) {
        let aliases = scheme.aliases.iter().filter(|(of, _)| of.eq_ignore_ascii_case(name));
        let names = std::iter::once(name).chain(aliases.flat_map(|(_, to)| to).map(String::as_str));
        let names: Vec<HeaderName> = names.filter_map(|name| name.parse().ok()).collect();
        if !names.is_empty() && !found.contains(&names) {
            found.push(names);
        }
    }
    found
}

/// The headers that must be there and are not, or stand twice.
pub(super) fn missing(case: &Case) -> Vec<Cause> {
    let mut causes = Vec::new();
    for names in needed(case) {
        let Some(name) = names.first() else { continue };
        let mut counts = names.iter().map(|name| case.headers.get_all(name).iter().count());
        let told = match counts.clone().sum() {
            0 => Cause::new(
                "header_dropped",
                Layer::Header,
                format!("the header `{name}` is not there, and the signature needs it"),
                "let the proxy hand it on; if the sender never sent it, this is not the sender's \
                 request or signing is not switched on there",
            ),
            _ if counts.any(|count| count > 1) => Cause::new(
                "header_doubled",
                Layer::Header,
                format!("the header `{name}` stands twice, so that nobody knows which was signed"),
                "find what adds it: usually a proxy that copies headers",
            ),
            _ => continue,
        };
        causes.push(told);
    }
    let parameter = case.scheme.query.as_deref().map(|name| format!("{name}="));
    if let Some(name) = parameter.filter(|name| !case.target.contains(name)) {
        let what = format!("the query has no `{name}`, which is what the source verifies by");
        let cure = "give the sender the URL with it, and let the proxy hand the query on";
        causes.push(Cause::new("query_dropped", Layer::Url, what, cure));
    }
    causes
}

/// The case with its headers under the names and in the forms in which they may have been sent.
pub(super) fn guesses(case: &Case) -> Vec<Guess> {
    let mut guesses = Vec::new();
    if let Some((which, headers)) = renamed(case) {
        let what = format!("a header arrives under another name: {which}");
        let cure = "let the proxy hand headers on under their own names (nginx: \
                    underscores_in_headers)";
        let told = Cause::new("header_renamed", Layer::Header, what, cure);
        guesses.push((told, Case { headers, ..case.clone() }));
    }
    let names = needed(case).into_iter().next().unwrap_or_default();
    for (what, change) in FORMS {
        let mut headers = case.headers.clone();
        let mut changed = false;
        for name in &names {
            let Some(value) = headers.get_mut(name) else { continue };
            let Ok(text) = value.to_str() else { continue };
            let form = change(text, case.scheme.prefix.as_deref().unwrap_or_default());
            if form != text
                && let Ok(form) = HeaderValue::from_str(&form)
            {
                *value = form;
                changed = true;
            }
        }
        if changed {
            let cure = "what changes it stands between the sender and here, or the sender is not \
                        the one that the preset describes";
            let told = Cause::new("signature_form", Layer::Header, *what, cure);
            guesses.push((told, Case { headers, ..case.clone() }));
        }
    }
    guesses
}

/// Another form of a signature, given the scheme's prefix.
type Form = fn(&str, &str) -> String;

const FORMS: &[(&str, Form)] = &[
    ("the signature is in capital hexadecimal, which is refused", |text, _| {
        text.to_ascii_lowercase()
    }),
    ("the signature lacks its prefix", |text, prefix| format!("{prefix}{text}")),
    ("the signature has a prefix that the scheme does not have", |text, prefix| {
        let bare = text.trim_start_matches(prefix);
        format!("{prefix}{}", bare.split_once(['=', ' ']).map_or(bare, |(_, rest)| rest))
    }),
    ("the signature has quotes around it", |text, _| text.trim_matches('"').to_owned()),
    ("the signature is base64url where base64 is meant", |text, prefix| {
        let bare = text.strip_prefix(prefix).unwrap_or(text);
        let lead = text.len() - bare.len();
        let mut bare = bare.replace('-', "+").replace('_', "/");
        while !bare.len().is_multiple_of(4) {
            bare.push('=');
        }
        format!("{}{bare}", text.get(..lead).unwrap_or_default())
    }),
];

/// The headers with those under a foreign name brought home.
fn renamed(case: &Case) -> Option<(String, HeaderMap)> {
    let mut headers = case.headers.clone();
    let mut told = Vec::new();
    for names in needed(case) {
        let Some(wanted) = names.first() else { continue };
        if names.iter().any(|name| headers.contains_key(name)) {
            continue;
        }
        let found = case.headers.iter().find(|(name, _)| {
            let plain = name.as_str().replace('_', "-");
            let bare = PREFIXES.iter().find_map(|prefix| plain.strip_prefix(prefix));
            let bare = bare.unwrap_or(&plain);
            names.iter().any(|wanted| {
                let wanted = wanted.as_str();
                bare == wanted || wanted.strip_prefix("x-") == Some(bare)
            })
        });
        if let Some((name, value)) = found {
            told.push(format!("`{wanted}` as `{name}`"));
            headers.insert(wanted.clone(), value.clone());
        }
    }
    (!told.is_empty()).then(|| (told.join(", "), headers))
}
