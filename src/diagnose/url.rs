//! URLs: what the sender called, and what a proxy has made of it.

use http::HeaderMap;

use super::{Case, Cause, Guess, Layer};

/// Headers in which proxies say which target they were asked for.
const TARGET_HEADERS: [&str; 6] = [
    "x-original-uri",
    "x-original-url",
    "x-forwarded-uri",
    "x-rewrite-url",
    "x-envoy-original-path",
    "x-replaced-path",
];
/// Headers in which they say which host.
const HOST_HEADERS: [&str; 3] = ["x-forwarded-host", "x-original-host", "host"];

/// The case under every other URL that the sender may have called; none where no URL is signed.
pub(super) fn guesses(case: &Case) -> Vec<Guess> {
    let scheme = &case.scheme;
    let of_url = scheme.signed.iter().any(|part| part.starts_with("url"));
    if !of_url && !scheme.signed.iter().any(|part| part == "query") {
        return Vec::new();
    }
    let base = case.settings.public_url.as_deref().filter(|_| of_url);
    let bases = bases(base.unwrap_or_default(), &case.headers);
    let mut guesses = Vec::new();
    for base in &bases {
        for target in targets(&case.target, &case.headers) {
            let what = format!(
                "the sender signed the URL {base}{target}, and here it is known as {}{}",
                case.settings.public_url.as_deref().unwrap_or_default(),
                case.target
            );
            let cure = "set `public_url` to what the sender calls, and let the proxy hand path \
                        and query on as they are";
            let mut other = case.clone();
            other.target = target;
            if of_url {
                other.settings.public_url = Some(base.clone());
            }
            guesses.push((Cause::new("url_changed", Layer::Url, what, cure), other));
        }
    }
    guesses
}

/// Scheme and host in every form.
fn bases(known: &str, headers: &HeaderMap) -> Vec<String> {
    let (_, authority) = known.split_once("://").unwrap_or(("", known));
    let authority = authority.trim_end_matches('/');
    let (host, prefix) = authority
        .split_once('/')
        .map_or((authority, String::new()), |(host, rest)| (host, format!("/{rest}")));
    let named = HOST_HEADERS.iter().filter_map(|name| headers.get(*name)?.to_str().ok());
    let mut bases = Vec::new();
    for host in std::iter::once(host).chain(named) {
        let bare = host.rsplit_once(':').map_or(host, |(bare, _)| bare);
        for host in [host, bare, &format!("{bare}:8080"), &format!("{bare}:8443")] {
            for scheme in ["https", "http"] {
                for prefix in [prefix.as_str(), ""] {
                    add(&mut bases, format!("{scheme}://{host}{prefix}"));
                }
            }
        }
    }
    bases
}

/// Path and query in every form.
fn targets(known: &str, headers: &HeaderMap) -> Vec<String> {
    let header = |name: &str| headers.get(name)?.to_str().ok();
    let mut roots = vec![known.to_owned()];
    roots.extend(TARGET_HEADERS.iter().filter_map(|name| header(name)).map(str::to_owned));
    if let Some(prefix) = header("x-forwarded-prefix") {
        roots.push(format!("{}{known}", prefix.trim_end_matches('/')));
    }
    let mut targets = Vec::new();
    for root in roots {
        let (path, query) = match root.split_once('?') {
            Some((path, query)) => (path, format!("?{query}")),
            None => (root.as_str(), String::new()),
        };
        let bare = path.trim_end_matches('/');
        for path in [path, bare, &format!("{bare}/")] {
            add(&mut targets, format!("{path}{query}"));
            add(&mut targets, path.to_owned());
            add(&mut targets, format!("{path}{}", query.replace('+', "%20")));
            add(&mut targets, format!("{path}{}", query.replace("%20", "+")));
        }
    }
    targets
}

fn add(list: &mut Vec<String>, text: String) {
    if !list.contains(&text) {
        list.push(text);
    }
}
