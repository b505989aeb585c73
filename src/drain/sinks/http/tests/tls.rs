//! Whose certificates are trusted.

use std::process::{Child, Command, Stdio};

use super::*;

/// A server of TLS that answers every POST with 200, and the authority of its certificate.
struct Tls {
    folder: tempfile::TempDir,
    child: Child,
    port: u16,
}

impl Tls {
    fn start() -> Self {
        use std::io::BufRead as _;
        let folder = tempfile::tempdir().expect("a folder");
        let done = Command::new("sh")
            .args(["-ec", CERTIFICATES])
            .current_dir(folder.path())
            .stderr(Stdio::null())
            .status();
        assert!(done.expect("sh is there").success(), "openssl is there");
        let mut child = Command::new("python3")
            .args(["-c", TLS_SERVER])
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3 is there");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        std::io::BufReader::new(stdout).read_line(&mut line).expect("a line");
        Self { folder, child, port: line.trim().parse().expect("a port") }
    }

    fn authority(&self) -> RootCertStore {
        authorities(&self.folder.path().join("ca.pem")).expect("roots")
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

const CERTIFICATES: &str = "
key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
openssl req -x509 $key -keyout ca.key -out ca.pem -subj /CN=test-authority -days 2
openssl req $key -keyout leaf.key -out leaf.csr -subj /CN=localhost
echo 'subjectAltName=DNS:localhost' > extensions
openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out leaf.pem -days 2 \
    -extfile extensions
";

const TLS_SERVER: &str = "
import http.server, ssl
class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers['content-length']))
        self.send_response(200)
        self.send_header('content-length', '0')
        self.end_headers()
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Hook)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('leaf.pem', 'leaf.key')
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
";

#[tokio::test]
async fn a_certificate_is_trusted_by_the_destination_s_own_file_alone() {
    let tls = Tls::start();
    let plain = Server::start(|_| reply(200)).await;
    let to = |host: &str, authorities| Settings {
        url: format!("https://{host}:{}/hook", tls.port).parse().expect("a URL"),
        authorities,
        ..plain.settings()
    };
    let event = Written::new().event(1, "{}");
    assert_eq!(one(&sink(&to("localhost", Some(tls.authority()))), &event).await, Ok(()));
    let other = Tls::start();
    for settings in [
        to("localhost", Some(other.authority())),
        to("localhost", Some(RootCertStore::empty())),
        // The right authority, and a name that the certificate does not have.
        to("127.0.0.1", Some(tls.authority())),
    ] {
        let failure = one(&sink(&settings), &event).await.expect_err("is not trusted");
        assert_eq!(failure.class, Class::Misconfigured, "{failure}");
    }
}
