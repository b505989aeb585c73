//! HTTP/1.1 by hand over a blocking socket: what a test asks for is what goes over the wire,
//! however wrong it is.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// How long a test waits for any answer before it fails.
const ANSWER_WAIT: Duration = Duration::from_secs(20);

/// A request in parts, so that a test can change any of them.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) version: &'static str,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn post(target: &str) -> Self {
        Self {
            method: "POST".to_owned(),
            target: target.to_owned(),
            version: "HTTP/1.1",
            headers: vec![("host".to_owned(), b"forebay.test".to_vec())],
            body: Vec::new(),
        }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self { method: "GET".to_owned(), ..Self::post(target) }
    }

    /// Adds a header, also when one of that name is there.
    pub(crate) fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Takes out every header of that name.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(each, _)| !each.eq_ignore_ascii_case(name));
        self
    }

    /// The value of the first header of that name.
    pub(crate) fn value(&self, name: &str) -> &[u8] {
        let found = self.headers.iter().find(|(each, _)| each.eq_ignore_ascii_case(name));
        &found.unwrap_or_else(|| panic!("the request has no {name}")).1
    }

    pub(crate) fn to(mut self, target: &str) -> Self {
        target.clone_into(&mut self.target);
        self
    }

    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    /// Request line and headers as they stand, and the empty line.
    pub(crate) fn head_bytes(&self) -> Vec<u8> {
        let mut bytes =
            format!("{} {} {}\r\n", self.method, self.target, self.version).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    }

    /// The whole request, its length declared.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let length = self.body.len().to_string();
        let mut bytes = self.clone().header("content-length", length).head_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The whole request in chunks of `chunk_bytes`.
    pub(crate) fn chunked_bytes(&self, chunk_bytes: usize) -> Vec<u8> {
        let mut bytes = self.clone().header("transfer-encoding", "chunked").head_bytes();
        for chunk in self.body.chunks(chunk_bytes) {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        bytes
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The value of a header; empty when it is absent.
    pub(crate) fn value(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(each, _)| each == name);
        found.map_or("", |(_, value)| value)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("an answer in UTF-8")
    }

    /// Whether the server said that this connection ends here.
    pub(crate) fn closes(&self) -> bool {
        self.value("connection").eq_ignore_ascii_case("close")
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect(address)?)
    }

    /// From a local address of the test's choice.
    pub(crate) fn open_from(from: IpAddr, address: SocketAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect(&address.into())?;
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_WAIT))?;
        stream.set_write_timeout(Some(ANSWER_WAIT))?;
        Ok(Self { stream, received: Vec::new() })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Ends the sending half.
    pub(crate) fn finish(&mut self) {
        // The peer may have closed first; then there is nothing left to end.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Sends and waits for the answer.
    pub(crate) fn send(&mut self, request: &Request) -> io::Result<Response> {
        self.write(&request.bytes())?;
        self.read()
    }

    /// The next final answer; interim ones (100) are passed over.
    pub(crate) fn read(&mut self) -> io::Result<Response> {
        loop {
            let response = self.read_any()?;
            if response.status >= 200 {
                return Ok(response);
            }
        }
    }

    /// The next answer, interim ones included.
    pub(crate) fn read_any(&mut self) -> io::Result<Response> {
        let head_end = loop {
            if let Some(at) = find(&self.received, b"\r\n\r\n") {
                break at + 4;
            }
            self.fill()?;
        };
        let head: Vec<u8> = self.received.drain(..head_end).collect();
        let head = String::from_utf8(head).map_err(io::Error::other)?;
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5))
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| io::Error::other(format!("not an answer: {status_line:?}")))?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut response = Response { status, headers, body: Vec::new() };
        response.body = self.read_body(&response)?;
        Ok(response)
    }

    fn read_body(&mut self, response: &Response) -> io::Result<Vec<u8>> {
        if response.value("transfer-encoding").eq_ignore_ascii_case("chunked") {
            return self.read_chunks();
        }
        let bytes: usize = match response.value("content-length") {
            "" => 0,
            text => text.parse().map_err(io::Error::other)?,
        };
        self.take(bytes)
    }

    fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line_end = loop {
                if let Some(at) = find(&self.received, b"\r\n") {
                    break at;
                }
                self.fill()?;
            };
            let line = self.take(line_end + 2)?;
            let digits = std::str::from_utf8(&line[..line_end]).map_err(io::Error::other)?;
            let bytes = usize::from_str_radix(digits.trim(), 16).map_err(io::Error::other)?;
            body.extend_from_slice(&self.take(bytes)?);
            self.take(2)?;
            if bytes == 0 {
                return Ok(body);
            }
        }
    }

    fn take(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        while self.received.len() < bytes {
            self.fill()?;
        }
        Ok(self.received.drain(..bytes).collect())
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.received.extend_from_slice(&buffer[..count]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the server ended this connection, without another answer, within `wait`.
    pub(crate) fn ended_within(&mut self, wait: Duration) -> bool {
        self.stream.set_read_timeout(Some(wait)).expect("a timeout can be set");
        let outcome = self.fill();
        self.stream.set_read_timeout(Some(ANSWER_WAIT)).expect("a timeout can be set");
        match outcome {
            Ok(()) => false,
            Err(error) => {
                !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
            }
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
