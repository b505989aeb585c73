//! Where the API of a cloud is: scheme and authority of a URL, over TLS unless that is not wanted.

use http::Uri;
use http::uri::PathAndQuery;

use super::Section;

/// What the URL under this key says of it, or the key's default.
pub(super) fn endpoint(
    section: &Section<'_>,
    key: &'static str,
    cure: &str,
    allow_http: bool,
) -> Option<Uri> {
    let url: Option<Uri> = section.text_or_default(key)?.parse().ok();
    let whole = url.filter(|url| {
        matches!(url.scheme_str(), Some("https" | "http"))
            && url.query().is_none()
            && url.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    });
    let Some(url) = whole else {
        section.refuse(key, "is no URL of an API", cure);
        return None;
    };
    if url.scheme_str() == Some("http") && !allow_http {
        let cure = "write https://, or allow_http = true if nobody can listen on the way";
        section.refuse(key, "is without TLS", cure);
        return None;
    }
    let mut parts = url.into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static("/"));
    Uri::from_parts(parts).ok()
}
