//! A captured request: raw HTTP as a proxy, `tcpdump` or a debugger shows it, or its parts.
//!
//! Read kindly, since captures pass through many hands: line ends may be LF, the version may be
//! absent. The body is never changed, but for chunks put together and what lies behind a declared
//! length; what was done is said in `notes`.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

/// A request as far as a signature can be made over it.
#[derive(Debug)]
pub(super) struct Captured {
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// What is odd about the capture.
    pub(super) notes: Vec<String>,
}

impl Captured {
    /// One without headers and body.
    pub(super) fn new(method: Method, target: &str) -> Self {
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        Self { method, target: target.to_owned(), headers, body, notes: Vec::new() }
    }

    /// Reads raw HTTP/1; the error is a lower-case fragment.
    pub(super) fn parse(raw: &[u8]) -> Result<Self, String> {
        let raw = raw.trim_ascii_start();
        let (head, body) = split_head(raw);
        let head = String::from_utf8_lossy(head);
        let mut lines = head.lines();
        let first = lines.next().unwrap_or_default();
        let mut words = first.split_ascii_whitespace();
        let method = words.next().and_then(|word| word.parse().ok());
        let target = words.next().map(path_and_query).filter(|target| target.starts_with('/'));
        let (Some(method), Some(target)) = (method, target) else {
            return Err(format!(
                "the first line is {first:?} and not a request line such as \"POST /path HTTP/1.1\""
            ));
        };
        let mut captured = Self::new(method, target);
        let mut unfolded: Vec<String> = Vec::new();
        for line in lines {
            match unfolded.last_mut().filter(|_| line.starts_with([' ', '\t'])) {
                Some(last) => last.extend([" ", line.trim()]),
                None => unfolded.push(line.to_owned()),
            }
        }
        for line in &unfolded {
            captured.add_header(line)?;
        }
        captured.set_body(body);
        Ok(captured)
    }

    /// Adds `Name: value`.
    pub(super) fn add_header(&mut self, line: &str) -> Result<(), String> {
        let no_header = || format!("{line:.80?} is not a header such as \"name: value\"");
        let (name, value) = line.split_once(':').ok_or_else(no_header)?;
        let name: HeaderName = name.trim().parse().map_err(|_| no_header())?;
        let value = HeaderValue::from_bytes(value.trim().as_bytes()).map_err(|_| no_header())?;
        self.headers.append(name, value);
        Ok(())
    }

    fn set_body(&mut self, body: &[u8]) {
        let text = |name| self.headers.get(name).and_then(|value| value.to_str().ok());
        let chunked = text(header::TRANSFER_ENCODING)
            .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        let declared = text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
        if let Some(whole) = chunked.then(|| dechunked(body)).flatten() {
            self.notes.push("the body was put together from its chunks".to_owned());
            self.body = whole.into();
            return;
        }
        let declared = declared.unwrap_or(body.len());
        if let Some(rest) = body.len().checked_sub(declared).filter(|rest| *rest > 0) {
            self.notes.push(format!(
                "{rest} bytes behind the declared length of {declared} were left out"
            ));
        } else if body.len() < declared {
            self.notes.push(format!(
                "the body has {} bytes where {declared} are declared: it was cut short, or \
                 changed on the way",
                body.len()
            ));
        }
        self.body = Bytes::copy_from_slice(body.get(..declared).unwrap_or(body));
        if self.headers.contains_key(header::CONTENT_ENCODING) {
            self.notes.push(
                "the request says that its body is compressed; signatures are made over one form \
                 of it, usually the one without compression"
                    .to_owned(),
            );
        }
    }
}

/// Path and query of a target that may be a whole URL, as a proxy is asked.
fn path_and_query(target: &str) -> &str {
    let Some((_, rest)) = target.split_once("://") else { return target };
    rest.find('/').and_then(|slash| rest.get(slash..)).unwrap_or("/")
}

/// The head, and what lies behind the empty line.
fn split_head(raw: &[u8]) -> (&[u8], &[u8]) {
    let mut start = 0;
    for line in raw.split_inclusive(|byte| *byte == b'\n') {
        let end = start + line.len();
        if line.trim_ascii().is_empty() {
            return (raw.get(..start).unwrap_or_default(), raw.get(end..).unwrap_or_default());
        }
        start = end;
    }
    (raw, &[])
}

/// The data of chunks; nothing if this is none, as where the capturing tool has joined them.
fn dechunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::with_capacity(rest.len());
    loop {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let (size, behind) = rest.split_at(end);
        let size = std::str::from_utf8(size).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        let behind = behind.get(2..)?;
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(behind.get(..size)?);
        rest = behind.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_http_is_read_with_either_line_end() {
        let crlf =
            "POST /a?b=c HTTP/1.1\r\nHost: x\r\nX-Long: one\r\n two\r\nA: 1\r\nA: 2\r\n\r\n{\r\n}";
        for raw in [crlf.to_owned(), format!("\n{}", crlf.replace("\r\n", "\n"))] {
            let captured = Captured::parse(raw.as_bytes()).expect("a request");
            assert_eq!((captured.method.as_str(), captured.target.as_str()), ("POST", "/a?b=c"));
            assert_eq!(captured.headers["x-long"], "one two");
            assert_eq!(captured.headers.get_all("a").iter().count(), 2);
            assert!(captured.body.starts_with(b"{") && captured.body.ends_with(b"}"));
            assert_eq!(captured.notes, [""; 0]);
        }
    }

    #[test]
    fn the_body_is_what_was_declared_and_what_is_odd_is_said() {
        let parse = |head: &str, body: &str| {
            let raw = format!("POST / HTTP/1.1\r\n{head}\r\n\r\n{body}");
            let captured = Captured::parse(raw.as_bytes()).expect("a request");
            (String::from_utf8(captured.body.to_vec()).expect("text"), captured.notes.join(" "))
        };
        assert_eq!(parse("a: b", "{}\n"), ("{}\n".to_owned(), String::new()));
        let (body, notes) = parse("content-length: 2", "{}\n");
        assert_eq!(body, "{}");
        assert!(notes.starts_with("1 bytes behind"), "{notes}");
        let (body, notes) = parse("content-length: 9", "{}\n");
        assert_eq!(body, "{}\n");
        assert!(notes.starts_with("the body has 3 bytes where 9"), "{notes}");
        let (body, notes) =
            parse("transfer-encoding: chunked", "2;x=y\r\n{}\r\n1\r\n\n\r\n0\r\n\r\n");
        assert_eq!(body, "{}\n");
        assert!(notes.contains("chunks"), "{notes}");
        assert_eq!(parse("transfer-encoding: chunked", "{}").0, "{}", "joined by the tool");
        assert!(parse("content-encoding: gzip", "x").1.contains("compressed"));
    }

    #[test]
    fn a_target_may_be_a_whole_url() {
        let raw = b"POST https://a.example/b?c HTTP/1.1\n\n";
        assert_eq!(Captured::parse(raw).expect("a request").target, "/b?c");
        assert_eq!(path_and_query("http://a.example"), "/");
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for raw in ["", "{}", "POST", "POST / HTTP/1.1\r\nno header\r\n\r\n", "POST / H\n: c\n\n"] {
            assert!(Captured::parse(raw.as_bytes()).is_err(), "{raw:?}");
        }
    }
}
