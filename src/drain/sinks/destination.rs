//! Where a sink sends, to be looked at: the servers or the folder, and what it is called there.
//!
//! Never what may be secret: of a URL whose path is the user's own only scheme, host and port, no
//! user, no password, no query.

use std::fmt;

use http::Uri;

use super::Settings;

/// Where a sink sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Servers, a folder or a bucket; none: standard output.
    pub to: Vec<String>,
    /// What it is called there, by the keys of the configuration: a topic, a table.
    pub names: Vec<(&'static str, String)>,
}

impl Destination {
    fn at(to: impl fmt::Display) -> Self {
        Self::among([to])
    }

    fn among(to: impl IntoIterator<Item = impl fmt::Display>) -> Self {
        Self { to: to.into_iter().map(|place| place.to_string()).collect(), names: Vec::new() }
    }

    #[cfg(any(
        feature = "sink-kafka",
        feature = "sink-nats",
        feature = "sink-object",
        feature = "sink-postgres",
        feature = "sink-pubsub",
        feature = "sink-rabbitmq",
        feature = "sink-redis",
        feature = "sink-sqs"
    ))]
    fn named(mut self, key: &'static str, name: &dyn fmt::Display) -> Self {
        self.names.push((key, name.to_string()));
        self
    }

    #[cfg(any(feature = "sink-nats", feature = "sink-object", feature = "sink-postgres"))]
    fn maybe_named(self, key: &'static str, name: Option<&str>) -> Self {
        match name {
            Some(name) => self.named(key, &name),
            None => self,
        }
    }
}

impl Settings {
    /// Where it sends.
    pub fn destination(&self) -> Destination {
        match self {
            #[cfg(feature = "sink-kafka")]
            Self::Kafka(settings) => {
                Destination::among(&settings.brokers).named("topic", &settings.topic)
            }
            #[cfg(feature = "sink-nats")]
            Self::Nats(settings) => nats(settings),
            #[cfg(feature = "sink-object")]
            Self::Object(settings) => object(settings),
            #[cfg(feature = "sink-postgres")]
            Self::Postgres(settings) => postgres(settings),
            #[cfg(feature = "sink-pubsub")]
            Self::PubSub(settings) => {
                Destination::at(origin(&settings.endpoint)).named("topic", &settings.topic)
            }
            #[cfg(feature = "sink-rabbitmq")]
            Self::RabbitMq(settings) => rabbitmq(settings),
            #[cfg(feature = "sink-redis")]
            Self::Redis(settings) => redis(settings),
            #[cfg(feature = "sink-sqs")]
            Self::Sqs(settings) => {
                Destination::at(origin(&settings.endpoint)).named("queue_url", &settings.queue_url)
            }
            Self::Stdout(_) => Destination { to: Vec::new(), names: Vec::new() },
            Self::File(settings) => Destination::at(settings.folder.display()),
            Self::Http(settings) => Destination::at(origin(&settings.url)),
            Self::Resend(settings) => Destination::at(origin(&settings.http.url)),
        }
    }
}

/// Scheme, host and port: what stands behind them may be what opens the door.
fn origin(url: &Uri) -> String {
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{}://{host}", url.scheme_str().unwrap_or_default())
}

/// As an address of IPv6 is written before a port.
#[cfg(any(feature = "sink-nats", feature = "sink-postgres", feature = "sink-rabbitmq"))]
fn with_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(feature = "sink-nats")]
fn nats(settings: &super::nats::Settings) -> Destination {
    let servers = settings.servers.iter();
    let place = |server: &async_nats::ServerAddr| {
        format!("{}://{}", server.scheme(), with_port(server.host(), server.port()))
    };
    Destination::among(servers.map(place))
        .named("subject", &settings.subject)
        .maybe_named("stream", settings.stream.as_ref().map(|stream| stream.name.as_str()))
}

#[cfg(feature = "sink-object")]
fn object(settings: &super::object::Settings) -> Destination {
    let (bucket, base) = (&settings.bucket, settings.base.as_ref());
    let slash = if base.is_empty() { "" } else { "/" };
    Destination::at(format_args!("{bucket}{slash}{base}"))
        .maybe_named("endpoint", settings.endpoint.as_deref())
        .maybe_named("region", settings.region.as_deref())
        .named("prefix", &settings.prefix)
}

#[cfg(feature = "sink-postgres")]
fn postgres(settings: &super::postgres::Settings) -> Destination {
    use tokio_postgres::config::Host;

    const PORT: u16 = 5432;
    let (hosts, ports) = (settings.server.get_hosts(), settings.server.get_ports());
    // One port is for all of them.
    let port = |index: usize| *ports.get(index).or(ports.first()).unwrap_or(&PORT);
    let place = |(index, host): (usize, &Host)| match host {
        Host::Tcp(name) => with_port(name, port(index)),
        Host::Unix(path) => path.display().to_string(),
    };
    Destination::among(hosts.iter().enumerate().map(place))
        .maybe_named("database", settings.server.get_dbname())
        .named("table", &settings.table)
}

#[cfg(feature = "sink-rabbitmq")]
fn rabbitmq(settings: &super::rabbitmq::Settings) -> Destination {
    let place = |server: &super::rabbitmq::Server| {
        let scheme = if server.tls { "amqps" } else { "amqp" };
        format!("{scheme}://{}", with_port(&server.host, server.port))
    };
    Destination::among(settings.servers.iter().map(place))
        .named("vhost", &settings.vhost)
        .named("exchange", &settings.exchange)
        .named("routing_key", &settings.routing_key)
}

#[cfg(feature = "sink-redis")]
fn redis(settings: &super::redis::Settings) -> Destination {
    use redis::ConnectionAddr;

    let address = settings.server.addr();
    let scheme = match address {
        ConnectionAddr::TcpTls { .. } => "rediss",
        ConnectionAddr::Unix(_) => "redis+unix",
        _ => "redis",
    };
    Destination::at(format_args!("{scheme}://{address}"))
        .named("database", &settings.server.redis_settings().db())
        .named("stream", &settings.stream)
}
