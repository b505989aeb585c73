//! nats-server with JetStream, one user, and small messages only.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, consumer};
use forebay::drain::sink::{Class, Delivered, Pass, Sink};
use forebay::drain::sinks::Template;
use forebay::drain::sinks::nats;
use forebay::verify::SecretText;
use futures_util::StreamExt as _;

use super::process::{Process, START_WAIT};
use super::{Counterpart, Served, TIMEOUT, Who, certificates, now};
use crate::support::eventually;

/// Where `tests/run sinks` puts it.
const PROGRAM: &str = "tests/sinks/.venv/bin/nats-server";
const USER: &str = "forebay";
pub(super) const PASSWORD: &str = "a-password-of-the-tests";
pub(super) const STREAM: &str = "events";
/// The largest message that it takes.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

pub(super) struct Nats(Process);

impl Nats {
    /// Runs it with these lines about who may enter, and how.
    fn serve(&mut self, lines: &str) {
        let folder = self.0.folder.path();
        let config = folder.join("nats.conf");
        let text = format!(
            "listen: \"127.0.0.1:{}\"\nmax_payload: {MESSAGE_BYTES_MAX}\n\
             jetstream {{ store_dir: \"{}\", max_file_store: 1GB }}\n{lines}",
            self.0.port,
            folder.join("store").display()
        );
        fs::write(&config, text).unwrap();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(PROGRAM);
        self.0.spawn(Command::new(program).arg("-c").arg(config));
    }

    pub(super) fn server(&self) -> String {
        format!("nats://127.0.0.1:{}", self.0.port)
    }

    async fn client(&self) -> Result<async_nats::Client, async_nats::ConnectError> {
        async_nats::ConnectOptions::with_user_and_password(USER.into(), PASSWORD.into())
            .connect(self.server())
            .await
    }

    async fn messages(&self) -> Vec<jetstream::Message> {
        let context = jetstream::new(self.client().await.unwrap());
        let Ok(mut stream) = context.get_stream(STREAM).await else { return Vec::new() };
        let count = usize::try_from(stream.info().await.unwrap().state.messages).unwrap();
        let wanted = consumer::pull::OrderedConfig::default();
        let consumer = stream.create_consumer(wanted).await.unwrap();
        let messages = consumer.messages().await.unwrap().take(count);
        messages.map(Result::unwrap).collect().await
    }
}

fn header(message: &jetstream::Message, name: &str) -> String {
    let value = message.headers.as_ref().and_then(|headers| headers.get(name));
    value.unwrap_or_else(|| panic!("no {name}")).to_string()
}

impl Counterpart for Nats {
    fn start() -> Self {
        let mut started = Self(Process::new());
        started.run();
        started
    }

    fn sink(&self, who: Who) -> Arc<dyn Sink> {
        let password = if who == Who::Known { PASSWORD } else { "another" };
        let settings = nats::Settings {
            servers: vec![self.server().parse().unwrap()],
            credentials: Some(nats::Credentials::User(USER.into(), SecretText::new(password))),
            ca_file: None,
            tls: false,
            subject: Template::parse("hooks.{lane}.{source}.{type}").unwrap(),
            stream: Some(nats::NewStream {
                name: STREAM.into(),
                duplicate_window: Duration::from_secs(600),
                replicas: 1,
            }),
        };
        Arc::new(nats::Nats::new(settings, TIMEOUT))
    }

    fn stored(&self) -> Vec<String> {
        let name = |message: jetstream::Message| {
            let of = |name| header(&message, name);
            let subject = format!("hooks.{}.shop.invoice_paid______", of("Forebay-Lane"));
            assert_eq!(message.subject.as_str(), subject);
            assert_eq!(of("Forebay-Source"), "shop");
            assert_eq!(of("Content-Type"), "application/json");
            format!("{} {}", of("Forebay-Lane"), of("Forebay-Position"))
        };
        now(self.messages()).into_iter().map(name).collect()
    }

    fn event_ids(&self) -> Vec<String> {
        let id = |message| header(&message, "Forebay-Event-Id");
        now(self.messages()).into_iter().map(id).collect()
    }

    fn section(&self) -> String {
        format!(
            "[sink.nats]\nservers = [\"{}\"]\nuser = \"{USER}\"\n\
             password = {{ value = \"{PASSWORD}\" }}\ncreate_stream = true\n\
             stream = \"{STREAM}\"\nduplicate_window = \"10m\"\n",
            self.server()
        )
    }

    fn poison() -> String {
        format!("{{\"large\": \"{}\"}}", "x".repeat(MESSAGE_BYTES_MAX))
    }

    /// A replay has no id.
    fn forget(&self) -> Pass {
        Pass::Replay
    }
}

impl Served for Nats {
    fn process(&mut self) -> &mut Process {
        &mut self.0
    }

    fn run(&mut self) {
        self.serve(&format!("authorization {{ user: {USER}, password: \"{PASSWORD}\" }}\n"));
        eventually("nats-server is ready", START_WAIT, || now(self.client()).is_ok());
    }
}

#[test]
#[ignore = "needs the sinks' servers, see tests/run sinks"]
fn without_a_stream_for_the_subject_the_sink_is_misconfigured() {
    let server = Nats::start();
    let settings = nats::Settings {
        servers: vec![server.server().parse().unwrap()],
        credentials: Some(nats::Credentials::User(USER.into(), SecretText::new(PASSWORD))),
        ca_file: None,
        tls: false,
        subject: Template::parse("nobody.listens").unwrap(),
        stream: None,
    };
    let sink = nats::Nats::new(settings, TIMEOUT);
    let batch = super::events::Events::of_lane("main").next(2);
    let delivered = format!("{:?}", now(sink.deliver(&batch)));
    assert_eq!(delivered.matches("Misconfigured").count(), 2, "{delivered}");
}

const TOKEN: &str = "a-token-of-the-tests";

/// A sink that makes its stream.
fn sink_to(server: &str, credentials: nats::Credentials, tls: (bool, Option<&Path>)) -> nats::Nats {
    let stream = nats::NewStream {
        name: STREAM.into(),
        duplicate_window: Duration::from_secs(600),
        replicas: 1,
    };
    let settings = nats::Settings {
        servers: vec![server.parse().unwrap()],
        credentials: Some(credentials),
        ca_file: tls.1.map(Path::to_owned),
        tls: tls.0,
        subject: Template::parse("hooks.{lane}").unwrap(),
        stream: Some(stream),
    };
    nats::Nats::new(settings, TIMEOUT)
}

/// How many messages the stream has, by a client of the test's own.
fn count(options: async_nats::ConnectOptions, server: &str) -> u64 {
    now(async {
        let context = jetstream::new(options.connect(server).await.unwrap());
        context.get_stream(STREAM).await.unwrap().info().await.unwrap().state.messages
    })
}

fn deliver(sink: &nats::Nats, events: usize) -> Delivered {
    now(sink.deliver(&super::events::Events::of_lane("main").next(events)))
}

/// The class of all events of a batch; none if it was taken.
fn class_of(delivered: Delivered) -> Option<Class> {
    match delivered {
        Delivered::All => None,
        Delivered::None(failure) => Some(failure.class),
        Delivered::Each(verdicts) => {
            verdicts.into_iter().find_map(Result::err).map(|why| why.class)
        }
    }
}

#[test]
#[ignore = "needs the sinks' servers, see tests/run sinks"]
fn a_token_opens_the_server_and_another_one_does_not() {
    let mut server = Nats(Process::new());
    server.serve(&format!("authorization {{ token: \"{TOKEN}\" }}\n"));
    let client = || async_nats::ConnectOptions::with_token(TOKEN.into());
    eventually("nats-server is ready", START_WAIT, || {
        now(client().connect(server.server())).is_ok()
    });
    let token = |text: &str| nats::Credentials::Token(SecretText::new(text));
    let sink = sink_to(&server.server(), token(TOKEN), (false, None));
    assert_eq!(class_of(deliver(&sink, 3)), None);
    assert_eq!(count(client(), &server.server()), 3);
    let sink = sink_to(&server.server(), token("another"), (false, None));
    assert_eq!(class_of(deliver(&sink, 3)), Some(Class::Misconfigured));
    assert_eq!(count(client(), &server.server()), 3);
}

#[test]
#[ignore = "needs the sinks' servers, see tests/run sinks"]
fn over_tls_the_servers_certificate_is_checked_against_the_authority_that_was_given() {
    let mut server = Nats(Process::new());
    let folder = server.0.folder.path().to_owned();
    let [authority, certificate, key] = certificates::of_loopback(&folder, "server");
    let [stranger, ..] = certificates::of_loopback(&folder, "stranger");
    server.serve(&format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\" }}\nauthorization {{ token: \"{TOKEN}\" }}\n",
        certificate.display(),
        key.display()
    ));
    let address = format!("tls://127.0.0.1:{}", server.0.port);
    let client = || {
        async_nats::ConnectOptions::with_token(TOKEN.into())
            .require_tls(true)
            .add_root_certificates(authority.clone())
    };
    eventually("nats-server is ready", START_WAIT, || now(client().connect(&address)).is_ok());
    let token = || nats::Credentials::Token(SecretText::new(TOKEN));
    let sink = sink_to(&address, token(), (true, Some(&authority)));
    assert_eq!(class_of(deliver(&sink, 3)), None);
    assert_eq!(count(client(), &address), 3);
    // Whom nobody vouches for gets no event and no token.
    for ca_file in [Some(&*stranger), None] {
        let sink = sink_to(&address, token(), (true, ca_file));
        assert!(class_of(deliver(&sink, 3)).is_some(), "{ca_file:?}");
    }
    assert_eq!(count(client(), &address), 3);
}

#[test]
#[ignore = "needs the sinks' servers, see tests/run sinks"]
fn a_server_without_tls_gets_nothing_where_tls_is_wanted() {
    let server = Nats::start();
    let user = nats::Credentials::User(USER.into(), SecretText::new(PASSWORD));
    let sink = sink_to(&server.server(), user.clone(), (true, None));
    assert!(class_of(deliver(&sink, 3)).is_some());
    assert!(server.stored().is_empty());
    // The same but for that is taken.
    assert_eq!(class_of(deliver(&sink_to(&server.server(), user, (false, None)), 3)), None);
}
