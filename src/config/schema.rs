//! Every key that a configuration may hold: its form, its bounds, its default, one line about it.
//!
//! The reader takes forms and defaults from here, the overrides by environment take their names
//! from here, and a test compares the table in the README with this one. A key that is not here
//! does not exist.

mod source;

use std::time::Duration;

use super::units;

/// What a key's value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Any text.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number between these two.
    Count(u64, u64),
    /// A duration as text between these two.
    Span(Duration, Duration),
    /// A size as text between these two.
    Size(u64, u64),
    /// A moment.
    Moment,
    /// A list of texts.
    Texts,
    /// A rule as text, or a list of rules.
    Rule,
    /// A table with keys of its own.
    Table,
    /// Yes or no.
    Truth,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// Sections and key, with dots; `lane`, `source` and `sink` stand for any one of theirs.
    pub(super) path: &'static str,
    pub(super) form: Form,
    /// As it would be written in the file; empty where there is none.
    pub(super) default: &'static str,
    /// The row of the README.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the test of the README's table"))]
    pub(super) meaning: &'static str,
}

const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// What a deadline may be: shorter than a timer tick is a mistake, longer than an hour is none.
const DEADLINE: Form = Form::Span(Duration::from_millis(10), Duration::from_secs(3600));
/// What a window or an age may be.
const AGE: Form = Form::Span(Duration::from_secs(1), Duration::from_secs(86_400 * 3650));

const fn key(path: &'static str, form: Form, default: &'static str, meaning: &'static str) -> Key {
    Key { path, form, default, meaning }
}

/// Every key, in the order of the README.
pub(super) fn keys() -> impl Iterator<Item = &'static Key> {
    [BASE, source::KEYS, SINKS].into_iter().flatten()
}

/// What stands outside of sources and sinks.
const BASE: &[Key] = &[
    key("data_dir", Form::Text, "", "The folder that holds everything kept. Required."),
    key("receive.listen", Form::Text, "127.0.0.1:8080", "Address and port that senders reach."),
    key("receive.receivers", Form::Count(1, 512), "", "Receiver threads. Default: one a core."),
    key(
        "receive.driver",
        Form::Choice(&["auto", "io_uring", "epoll"]),
        "auto",
        "How sockets are driven: `auto`, `io_uring` or `epoll`.",
    ),
    key(
        "receive.body_max",
        Form::Size(1, crate::limits::BODY_BYTES_LIMIT),
        "1MiB",
        "The largest body taken; at most 32MiB.",
    ),
    key(
        "receive.body_budget",
        Form::Size(64 * KIB, TIB),
        "64MiB",
        "Body bytes in flight, per receiver.",
    ),
    key(
        "receive.head_timeout",
        DEADLINE,
        "5s",
        "From a request's first byte to the end of its headers.",
    ),
    key(
        "receive.body_timeout",
        DEADLINE,
        "10s",
        "From the end of the headers to the end of the body.",
    ),
    key(
        "receive.body_rate_min",
        Form::Size(1, GIB),
        "16KiB",
        "Bytes a second below which a body is too slow.",
    ),
    key(
        "receive.idle_timeout",
        DEADLINE,
        "15s",
        "How long a connection may wait between requests.",
    ),
    key("receive.write_timeout", DEADLINE, "5s", "How long an answer may take to be written."),
    key(
        "receive.drain_timeout",
        DEADLINE,
        "10s",
        "After SIGTERM: how long open requests may still take.",
    ),
    key(
        "receive.trusted_proxies",
        Form::Texts,
        "",
        "Networks of the proxies in front, whose word about a client's address is taken.",
    ),
    key(
        "receive.proxy_header",
        Form::Choice(&["x-forwarded-for", "proxy-protocol"]),
        "x-forwarded-for",
        "How they tell it: `x-forwarded-for`, or `proxy-protocol` (version 1 or 2) on every connection.",
    ),
    key(
        "receive.connections_per_address",
        Form::Count(1, 1_000_000),
        "",
        "Connections that one address may have open in each receiver. Default: no bound.",
    ),
    key(
        "receive.failures_per_address",
        Form::Count(1, 1_000_000),
        "",
        "Requests of one address that each receiver refuses in a minute before it answers 429 to all of them. Default: no bound.",
    ),
    key(
        "admin.listen",
        Form::Text,
        "127.0.0.1:9464",
        "Address and port of metrics and health. Not for the public.",
    ),
    key(
        "quarantine.size",
        Form::Size(0, TIB),
        "64MiB",
        "Disk for refused requests that may be looked at and released; `0` keeps none.",
    ),
    key("quarantine.age", AGE, "72h", "Refused requests older than this are removed."),
    key(
        "quarantine.rate",
        Form::Size(1, GIB),
        "",
        "Bytes a second that one source may add beyond its share of the size. Default: its share in a day.",
    ),
    key(
        "outgoing.proxy",
        Form::Text,
        "",
        "The proxy for what forebay asks by itself (`source.confirm`), as `http://10.0.0.1:3128`. Default: directly.",
    ),
    key(
        "outgoing.ca_file",
        Form::Text,
        "",
        "Certificates, as PEM, that are trusted there beside those of the machine: of a proxy that inspects TLS.",
    ),
    key("lane.name", Form::Text, "", "Name of the lane. Required."),
    key(
        "lane.ack",
        Form::Choice(&["written", "synced", "replicated"]),
        "synced",
        "What a 2xx promises: `written` survives the process, `synced` the loss of power, `replicated` that of the machine.",
    ),
    key(
        "lane.replicate_to",
        Form::Text,
        "",
        "With `ack = \"replicated\"`: the sink, of kind `nats`, that must have an event before its 2xx.",
    ),
    key(
        "lane.segment_size",
        Form::Size(forebay_log::SEGMENT_BYTES_MIN, forebay_log::SEGMENT_BYTES_MAX),
        "128MiB",
        "Size of one file of the log.",
    ),
    key(
        "lane.retention.age",
        AGE,
        "168h",
        "Segments older than this are removed, once cursors have read them. At least `lane.dedupe_window`, which the default follows.",
    ),
    key(
        "lane.retention.size",
        Form::Size(128 * KIB, 1024 * TIB),
        "",
        "The oldest segments beyond this are removed; each counts whole, however little is in it. Default: no bound.",
    ),
    key(
        "lane.dedupe_window",
        AGE,
        "72h",
        "How long an event is remembered; a later delivery of it is acknowledged, not stored again.",
    ),
    key(
        "lane.dedupe_capacity",
        Form::Count(1024, 1 << 32),
        "4000000",
        "Events remembered in memory, about 40 bytes each; all others of the window are kept in files beside the log. While the disk cannot keep up with them, a full memory answers 503.",
    ),
    key(
        "lane.disk_reserve",
        Form::Size(0, 1024 * TIB),
        "",
        "Free space below which nothing is taken. Default: two segments, at least 5 % of the disk.",
    ),
    key(
        "lane.priority",
        Form::Count(0, 255),
        "0",
        "Of the lanes that a sink reads, one with a higher number is drained first.",
    ),
];

/// What may stand in a `[[sink]]`.
const SINKS: &[Key] = &[
    key("sink.name", Form::Text, "", "Name of the sink, also of its cursors. Required."),
    key("sink.lanes", Form::Texts, "", "The lanes that the sink takes. Default: all."),
    key(
        "sink.order",
        Form::Choice(&["none", "tenant", "key"]),
        "none",
        "Which events never overtake one another: `none`, those of a `tenant`, or those of a `key`.",
    ),
    key(
        "sink.order_key",
        Form::Rule,
        "",
        "What the key is: `json:room.id`, `header:NAME`, `field:event_type`; several as in `event_id`, or a list of parts.",
    ),
    key(
        "sink.batch.count",
        Form::Count(1, 100_000),
        "500",
        "Events in a batch at the most; for `[sink.object]` 10000.",
    ),
    key(
        "sink.batch.bytes",
        Form::Size(KIB, GIB),
        "4MiB",
        "Bytes in a batch at the most; for `[sink.object]` 16MiB.",
    ),
    key(
        "sink.batch.linger",
        Form::Span(Duration::ZERO, Duration::from_secs(3600)),
        "20ms",
        "How long an event waits at the most for others to join its batch; for `[sink.object]` 1m.",
    ),
    key(
        "sink.retry.first",
        Form::Span(Duration::from_millis(1), Duration::from_secs(3600)),
        "200ms",
        "The longest wait before the first retry; it doubles with each.",
    ),
    key(
        "sink.retry.max",
        Form::Span(Duration::from_millis(1), Duration::from_secs(86_400)),
        "5m",
        "No wait between two attempts is longer, but where the sink itself asks for it.",
    ),
    key(
        "sink.retry.horizon",
        AGE,
        "72h",
        "An event that was tried for so long becomes a dead letter.",
    ),
    key(
        "sink.rate",
        Form::Count(1, 100_000_000),
        "",
        "Events a second at the most. Default: as many as the sink takes.",
    ),
    key(
        "sink.concurrency_max",
        Form::Count(1, 4096),
        "32",
        "Batches in flight at the most; how many it takes below that is found out.",
    ),
    key(
        "sink.memory",
        Form::Size(64 * KIB, TIB),
        "64MiB",
        "Payload bytes that are held for the sink at the most, waiting or in flight; for `[sink.object]` more, if a batch of each lane needs it.",
    ),
    key("sink.timeout", DEADLINE, "30s", "How long one batch may take."),
    key(
        "sink.dead_letters.redrive",
        Form::Text,
        "",
        "When dead letters are brought once more, as cron writes it, in UTC: `0 4 * * *`. Default: never.",
    ),
    key(
        "sink.dead_letters.rate",
        Form::Count(1, 100_000_000),
        "100",
        "Events a second at the most that are brought so, and no more than `sink.rate`.",
    ),
    key("sink.sources", Form::Texts, "", "The sources whose events are taken. Default: all."),
    key(
        "sink.types",
        Form::Texts,
        "",
        "The types that are taken, in which `*` stands for any text. Default: all.",
    ),
    key("sink.tenants", Form::Texts, "", "The tenants whose events are taken. Default: all."),
    key("sink.environments", Form::Texts, "", "The environments that are taken. Default: all."),
    key(
        "sink.filter",
        Form::Text,
        "",
        "An expression of jq over the normalised event; taken is what it yields neither `false` nor `null` for.",
    ),
    key(
        "sink.transform",
        Form::Text,
        "",
        "An expression of jq over the normalised event; what it yields takes the body's place.",
    ),
    key(
        "sink.redact",
        Form::Texts,
        "",
        "What is taken out before anything else sees the event, as `json:user.email` or `header:authorization`.",
    ),
    key(
        "sink.format",
        Form::Choice(&["raw", "cloudevents", "normalised"]),
        "raw",
        "What is made of an event: `raw`, `cloudevents` or `normalised`.",
    ),
    key(
        "sink.kafka.brokers",
        Form::Texts,
        "",
        "Brokers of one Kafka cluster, `HOST:PORT`. Required.",
    ),
    key(
        "sink.kafka.topic",
        Form::Text,
        "forebay.{lane}",
        "The topic of an event; `{lane}`, `{source}`, `{type}` and `{tenant}` are filled in.",
    ),
    key(
        "sink.kafka.create_topics",
        Form::Truth,
        "false",
        "Lets the brokers make a topic that is missing, where they do that at all.",
    ),
    key("sink.kafka.tls", Form::Truth, "false", "Encrypts the connections."),
    key(
        "sink.kafka.ca_file",
        Form::Text,
        "",
        "The authority of the brokers' certificates, as PEM. Default: those that the system trusts.",
    ),
    key(
        "sink.kafka.sasl",
        Form::Choice(&["none", "plain", "scram-sha-256", "scram-sha-512"]),
        "none",
        "How forebay proves who it is; `plain` belongs under TLS.",
    ),
    key("sink.kafka.user", Form::Text, "", "The user, with `sink.kafka.password`."),
    key(
        "sink.kafka.password.value",
        Form::Text,
        "",
        "The user's password; better `env` or `file`.",
    ),
    key("sink.kafka.password.env", Form::Text, "", "The environment variable that holds it."),
    key("sink.kafka.password.file", Form::Text, "", "The file that holds it."),
    key(
        "sink.kafka.compression",
        Form::Choice(&["none", "gzip", "snappy", "lz4"]),
        "none",
        "How batches are compressed.",
    ),
    key(
        "sink.nats.servers",
        Form::Texts,
        "",
        "Servers of one NATS cluster, `nats://HOST:PORT` or `tls://HOST:PORT`. Required.",
    ),
    key(
        "sink.nats.credentials.value",
        Form::Text,
        "",
        "The text of a `.creds` file; better `env` or `file`.",
    ),
    key("sink.nats.credentials.env", Form::Text, "", "The environment variable that holds it."),
    key("sink.nats.credentials.file", Form::Text, "", "The file that holds it."),
    key("sink.nats.token.value", Form::Text, "", "A token; better `env` or `file`."),
    key("sink.nats.token.env", Form::Text, "", "The environment variable that holds it."),
    key("sink.nats.token.file", Form::Text, "", "The file that holds it."),
    key("sink.nats.user", Form::Text, "", "The user, with `sink.nats.password`."),
    key("sink.nats.password.value", Form::Text, "", "The user's password; better `env` or `file`."),
    key("sink.nats.password.env", Form::Text, "", "The environment variable that holds it."),
    key("sink.nats.password.file", Form::Text, "", "The file that holds it."),
    key("sink.nats.tls", Form::Truth, "false", "Refuses a server without TLS."),
    key(
        "sink.nats.ca_file",
        Form::Text,
        "",
        "The authority of the servers' certificates, as PEM. Default: those that the system trusts.",
    ),
    key(
        "sink.nats.subject",
        Form::Text,
        "forebay.{lane}.{source}.{type}",
        "The subject of an event; `{lane}`, `{source}`, `{type}` and `{tenant}` are filled in, each as one token.",
    ),
    key("sink.nats.create_stream", Form::Truth, "false", "Makes the stream where it is missing."),
    key("sink.nats.stream", Form::Text, "forebay", "The name of that stream."),
    key("sink.nats.duplicate_window", AGE, "2m", "How long that stream knows an event again."),
    key("sink.nats.replicas", Form::Count(1, 5), "1", "How many servers keep that stream."),
    key(
        "sink.object.url",
        Form::Text,
        "",
        "`s3://BUCKET/FOLDER`, `gs://BUCKET/FOLDER`, `az://CONTAINER/FOLDER` or `file:///FOLDER`. Required.",
    ),
    key(
        "sink.object.endpoint",
        Form::Text,
        "",
        "Where a store that speaks one of these languages is. Default: where its maker has it.",
    ),
    key("sink.object.region", Form::Text, "", "The bucket's region, at S3."),
    key(
        "sink.object.access_key",
        Form::Text,
        "",
        "The id of the access key at S3, the account at Azure. Default: what the environment or the machine says.",
    ),
    key(
        "sink.object.secret_key.value",
        Form::Text,
        "",
        "Its secret, at GCS the service account as JSON; better `env` or `file`.",
    ),
    key("sink.object.secret_key.env", Form::Text, "", "The environment variable that holds it."),
    key("sink.object.secret_key.file", Form::Text, "", "The file that holds it."),
    key(
        "sink.object.session_token.value",
        Form::Text,
        "",
        "The token of a temporary key; better `env` or `file`.",
    ),
    key("sink.object.session_token.env", Form::Text, "", "The environment variable that holds it."),
    key("sink.object.session_token.file", Form::Text, "", "The file that holds it."),
    key(
        "sink.object.ca_file",
        Form::Text,
        "",
        "Authorities of the server's certificate beside those that the system trusts, as PEM.",
    ),
    key("sink.object.allow_http", Form::Truth, "false", "Allows an endpoint without TLS."),
    key(
        "sink.object.format",
        Form::Choice(&["ndjson", "parquet"]),
        "ndjson",
        "What an object is: lines of JSON (`ndjson`) or a Parquet file (`parquet`).",
    ),
    key(
        "sink.object.compression",
        Form::Count(0, 19),
        "3",
        "The level of zstd; 0 does not compress.",
    ),
    key(
        "sink.object.prefix",
        Form::Text,
        "{lane}/dt={yyyy}-{mm}-{dd}/hour={hh}/",
        "The folders of an object, by lane and by the time of arrival in UTC.",
    ),
    key(
        "sink.postgres.url",
        Form::Text,
        "",
        "`postgres://USER@HOST:PORT/DATABASE`, with `?sslmode=require` for TLS. Required.",
    ),
    key(
        "sink.postgres.password.value",
        Form::Text,
        "",
        "The user's password; better `env` or `file`.",
    ),
    key("sink.postgres.password.env", Form::Text, "", "The environment variable that holds it."),
    key("sink.postgres.password.file", Form::Text, "", "The file that holds it."),
    key(
        "sink.postgres.ca_file",
        Form::Text,
        "",
        "The authority of the server's certificate, as PEM. Default: those that the system trusts.",
    ),
    key(
        "sink.postgres.table",
        Form::Text,
        "forebay_events",
        "The table, or `SCHEMA.TABLE`; made where it is missing, and `TABLE_cursor` with it.",
    ),
    key(
        "sink.postgres.payload",
        Form::Choice(&["bytea", "jsonb"]),
        "bytea",
        "What the column `payload` is: `bytea` takes any bytes, `jsonb` JSON alone.",
    ),
    key(
        "sink.redis.url",
        Form::Text,
        "",
        "`redis://HOST:PORT/DATABASE`, or `rediss://` for TLS. Required.",
    ),
    key("sink.redis.user", Form::Text, "", "The user. Default: the server's default user."),
    key(
        "sink.redis.password.value",
        Form::Text,
        "",
        "The user's password; better `env` or `file`.",
    ),
    key("sink.redis.password.env", Form::Text, "", "The environment variable that holds it."),
    key("sink.redis.password.file", Form::Text, "", "The file that holds it."),
    key(
        "sink.redis.ca_file",
        Form::Text,
        "",
        "The authority of the server's certificate, as PEM. Default: those that the system trusts.",
    ),
    key(
        "sink.redis.stream",
        Form::Text,
        "forebay:{lane}",
        "The stream of an event; `{lane}`, `{source}`, `{type}` and `{tenant}` are filled in.",
    ),
    key(
        "sink.redis.entries_max",
        Form::Count(1, 1 << 40),
        "",
        "About how many entries the stream keeps (`MAXLEN ~`). Default: no bound.",
    ),
    key("sink.stdout", Form::Table, "", "Writes payloads to standard output, one a line."),
    key(
        "sink.file.folder",
        Form::Text,
        "",
        "The folder of the sink's files; it is made if it is missing. Required.",
    ),
    key(
        "sink.file.sync",
        Form::Choice(&["batch", "never"]),
        "batch",
        "`batch`: a batch is acknowledged once it is on the medium; `never`: the kernel writes it when it likes.",
    ),
    key(
        "sink.file.rotate_size",
        Form::Size(KIB, TIB),
        "256MiB",
        "A file that would grow beyond this is complete.",
    ),
    key(
        "sink.file.rotate_age",
        AGE,
        "24h",
        "A file that was begun so long ago is complete when the next event comes.",
    ),
    key(
        "sink.http.url",
        Form::Text,
        "",
        "Where events are sent to, `https://` or `http://`. Required.",
    ),
    key(
        "sink.http.batch",
        Form::Choice(&["one", "json", "cloudevents"]),
        "one",
        "What a request carries: `one` event, a `json` array of payloads, or a batch of `cloudevents`.",
    ),
    key(
        "sink.http.attributes",
        Form::Choice(&["none", "cloudevents"]),
        "none",
        "Headers that say what a single event is: `none`, or those of `cloudevents` in binary mode.",
    ),
    key("sink.http.secrets.name", Form::Text, "", "Name of a secret that signs. Required."),
    key("sink.http.secrets.value", Form::Text, "", "The secret itself; better `env` or `file`."),
    key("sink.http.secrets.env", Form::Text, "", "The environment variable that holds it."),
    key("sink.http.secrets.file", Form::Text, "", "The file that holds it."),
    key("sink.http.headers.name", Form::Text, "", "A header to send along. Required."),
    key(
        "sink.http.headers.value",
        Form::Text,
        "",
        "Its value; of a credential better `env` or `file`.",
    ),
    key("sink.http.headers.env", Form::Text, "", "The environment variable that holds its value."),
    key("sink.http.headers.file", Form::Text, "", "The file that holds its value."),
    key(
        "sink.http.ca_file",
        Form::Text,
        "",
        "Certificates (PEM) that the destination's must descend from. Default: those of the system.",
    ),
    key(
        "sink.http.allow_private",
        Form::Truth,
        "false",
        "Whether addresses that are not public may be reached.",
    ),
    key("sink.http.connect_timeout", DEADLINE, "5s", "How long a connection may take to be made."),
    key(
        "sink.http.idle_timeout",
        DEADLINE,
        "4s",
        "How long a connection is kept for the next request; shorter than the destination keeps it.",
    ),
];

/// The key of this path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    keys().find(|key| key.path == path)
}

/// The words that may stand in the table of this path: keys and sections, each once.
pub(super) fn words_of(prefix: &str) -> Vec<&'static str> {
    let mut words: Vec<&'static str> = keys()
        .filter_map(|key| match prefix {
            "" => Some(key.path),
            _ => key.path.strip_prefix(prefix)?.strip_prefix('.'),
        })
        .map(|rest| rest.split('.').next().unwrap_or(rest))
        .collect();
    words.dedup();
    words
}

impl Form {
    /// What the form is called in a message.
    pub(super) fn wanted(self) -> String {
        match self {
            Self::Text => "text in quotes".to_owned(),
            Self::Choice(words) => format!("one of \"{}\"", words.join("\", \"")),
            Self::Count(min, max) => format!("a whole number from {min} to {max}"),
            Self::Span(min, max) => format!(
                "a duration from \"{}\" to \"{}\"",
                units::duration_text(min),
                units::duration_text(max)
            ),
            Self::Size(min, max) => format!(
                "a size from \"{}\" to \"{}\"",
                units::size_text(min),
                units::size_text(max)
            ),
            Self::Moment => {
                "a date with time and offset, such as \"2026-12-31T00:00:00Z\"".to_owned()
            }
            Self::Texts => "a list of texts, such as [\"application/json\"]".to_owned(),
            Self::Rule => "a rule, such as \"json:data.id\" or \"header:x-event-id\"".to_owned(),
            Self::Table => "a table".to_owned(),
            Self::Truth => "true or false, without quotes".to_owned(),
        }
    }
}
