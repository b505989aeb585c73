//! rabbitmq-server of Debian with one user, one topic exchange and small messages only.
//!
//! Everything of it is in a folder of its own, also the daemon `epmd` by which Erlang knows its
//! nodes. What it holds is read as the README tells consumers to: an event that is there again under
//! the same `message-id` is passed over, unless it is a replay. What was read goes back.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use forebay::drain::sink::{Class, Delivered, Event, Pass, Sink};
use forebay::drain::sinks::Template;
use forebay::drain::sinks::rabbitmq as sink;
use forebay::verify::SecretText;
use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use tokio::runtime::Runtime;

use super::events::{Events, names_of};
use super::process::{Process, START_WAIT, free_port};
use super::suite::class_of;
use super::{Counterpart, Served, TIMEOUT, Who, certificates, now};
use crate::support::eventually;

/// Debian's own command would become another user, in another folder.
const PROGRAM: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const USER: &str = "forebay";
const PASSWORD: &str = "a-password-of-the-tests";
const EXCHANGE: &str = "hooks";
const QUEUE: &str = "events";
/// What the queue takes of what comes to the exchange.
const BOUND: [&str; 3] = ["hooks.main.#", "hooks.bulk.#", "drained.#"];
/// The largest message that it takes.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

pub(super) struct RabbitMq {
    server: Process,
    names: Process,
    /// The port on which Erlang's nodes would speak to one another.
    between_nodes: u16,
}

/// A runtime that outlives each delivery, as the drain's does: a connection is driven by it.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

impl RabbitMq {
    /// A server that has nothing yet, with these lines in its configuration.
    fn with(lines: &str) -> Self {
        let (server, names) = (Process::new(), Process::new());
        let mut started = Self { server, names, between_nodes: free_port() };
        let epmd = started.names.port.to_string();
        let loopback = ["-port", &epmd, "-address", "127.0.0.1"];
        started.names.spawn(Command::new("epmd").args(loopback));
        let text = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\ndefault_user = {USER}\ndefault_pass = {PASSWORD}\n\
             max_message_size = {MESSAGE_BYTES_MAX}\nlog.console = true\nlog.file = false\n{lines}",
            started.server.port
        );
        let folder = started.server.folder.path();
        fs::write(folder.join("rabbitmq.conf"), text).unwrap();
        fs::write(folder.join("none"), "").unwrap();
        started.run();
        started
    }

    /// The command, as one of the node's own surroundings.
    fn command(&self, program: &str) -> Command {
        let folder = self.server.folder.path();
        let mut command = Command::new(program);
        command
            .current_dir(folder)
            // Where the cookie is that the nodes share.
            .env("HOME", folder)
            .env("RABBITMQ_NODENAME", format!("it{}@localhost", self.server.port))
            .env("RABBITMQ_MNESIA_BASE", folder.join("base"))
            .env("RABBITMQ_LOG_BASE", folder.join("logs"))
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("none"))
            .env("RABBITMQ_CONF_ENV_FILE", folder.join("none"))
            .env("RABBITMQ_DIST_PORT", self.between_nodes.to_string())
            .env("ERL_EPMD_PORT", self.names.port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            // It becomes the server, instead of waiting for it.
            .env("RUNNING_UNDER_SYSTEMD", "1");
        command
    }

    /// Has the server's own tool do this.
    fn control(&self, words: &[&str]) {
        let told = self.command("/usr/lib/rabbitmq/bin/rabbitmqctl").args(words).output().unwrap();
        assert!(told.status.success(), "{words:?}: {}", String::from_utf8_lossy(&told.stderr));
    }

    fn address(&self) -> String {
        format!("amqp://127.0.0.1:{}", self.server.port)
    }

    fn settings(&self) -> sink::Settings {
        let roots = rustls::RootCertStore::empty();
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots);
        sink::Settings {
            servers: vec![self.server(false)],
            vhost: "/".into(),
            user: USER.into(),
            password: SecretText::new(PASSWORD),
            tls: Arc::new(tls.with_no_client_auth()),
            exchange: EXCHANGE.into(),
            routing_key: Template::parse("hooks.{lane}.{type}").unwrap(),
            heartbeat: Duration::from_secs(5),
        }
    }

    fn server(&self, tls: bool) -> sink::Server {
        sink::Server { host: "127.0.0.1".into(), port: self.server.port, tls }
    }

    /// Does something on a channel of the test's own.
    fn with_channel<T>(
        &self,
        act: impl AsyncFnOnce(&Channel) -> lapin::Result<T>,
    ) -> lapin::Result<T> {
        let url = format!("amqp://{USER}:{PASSWORD}@127.0.0.1:{}/%2f", self.server.port);
        now(async {
            let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
            let channel = connection.create_channel().await?;
            let done = act(&channel).await;
            connection.close(200, "done".into()).await?;
            done
        })
    }

    /// A durable queue with these bindings.
    fn declare(&self, queue: &str, keys: &[&str], arguments: FieldTable) {
        self.with_channel(async |channel| {
            let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
            let nothing = FieldTable::default;
            let topic = ExchangeKind::Topic;
            channel.exchange_declare(EXCHANGE.into(), topic, durable, nothing()).await?;
            let options = QueueDeclareOptions { durable: true, ..Default::default() };
            channel.queue_declare(queue.into(), options, arguments).await?;
            for key in keys.iter().copied() {
                let options = QueueBindOptions::default();
                channel
                    .queue_bind(queue.into(), EXCHANGE.into(), key.into(), options, nothing())
                    .await?;
            }
            Ok(())
        })
        .unwrap();
    }

    /// All messages of the queue, which keeps them.
    fn messages(&self) -> Vec<Delivery> {
        self.with_channel(async |channel| {
            let options = QueueDeclareOptions { passive: true, ..Default::default() };
            let queue = channel.queue_declare(QUEUE.into(), options, FieldTable::default()).await?;
            let options = BasicConsumeOptions::default();
            let nothing = FieldTable::default();
            let consumer = channel.basic_consume(QUEUE.into(), "".into(), options, nothing).await?;
            let count = usize::try_from(queue.message_count()).unwrap();
            let messages: Vec<_> = consumer.take(count).collect().await;
            // What is not acknowledged goes back to its place.
            channel.close(200, "done".into()).await?;
            messages.into_iter().collect()
        })
        .unwrap()
    }

    /// What a consumer takes that knows events again.
    fn taken(&self) -> Vec<Delivery> {
        let mut known = BTreeSet::new();
        let mut messages = self.messages();
        messages.retain(|message| {
            let id = message.properties.message_id().as_ref().unwrap().to_string();
            known.insert(id) || header(message, "Forebay-Pass").as_deref() == Some("replay")
        });
        messages
    }

    /// Sockets to the server that this process has open.
    fn sockets(&self) -> usize {
        let to = format!("0100007F:{:04X}", self.server.port);
        let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
        // No. local remote state: 01 is one that both sides have open.
        let open = |line: &&str| {
            let mut words = line.split_whitespace().skip(2);
            words.next() == Some(&to) && words.next() == Some("01")
        };
        table.lines().filter(open).count()
    }
}

fn header(message: &Delivery, name: &str) -> Option<String> {
    match message.properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        other => panic!("{name} is {other:?}"),
    }
}

impl Counterpart for RabbitMq {
    /// It takes seconds to come back, and is handed no more at once than there are keys.
    const PACE: Duration = Duration::from_millis(2);

    fn start() -> Self {
        let started = Self::with("");
        started.declare(QUEUE, &BOUND, FieldTable::default());
        started
    }

    fn sink(&self, who: Who) -> Arc<dyn Sink> {
        let password = if who == Who::Known { PASSWORD } else { "another" };
        let settings = sink::Settings { password: SecretText::new(password), ..self.settings() };
        Arc::new(sink::RabbitMq::new(settings, TIMEOUT))
    }

    fn stored(&self) -> Vec<String> {
        let name = |message: Delivery| {
            let of = |name| header(&message, name).unwrap_or_else(|| panic!("no {name}"));
            let key = format!("hooks.{}.invoice_paid______", of("Forebay-Lane"));
            assert_eq!(message.routing_key.as_str(), key);
            assert_eq!(of("Forebay-Source"), "shop");
            assert_eq!(of("Forebay-Type"), "invoice.paid\r\n> *\0");
            assert_eq!(message.properties.content_type(), &Some("application/json".into()));
            assert_eq!(message.properties.delivery_mode(), &Some(2), "it is persistent");
            format!("{} {}", of("Forebay-Lane"), of("Forebay-Position"))
        };
        self.taken().into_iter().map(name).collect()
    }

    fn event_ids(&self) -> Vec<String> {
        let id = |message: Delivery| header(&message, "Forebay-Event-Id").expect("an id");
        self.taken().into_iter().map(id).collect()
    }

    fn section(&self) -> String {
        format!(
            "[sink.rabbitmq]\nservers = [\"{}\"]\nuser = \"{USER}\"\n\
             password = {{ value = \"{PASSWORD}\" }}\nexchange = \"{EXCHANGE}\"\n\
             routing_key = \"drained.{{lane}}\"\n",
            self.address()
        )
    }

    fn poison() -> String {
        format!("{{\"large\": \"{}\"}}", "x".repeat(MESSAGE_BYTES_MAX))
    }

    /// The reader takes a replay for what it is.
    fn forget(&self) -> Pass {
        Pass::Replay
    }
}

impl Served for RabbitMq {
    fn process(&mut self) -> &mut Process {
        &mut self.server
    }

    fn run(&mut self) {
        let mut command = self.command(PROGRAM);
        self.server.spawn(&mut command);
        eventually("rabbitmq-server is ready", START_WAIT, || {
            self.with_channel(async |_| Ok(())).is_ok()
        });
    }
}

/// The class of each event's failure; none: it was taken.
fn classes(delivered: &Delivered, count: usize) -> Vec<Option<Class>> {
    match delivered {
        Delivered::All => vec![None; count],
        Delivered::None(failure) => vec![Some(failure.class); count],
        Delivered::Each(verdicts) => {
            verdicts.iter().map(|verdict| verdict.as_ref().err().map(|why| why.class)).collect()
        }
    }
}

#[test]
#[ignore = "needs rabbitmq-server, see tests/run brokers"]
fn a_message_that_no_queue_takes_holds_up_no_other_and_is_not_given_up() {
    let (server, runtime) = (RabbitMq::start(), runtime());
    let sink = server.sink(Who::Known);
    let (mut there, mut gone) = (Events::of_lane("main"), Events::of_lane("gone"));
    let (good, lost) = (there.next(50), gone.next(50));
    let mixed: Vec<Event> =
        lost.iter().zip(&good).flat_map(|(lost, good)| [lost.clone(), good.clone()]).collect();
    let delivered = runtime.block_on(sink.deliver(&mixed));
    for (event, class) in mixed.iter().zip(classes(&delivered, mixed.len())) {
        let wanted = if &*event.lane == "gone" { Some(Class::Misconfigured) } else { None };
        assert_eq!(class, wanted, "{}", event.lane);
    }
    let told = format!("{delivered:?}");
    assert!(told.contains("bind a queue to exchange"), "{told}");
    assert_eq!(server.stored(), names_of(&good));
    // A binding mends it.
    server.declare(QUEUE, &["hooks.gone.#"], FieldTable::default());
    assert_eq!(runtime.block_on(sink.deliver(&lost)), Delivered::All);
    assert_eq!(server.stored(), names_of(&[good, lost].concat()));
}

#[test]
#[ignore = "needs rabbitmq-server, see tests/run brokers"]
fn what_the_sink_may_not_do_or_does_not_find_is_told_and_gives_no_event_up() {
    let server = RabbitMq::start();
    server.control(&["add_vhost", "other"]);
    server.control(&["add_user", "reader", PASSWORD]);
    server.control(&["set_permissions", "reader", "", "", ".*"]);
    let batch = Events::of_lane("main").next(3);
    let settings = server.settings();
    for (settings, word) in [
        (sink::Settings { exchange: "nowhere".into(), ..settings.clone() }, "nowhere"),
        (sink::Settings { vhost: "nowhere".into(), ..settings.clone() }, "vhost"),
        (
            sink::Settings { vhost: "other".into(), user: "reader".into(), ..settings.clone() },
            "access",
        ),
        (sink::Settings { user: "reader".into(), ..settings.clone() }, "refused"),
        (sink::Settings { exchange: String::new(), ..settings }, "declare it"),
    ] {
        let sink = sink::RabbitMq::new(settings, TIMEOUT * 3);
        let delivered = now(sink.deliver(&batch));
        let all = vec![Some(Class::Misconfigured); batch.len()];
        assert_eq!(classes(&delivered, batch.len()), all, "{word}: {delivered:?}");
        assert!(format!("{delivered:?}").contains(word), "{word}: {delivered:?}");
    }
    assert_eq!(server.stored(), Vec::<String>::new());
    // The first of two servers is away.
    let away = sink::Server { host: "127.0.0.1".into(), port: free_port(), tls: false };
    let servers = vec![away, server.server(false)];
    let sink = sink::RabbitMq::new(sink::Settings { servers, ..server.settings() }, TIMEOUT);
    assert_eq!(now(sink.deliver(&batch)), Delivered::All);
    assert_eq!(server.stored(), names_of(&batch));
}

#[test]
#[ignore = "needs rabbitmq-server, see tests/run brokers"]
fn a_queue_that_is_full_refuses_and_a_consumer_makes_room() {
    let (server, runtime) = (RabbitMq::with(""), runtime());
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(5));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    server.declare(QUEUE, &BOUND, arguments);
    let sink = server.sink(Who::Known);
    let batch = Events::of_lane("main").next(8);
    let first = classes(&runtime.block_on(sink.deliver(&batch)), batch.len());
    let refused = first.iter().filter(|class| **class == Some(Class::Overloaded)).count();
    assert!(first.iter().all(|class| matches!(class, None | Some(Class::Overloaded))), "{first:?}");
    assert!(refused > 0, "the queue takes no more than five");
    server.control(&["purge_queue", QUEUE]);
    assert_eq!(runtime.block_on(sink.deliver(&batch[..5])), Delivered::All);
}

#[test]
#[ignore = "needs rabbitmq-server, see tests/run brokers"]
fn a_server_without_memory_is_left_alone_and_gets_all_of_it_once_it_has_some() {
    let (server, runtime) = (RabbitMq::start(), runtime());
    let sink = server.sink(Who::Known);
    let mut lane = Events::of_lane("main");
    let events = lane.next(30);
    assert_eq!(runtime.block_on(sink.deliver(&events[..10])), Delivered::All);
    server.control(&["set_vm_memory_high_watermark", "0"]);
    // One batch finds out; after that none is sent at all, on this connection or on another.
    for _ in 0..3 {
        let delivered = runtime.block_on(sink.deliver(&events[10..20]));
        assert_eq!(class_of(&delivered), Some(Class::Overloaded), "{delivered:?}");
    }
    let probed = runtime.block_on(sink.probe()).map_err(|failure| failure.class);
    assert_eq!(probed, Err(Class::Overloaded));
    assert_eq!(server.sockets(), 1);
    server.control(&["set_vm_memory_high_watermark", "0.4"]);
    eventually("the server takes messages again", START_WAIT, || {
        // The drain's runtime goes on meanwhile.
        runtime.block_on(async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            sink.deliver(&events[10..20]).await == Delivered::All
        })
    });
    assert_eq!(runtime.block_on(sink.deliver(&events[20..])), Delivered::All);
    assert_eq!(server.stored(), names_of(&events));
}

#[test]
#[ignore = "needs rabbitmq-server, see tests/run brokers"]
fn a_server_that_hangs_costs_no_socket_for_each_attempt() {
    let (server, runtime) = (RabbitMq::start(), runtime());
    let sink = server.sink(Who::Known);
    let mut lane = Events::of_lane("main");
    assert_eq!(runtime.block_on(sink.deliver(&lane.next(1))), Delivered::All);
    server.server.pause();
    let batch = lane.next(1);
    for _ in 0..5 {
        let delivered = runtime.block_on(sink.deliver(&batch));
        assert_eq!(class_of(&delivered), Some(Class::Temporary), "{delivered:?}");
    }
    eventually("no attempt leaves its socket open", START_WAIT, || {
        // The drain's runtime goes on meanwhile.
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(50)).await });
        server.sockets() == 0
    });
    server.server.resume();
}

#[test]
#[ignore = "needs rabbitmq-server, see tests/run brokers"]
fn over_tls_the_servers_certificate_and_the_users_password_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let [authority, certificate, key] = certificates::of_loopback(folder.path(), "server");
    let [stranger, ..] = certificates::of_loopback(folder.path(), "stranger");
    let port = free_port();
    let server = RabbitMq::with(&format!(
        "listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.certfile = {}\nssl_options.keyfile = {}\n",
        certificate.display(),
        key.display()
    ));
    server.declare(QUEUE, &BOUND, FieldTable::default());
    let settings = |authority| sink::Settings {
        servers: vec![sink::Server { port, ..server.server(true) }],
        tls: certificates::trusting(authority),
        ..server.settings()
    };
    let batch = Events::of_lane("main").next(3);
    let sink = sink::RabbitMq::new(settings(&authority), TIMEOUT * 3);
    assert_eq!(now(sink.deliver(&batch)), Delivered::All);
    let another = SecretText::new("another");
    let elsewhere = sink::Server { host: "localhost".into(), port, tls: true };
    for (settings, word) in [
        // Whom nobody vouches for gets no event and no password; who is vouched for under another
        // name does neither.
        (settings(&stranger), "UnknownIssuer"),
        (sink::Settings { servers: vec![elsewhere], ..settings(&authority) }, "NotValidForName"),
        (sink::Settings { password: another, ..settings(&authority) }, "refused"),
    ] {
        let delivered = now(sink::RabbitMq::new(settings, TIMEOUT * 3).deliver(&batch));
        assert_eq!(class_of(&delivered), Some(Class::Misconfigured), "{delivered:?}");
        assert!(format!("{delivered:?}").contains(word), "{word}: {delivered:?}");
    }
    assert_eq!(server.stored(), names_of(&batch));
}
