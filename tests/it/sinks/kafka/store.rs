//! Where the broker keeps its log: as much of S3 as it asks for, in the memory of the tests, so
//! that a broker that is killed finds all of it again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use tokio::sync::Mutex;

pub(super) const BUCKET: &str = "log";

/// An object's version and bytes, by its key.
type Objects = Arc<Mutex<BTreeMap<String, (u64, Bytes)>>>;

/// A store on a port of its own, for as long as the tests run.
pub(super) fn start() -> u16 {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        super::super::now(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let router = Router::new().fallback(answer).with_state(Objects::default());
            axum::serve(listener, router).await.unwrap();
        });
    });
    port
}

async fn answer(State(objects): State<Objects>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let path = percent_decode_str(head.uri.path()).decode_utf8().unwrap();
    let key = path.trim_start_matches('/').strip_prefix(BUCKET).unwrap().trim_start_matches('/');
    let query: BTreeMap<String, String> =
        form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    let mut objects = objects.lock().await;
    match head.method {
        Method::GET if query.contains_key("list-type") => list(&objects, &query),
        Method::GET | Method::HEAD => get(&objects, key, &head.headers),
        Method::PUT => put(&mut objects, key, &head.headers, body),
        Method::DELETE => {
            objects.remove(key);
            respond(StatusCode::NO_CONTENT, Body::empty())
        }
        method => panic!("the broker asks for {method} {path} {query:?}"),
    }
}

fn respond(status: StatusCode, body: impl Into<Body>) -> Response {
    Response::builder().status(status).body(body.into()).unwrap()
}

fn tag(version: u64) -> String {
    format!("\"{version}\"")
}

/// Whether the conditions of a request hold for what is there.
fn holds(there: Option<&(u64, Bytes)>, headers: &HeaderMap) -> bool {
    let said = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let is =
        |wanted: &str| there.is_some_and(|(version, _)| wanted == "*" || wanted == tag(*version));
    said(header::IF_MATCH).is_none_or(|wanted| is(&wanted))
        && said(header::IF_NONE_MATCH).is_none_or(|wanted| !is(&wanted))
}

fn get(objects: &BTreeMap<String, (u64, Bytes)>, key: &str, headers: &HeaderMap) -> Response {
    let Some(object) = objects.get(key) else {
        return respond(StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>");
    };
    if !holds(Some(object), headers) {
        return respond(StatusCode::NOT_MODIFIED, Body::empty());
    }
    let (version, bytes) = object;
    let range = headers.get(header::RANGE).map(|range| range.to_str().unwrap());
    let mut response = Response::builder()
        .header(header::ETAG, tag(*version))
        .header(header::LAST_MODIFIED, "Thu, 01 Jan 2026 00:00:00 GMT");
    let body = match range {
        None => bytes.clone(),
        Some(range) => {
            let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
            let first: usize = first.parse().unwrap();
            let end = last.parse().map_or(bytes.len(), |last: usize| bytes.len().min(last + 1));
            let said = format!("bytes {first}-{}/{}", end - 1, bytes.len());
            response =
                response.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, said);
            bytes.slice(first..end)
        }
    };
    response.body(body.into()).unwrap()
}

fn put(
    objects: &mut BTreeMap<String, (u64, Bytes)>,
    key: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> Response {
    let there = objects.get(key);
    if !holds(there, headers) {
        let why = "<Error><Code>PreconditionFailed</Code></Error>";
        return respond(StatusCode::PRECONDITION_FAILED, why);
    }
    let version = there.map_or(1, |(version, _)| version + 1);
    objects.insert(key.to_owned(), (version, body));
    Response::builder().header(header::ETAG, tag(version)).body(Body::empty()).unwrap()
}

fn list(objects: &BTreeMap<String, (u64, Bytes)>, query: &BTreeMap<String, String>) -> Response {
    let word = |name: &str| query.get(name).map_or("", String::as_str);
    let (prefix, delimiter, after) = (word("prefix"), word("delimiter"), word("start-after"));
    let mut text = String::from("<ListBucketResult><IsTruncated>false</IsTruncated>");
    let mut folders = BTreeSet::new();
    for (key, (version, bytes)) in objects.range(prefix.to_owned()..) {
        let Some(rest) = key.strip_prefix(prefix) else { break };
        if !delimiter.is_empty()
            && let Some((folder, _)) = rest.split_once(delimiter)
        {
            folders.insert(format!("{prefix}{folder}{delimiter}"));
        } else if key.as_str() > after {
            write!(
                text,
                "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                 <ETag>{}</ETag><Size>{}</Size></Contents>",
                tag(*version),
                bytes.len()
            )
            .unwrap();
        }
    }
    for folder in folders {
        write!(text, "<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>").unwrap();
    }
    text.push_str("</ListBucketResult>");
    respond(StatusCode::OK, text)
}
