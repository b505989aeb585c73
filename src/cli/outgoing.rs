//! A request to be sent: as the bytes of HTTP/1.1, or as a curl command for a shell.

use std::fmt::Write as _;

use http::{HeaderName, HeaderValue, Uri};

/// A POST with its headers; host and length are added.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outgoing<'o> {
    /// Host and port.
    pub(super) authority: &'o str,
    /// Path and query.
    pub(super) target: &'o str,
    pub(super) headers: &'o [(HeaderName, HeaderValue)],
    pub(super) body: &'o [u8],
}

impl Outgoing<'_> {
    /// The bytes that go over the wire.
    pub(super) fn http(&self) -> Vec<u8> {
        let mut bytes =
            format!("POST {} HTTP/1.1\r\nhost: {}\r\n", self.target, self.authority).into_bytes();
        for (name, value) in self.headers {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        let length = self.body.len();
        bytes.extend_from_slice(format!("content-length: {length}\r\n\r\n").as_bytes());
        bytes.extend_from_slice(self.body);
        bytes
    }

    /// A command for any POSIX shell. `body_file` is where the body can be read again; without
    /// one it stands in the command, which takes text alone.
    pub(super) fn curl(&self, scheme: &str, body_file: Option<&str>) -> Result<String, String> {
        let url = format!("{scheme}://{}{}", self.authority, self.target);
        let mut command = format!("curl -i {}", quoted(&url));
        for (name, value) in self.headers {
            let value = value.to_str();
            let value = value.map_err(|_| format!("the header {name} is not text; use --http"))?;
            // Writing to a String cannot fail.
            _ = write!(command, " \\\n  -H {}", quoted(&format!("{name}: {value}")));
        }
        let body = match body_file {
            Some(path) => format!("--data-binary {}", quoted(&format!("@{path}"))),
            None => match std::str::from_utf8(self.body) {
                Ok(text) if !text.contains('\0') => format!("--data-raw {}", quoted(text)),
                _ => return Err("the body is not text; use --body-file or --http".to_owned()),
            },
        };
        _ = write!(command, " \\\n  {body}");
        Ok(command)
    }
}

/// One word for a shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Scheme, authority and target of a URL.
pub(super) fn parts(url: &str) -> Result<(String, String, String), String> {
    let wrong = || format!("{url:?} is no URL such as \"https://hooks.example/path\"");
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(wrong());
    };
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    Ok((scheme.to_owned(), authority.to_string(), target.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_every_word_as_it_is_meant() {
        let headers =
            [(HeaderName::from_static("x-a"), HeaderValue::from_static("$(b) 'c' `d` \\"))];
        let outgoing = Outgoing {
            authority: "a:1",
            target: "/b?c=d&e",
            headers: &headers,
            body: b"@it's\n\"$x\"",
        };
        let command = outgoing.curl("http", None).expect("text");
        let script = command.replacen("curl", "printf '%s|'", 1);
        let shown = std::process::Command::new("sh").arg("-c").arg(script).output().expect("sh");
        assert_eq!(
            String::from_utf8_lossy(&shown.stdout),
            "-i|http://a:1/b?c=d&e|-H|x-a: $(b) 'c' `d` \\|--data-raw|@it's\n\"$x\"|"
        );
        let binary = Outgoing { body: b"\xff", ..outgoing };
        assert!(binary.curl("http", None).is_err());
        let command = binary.curl("http", Some("it's.bin")).expect("a file");
        assert!(command.ends_with(r"--data-binary '@it'\''s.bin'"), "{command}");
    }

    #[test]
    fn a_url_has_its_parts_or_is_none() {
        let part = |url| parts(url).map(|(scheme, authority, target)| [scheme, authority, target]);
        assert_eq!(part("http://a:1"), Ok(["http", "a:1", "/"].map(str::to_owned)));
        assert_eq!(part("https://a/b?c"), Ok(["https", "a", "/b?c"].map(str::to_owned)));
        for wrong in ["", "/a", "a.example", "http://", "http://a b"] {
            assert!(parts(wrong).is_err(), "{wrong}");
        }
    }
}
