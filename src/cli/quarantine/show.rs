//! A request in quarantine as it is printed. What came from outside is escaped for people.

use std::borrow::Cow;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::cli::row::{harmless, time_text};
use crate::cli::when::second_text;
use crate::diagnose::Verdict;
use crate::quarantine::HeldRequest;

/// What stands in every row of JSON.
fn facts(held: &HeldRequest) -> Map<String, Value> {
    let facts = [
        ("position", held.position.to_string()),
        ("received_at", time_text(held.received_ns)),
        ("source", held.source.clone()),
        ("reason", held.reason.clone()),
        ("method", held.method.clone()),
        ("target", held.target.clone()),
        ("peer", held.peer.clone()),
    ];
    let mut row: Map<String, Value> =
        facts.into_iter().map(|(key, text)| (key.to_owned(), text.into())).collect();
    row.insert("body_bytes".to_owned(), held.body.len().into());
    row
}

/// One line.
pub(super) fn line(out: &mut dyn Write, held: &HeldRequest, json: bool) -> io::Result<()> {
    if json {
        return writeln!(out, "{}", Value::Object(facts(held)));
    }
    writeln!(
        out,
        "{}  {}  {}  {}  {} {}  {} bytes from {}",
        held.position,
        second_text(held.received_ns),
        harmless(&held.source),
        harmless(&held.reason),
        harmless(&held.method),
        harmless(&held.target),
        held.body.len(),
        harmless(&held.peer),
    )
}

/// The whole request.
pub(super) fn whole(out: &mut dyn Write, held: &HeldRequest, json: bool) -> io::Result<()> {
    let text = |bytes| String::from_utf8_lossy(bytes);
    if json {
        let mut row = facts(held);
        let headers =
            held.headers.iter().map(|(name, value)| match std::str::from_utf8(value.as_bytes()) {
                Ok(text) => json!([name.as_str(), text]),
                Err(_) => json!([name.as_str(), { "base64": STANDARD.encode(value) }]),
            });
        row.insert("headers".to_owned(), headers.collect());
        let digested = held.digested.iter().map(http::HeaderName::as_str);
        row.insert("digested_headers".to_owned(), digested.collect());
        match std::str::from_utf8(&held.body) {
            Ok(text) => row.insert("body".to_owned(), text.into()),
            Err(_) => row.insert("body_base64".to_owned(), STANDARD.encode(&held.body).into()),
        };
        return writeln!(out, "{}", Value::Object(row));
    }
    line(out, held, false)?;
    for (name, value) in &held.headers {
        writeln!(out, "  {name}: {}", harmless(&text(value.as_bytes())))?;
    }
    for name in &held.digested {
        writeln!(out, "  {name}: (kept as a digest)")?;
    }
    writeln!(out)?;
    for text in text(&held.body).lines() {
        writeln!(out, "  {}", harmless(text))?;
    }
    Ok(())
}

/// Raw HTTP, byte-exact.
pub(super) fn http(out: &mut dyn Write, held: &HeldRequest, _json: bool) -> io::Result<()> {
    write!(out, "{} {} HTTP/1.1\r\n", held.method, held.target)?;
    for (name, value) in &held.headers {
        // The body is whole, and chunks and lengths of its transfer are over.
        if *name != http::header::TRANSFER_ENCODING && *name != http::header::CONTENT_LENGTH {
            write!(out, "{name}: ")?;
            out.write_all(value.as_bytes())?;
            out.write_all(b"\r\n")?;
        }
    }
    write!(out, "content-length: {}\r\n\r\n", held.body.len())?;
    out.write_all(&held.body)
}

/// What a request would be judged as now.
pub(super) fn verdict(
    out: &mut dyn Write,
    held: &HeldRequest,
    verdict: &Verdict,
    json: bool,
) -> io::Result<()> {
    let digested: Vec<&str> = held.digested.iter().map(http::HeaderName::as_str).collect();
    let (secret, refusal) = match verdict {
        Verdict::Verified { secret } => (Some(secret), None),
        Verdict::Refused(refusal) => (None, Some(refusal)),
    };
    let fault = refusal.map(|refusal| refusal.fault.to_string());
    if json {
        let mut row = facts(held);
        let causes = refusal.into_iter().flat_map(|refusal| &refusal.causes).map(
            |cause| json!({ "code": cause.code, "layer": cause.layer.label(), "what": cause.what }),
        );
        row.insert("causes".to_owned(), causes.collect());
        row.insert("verified".to_owned(), secret.is_some().into());
        row.insert("secret".to_owned(), json!(secret));
        row.insert("detail".to_owned(), json!(fault));
        return writeln!(out, "{}", Value::Object(row));
    }
    let told: Cow<'_, str> = match (secret, fault) {
        (Some(secret), _) => format!("verifies now, with the secret `{secret}`").into(),
        (None, Some(fault)) => format!("refused as before: {fault}").into(),
        (None, None) => "".into(),
    };
    writeln!(out, "{}  {}  {told}", held.position, harmless(&held.source))?;
    for cause in refusal.into_iter().flat_map(|refusal| &refusal.causes) {
        writeln!(out, "  {}: {}\n    cure: {}", cause.layer.label(), cause.what, cause.cure)?;
    }
    if secret.is_none() && !digested.is_empty() {
        writeln!(out, "  kept as digests, and so not judged again: {}", digested.join(", "))?;
    }
    Ok(())
}
