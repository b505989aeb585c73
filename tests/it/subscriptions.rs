//! Invitations to confirm a subscription to a topic of Amazon SNS, followed where the source says
//! so, and only where all of it is as it should be.
//!
//! SNS itself is out of reach of a test. What stands for it is what an operator may have between
//! forebay and SNS: a proxy that inspects TLS, with an authority of its own that
//! `outgoing.ca_file` names. So the name that is called, its certificate and the request are those
//! that SNS would see.
#![expect(clippy::disallowed_types, reason = "the proxy of the test may take a lock")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;

use crate::support::http::Request;
use crate::support::server::{Server, Setup};
use crate::support::{Driver, eventually, sign};

for_each_driver![
    an_invitation_is_followed_once_by_one_get,
    what_is_not_in_order_is_never_followed,
    what_is_not_success_is_counted_and_told,
    a_silent_peer_delays_nobody,
];

const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:ivs";
const CERTIFICATE: &str = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem";
const HOST: &str = "sns.eu-west-1.amazonaws.com";
const WAIT: Duration = Duration::from_secs(20);

/// What the proxy answers in the place of SNS.
#[derive(Clone, Copy, Debug)]
enum Play {
    Confirm,
    Redirect,
    Endless,
    /// It takes the connection and says nothing.
    Silent,
}

/// The proxy: whom it was asked to connect to, and what was then asked.
#[derive(Debug)]
struct Proxy {
    address: SocketAddr,
    folder: TempDir,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start(play: Play) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let tls = authority(&folder.path().join("ca.pem"));
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let told = Arc::clone(&seen);
        thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let head = head_of(&mut stream);
                told.lock().unwrap().push(head.lines().next().unwrap_or_default().to_owned());
                if matches!(play, Play::Silent) {
                    open.push(stream);
                    continue;
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                let mut session = rustls::ServerConnection::new(Arc::clone(&tls)).unwrap();
                // A peer that does not trust the authority ends here.
                let request = head_of(&mut rustls::Stream::new(&mut session, &mut stream));
                if !request.is_empty() {
                    told.lock().unwrap().push(request);
                    answer(play, &mut rustls::Stream::new(&mut session, &mut stream));
                }
            }
        });
        Self { address, folder, seen }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    fn config(&self, trusted: bool) -> String {
        let mut text = format!("[outgoing]\nproxy = \"http://{}\"\n", self.address);
        if trusted {
            let ca = self.folder.path().join("ca.pem");
            writeln!(text, "ca_file = \"{}\"", ca.display()).unwrap();
        }
        text
    }
}

/// A certificate for SNS, by an authority whose own goes to `path`.
fn authority(path: &Path) -> Arc<rustls::ServerConfig> {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(path, certificate.pem()).unwrap();
    let issuer = rcgen::Issuer::new(params, key);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![HOST.to_owned()]).unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(ring);
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    Arc::new(builder.with_single_cert(vec![leaf.der().clone()], key).unwrap())
}

/// All up to the empty line; empty if it never comes.
fn head_of(stream: &mut impl std::io::Read) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return String::new();
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn answer(play: Play, stream: &mut impl std::io::Write) {
    let head: &[u8] = match play {
        Play::Confirm => b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        Play::Redirect => {
            b"HTTP/1.1 302 Found\r\nlocation: https://sns.eu-west-1.amazonaws.com/?Action=\
              ConfirmSubscription&Token=elsewhere\r\ncontent-length: 0\r\n\r\n"
        }
        Play::Endless | Play::Silent => b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n",
    };
    // The other end hangs up when it has had enough.
    let mut going = stream.write_all(head).and_then(|()| stream.flush());
    while matches!(play, Play::Endless) && going.is_ok() {
        going = stream.write_all(&[b'x'; 4096]);
    }
}

/// A source of this topic.
fn topic(name: &str, confirm: &str) -> String {
    let certificate = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys/rsa-certificate.pem");
    format!(
        "[[source]]\nname = \"{name}\"\npath = \"/{name}\"\npreset = \"aws-sns\"\n\
         environment = \"test\"\nparams = {{ topic_arn = \"{TOPIC}\" }}\nconfirm = \"{confirm}\"\n\
         secrets = [{{ name = \"2026\", key_id = \"{CERTIFICATE}\", file = \"{}\" }}]\n",
        certificate.display()
    )
}

/// An invitation as SNS sends it, signed as it signs.
fn invitation(id: &str, topic: &str, url: &str) -> Request {
    let fields = [
        ("Message", "You have chosen to subscribe."),
        ("MessageId", id),
        ("SubscribeURL", url),
        ("Timestamp", "2026-11-22T00:00:00.000Z"),
        ("Token", "canary-token"),
        ("TopicArn", topic),
        ("Type", "SubscriptionConfirmation"),
    ];
    let signed = fields.map(|(name, value)| format!("{name}\n{value}\n")).concat();
    let pem = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys/rsa.pem");
    let key = PrivatePkcs8KeyDer::from_pem_file(pem).unwrap();
    let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).unwrap();
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    let mut body: serde_json::Map<_, _> =
        fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    for (name, value) in [
        ("Signature", BASE64.encode(signature)),
        ("SignatureVersion", "2".to_owned()),
        ("SigningCertURL", CERTIFICATE.to_owned()),
    ] {
        body.insert(name.to_owned(), value.into());
    }
    Request::post("/sns")
        .header("content-type", "text/plain; charset=UTF-8")
        .header("x-amz-sns-message-type", "SubscriptionConfirmation")
        .body(&serde_json::to_vec(&body).unwrap())
}

fn url() -> String {
    format!("https://{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=canary-token")
}

fn setup(driver: Driver, proxy: &Proxy) -> Setup {
    Setup::new(driver).more(&(proxy.config(true) + &topic("sns", "auto")))
}

/// How many were confirmed, and how many were not.
fn counts(server: &Server, source: &str) -> [u64; 2] {
    let page = server.admin("/metrics");
    ["confirmed", "failed"].map(|outcome| {
        let start = format!(
            "forebay_subscription_confirmations_total{{source=\"{source}\",outcome=\"{outcome}\"}} "
        );
        let line = page.text().lines().find_map(|line| line.strip_prefix(&start));
        line.expect("the series is there").parse().unwrap()
    })
}

fn an_invitation_is_followed_once_by_one_get(driver: Driver) {
    let proxy = Proxy::start(Play::Confirm);
    let server = Server::start(setup(driver, &proxy));
    assert_eq!(server.send(&invitation("1", TOPIC, &url())).status, 200);
    eventually("it is confirmed", WAIT, || counts(&server, "sns") == [1, 0]);
    assert_eq!(server.send(&invitation("1", TOPIC, &url())).status, 200, "a repetition");
    // A second one, behind which a GET for the repetition would have been.
    assert_eq!(server.send(&invitation("2", TOPIC, &url())).status, 200);
    eventually("that too", WAIT, || counts(&server, "sns") == [2, 0]);
    let seen = proxy.seen();
    assert_eq!(seen.len(), 4, "{seen:?}");
    for asked in seen.chunks(2) {
        assert_eq!(asked[0], format!("CONNECT {HOST}:443 HTTP/1.1"));
        let target = url().replace(&format!("https://{HOST}"), "");
        assert!(asked[1].starts_with(&format!("GET {target} HTTP/1.1\r\n")), "{asked:?}");
        assert!(asked[1].contains(&format!("host: {HOST}\r\n")), "{asked:?}");
    }
    assert_eq!(server.events().len(), 2, "they are events as well");
    let log = server.log();
    assert!(log.contains("subscription confirmed") && !log.contains("canary"), "{log}");
}

fn what_is_not_in_order_is_never_followed(driver: Driver) {
    let proxy = Proxy::start(Play::Confirm);
    let server = Server::start(setup(driver, &proxy).more(&topic("told", "log")));
    let status = |request: &Request| server.send(request).status;
    let other = TOPIC.replace("ivs", "evil");
    assert_eq!(status(&invitation("1", &other, &url())), 401, "another topic");
    for elsewhere in [
        url().replace(HOST, "sns.eu-west-1.amazonaws.com.evil.test"),
        url().replace(HOST, "sns.eu-west-1.amazonaws.com:8443"),
        url().replace(HOST, "sns.eu-west-1.amazonaws.com@127.0.0.1"),
        url().replace(HOST, "127.0.0.1"),
        url().replace("https", "http"),
        url().replace("ConfirmSubscription", "DeleteTopic"),
    ] {
        assert_eq!(status(&invitation("2", TOPIC, &elsewhere)), 403, "{elsewhere}");
    }
    let mut forged = invitation("3", TOPIC, &url());
    forged.body = String::from_utf8(forged.body).unwrap().replace("\"3\"", "\"4\"").into_bytes();
    assert_eq!(status(&forged), 401, "another's signature");
    let unsigned = Request { body: b"{}".to_vec(), ..invitation("5", TOPIC, &url()) };
    assert_eq!(status(&unsigned), 401, "unsigned");
    assert_eq!(status(&invitation("6", TOPIC, &url()).to("/told")), 200, "wanted by hand");
    assert!(server.log().contains("asks to be confirmed"));
    assert_eq!(proxy.seen(), [""; 0]);
    // And yet the way is open.
    assert_eq!(status(&invitation("7", TOPIC, &url())), 200);
    eventually("it is confirmed", WAIT, || counts(&server, "sns") == [1, 0]);
    assert_eq!((proxy.seen().len(), counts(&server, "told")), (2, [0, 0]));
}

fn what_is_not_success_is_counted_and_told(driver: Driver) {
    for (play, trusted, asked, told) in [
        (Play::Redirect, true, 2, "answered 302"),
        (Play::Endless, true, 2, "length limit exceeded"),
        (Play::Confirm, false, 1, "UnknownIssuer"),
    ] {
        let proxy = Proxy::start(play);
        let config = proxy.config(trusted) + &topic("sns", "auto");
        let server = Server::start(Setup::new(driver).more(&config));
        assert_eq!(server.send(&invitation("1", TOPIC, &url())).status, 200);
        eventually("it has failed", WAIT, || counts(&server, "sns") == [0, 1]);
        assert_eq!(proxy.seen().len(), asked, "{play:?}: {:?}", proxy.seen());
        let log = server.log();
        assert!(log.contains(told) && log.contains("not confirmed"), "{play:?}: {log}");
        assert!(!log.contains("canary"), "{log}");
    }
}

fn a_silent_peer_delays_nobody(driver: Driver) {
    let proxy = Proxy::start(Play::Silent);
    let server = Server::start(setup(driver, &proxy));
    let mut connection = server.connect();
    let left = |count: u64| counts(&server, "sns") == [0, count];
    // One is under way, sixteen wait, and of one more the operator is told.
    for id in 0..17 {
        let invited = connection.send(&invitation(&id.to_string(), TOPIC, &url())).unwrap();
        assert_eq!(invited.status, 200);
        if id == 0 {
            eventually("the first is under way", WAIT, || proxy.seen().len() == 1);
        }
    }
    assert!(left(0));
    assert_eq!(connection.send(&invitation("17", TOPIC, &url())).unwrap().status, 200);
    assert!(left(1));
    assert_eq!(connection.send(&sign::standard("msg_1", b"{}")).unwrap().status, 200);
    assert!(server.log().contains("too many wait"), "{}", server.log());
    assert_eq!(server.events().len(), 19, "all of them are kept");
}
