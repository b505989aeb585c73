//! The log as a consumer sees it: rows of `forebay tail --json`.

use std::process::Output;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

/// One record, as `tail --json` prints it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Row {
    pub(crate) position: String,
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) key: String,
    pub(crate) received_at: String,
    pub(crate) lane: String,
    pub(crate) source: Option<String>,
    pub(crate) environment: Option<String>,
    pub(crate) event_id: Option<String>,
    pub(crate) event_type: Option<String>,
    pub(crate) event_time: Option<String>,
    pub(crate) tenant: Option<String>,
    pub(crate) secret: Option<String>,
    #[serde(default)]
    pub(crate) suspect_replay: bool,
    #[serde(default)]
    pub(crate) headers: serde_json::Value,
    body: Option<String>,
    body_base64: Option<String>,
}

impl Row {
    pub(crate) fn is_event(&self) -> bool {
        self.kind == "event"
    }

    pub(crate) fn is_delivery(&self) -> bool {
        self.kind == "delivery"
    }

    /// The event's id; fails when the record has none.
    pub(crate) fn id(&self) -> &str {
        self.event_id.as_deref().unwrap_or_else(|| panic!("a record without an id: {self:?}"))
    }

    /// The body as it was received.
    pub(crate) fn body(&self) -> Vec<u8> {
        match (&self.body, &self.body_base64) {
            (Some(text), None) => text.clone().into_bytes(),
            (None, Some(base64)) => BASE64.decode(base64).expect("body_base64 is base64"),
            (None, None) => Vec::new(),
            (Some(_), Some(_)) => panic!("a row with both body and body_base64: {self:?}"),
        }
    }

    /// The body replaced, for a check of what checks it.
    pub(crate) fn with_body(mut self, body: &str) -> Self {
        self.body = Some(body.to_owned());
        self.body_base64 = None;
        self
    }
}

/// The rows of a tail that has ended; fails when it did not end well.
pub(crate) fn rows(output: &Output) -> Vec<Row> {
    assert!(
        output.status.success(),
        "tail: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let text = std::str::from_utf8(&output.stdout).expect("tail writes UTF-8");
    text.lines().map(row).collect()
}

/// One row.
pub(crate) fn row(line: &str) -> Row {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("not a row: {error}: {line}"))
}
