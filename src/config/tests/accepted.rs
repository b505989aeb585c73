//! What is read, from where, and what it comes to.

use std::any::Any;
use std::time::Duration;

use super::*;
use crate::config::schema::{self, Form};
use crate::drain::sinks::{file, http};

/// What a sink of this kind has.
fn settings<S: Any>(sink: &SinkConfig) -> &S {
    let kind: &dyn Any = &*sink.settings;
    kind.downcast_ref().expect("another kind")
}

#[test]
fn the_least_configuration_has_every_default() {
    let config = good(LEAST, &[]);
    assert_eq!(config.data_dir, Path::new("etc/data"), "relative to the file");
    assert_eq!(config.receive.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9464");
    assert_eq!(config.receive.driver, Driver::Auto);
    assert!(config.receive.receivers >= 1);
    assert_eq!(config.receive.body_bytes_max, 1024 * 1024);
    assert_eq!(config.receive.drain_timeout, Duration::from_secs(10));
    let lane = &config.lanes[0];
    assert_eq!((lane.ack, lane.segment_bytes), (AckLevel::Synced, 128 * 1024 * 1024));
    assert_eq!(lane.dedupe_window, Duration::from_secs(72 * 3600));
    assert_eq!((lane.dedupe_keys_max, lane.disk_reserve_bytes), (4_000_000, None));
    assert_eq!(config.lane_dir(lane), Path::new("etc/data/lanes/main"));
    let source = &config.sources[0];
    assert_eq!((source.lane, source.environment.as_str()), (0, "production"));
    assert_eq!(source.preset.unwrap().name, "github");
    assert_eq!(source.body_bytes_max, 1024 * 1024);
    assert_eq!(source.secrets[0].origin, Origin::Value);
}

#[test]
fn every_key_is_read_from_the_file() {
    let config = good(
        r#"
        data_dir = "/d"
        receive = { listen = "[::]:1", receivers = 3, driver = "io_uring", body_max = "2MiB", body_budget = "8MiB", head_timeout = "1s", body_timeout = "2s", body_rate_min = "1KiB", idle_timeout = "3s", write_timeout = "4s", drain_timeout = "5s" }
        admin.listen = "127.0.0.1:2"
        [[lane]]
        name = "x"
        ack = "written"
        segment_size = "16MiB"
        retention = { age = "2h", size = "1GiB" }
        dedupe_window = "1h"
        dedupe_capacity = 10_000
        disk_reserve = "1GiB"
        [[lane]]
        name = "y"
        [[source]]
        name = "s"
        path = "/s"
        preset = "stripe"
        secrets = [{ name = "a", value = "0123456789abcdef" }, { name = "b", env = "B" }]
        lane = "y"
        environment = "sandbox"
        tenant = "acme"
        event_id = "json:id"
        event_type = "header:x-type"
        event_time = "json:at"
        content_types = ["Text/Plain"]
        tolerance = "60s"
        body_max = "64KiB"
        "#,
        &[("B", "fedcba9876543210")],
    );
    let receive = &config.receive;
    assert_eq!((receive.receivers, receive.driver), (3, Driver::IoUring));
    assert_eq!((receive.body_bytes_max, receive.body_budget_bytes), (2 << 20, 8 << 20));
    assert_eq!(receive.body_rate_min, 1024);
    let seconds = [
        receive.head_timeout,
        receive.body_timeout,
        receive.idle_timeout,
        receive.write_timeout,
        receive.drain_timeout,
    ];
    assert_eq!(seconds.map(|timeout| timeout.as_secs()), [1, 2, 3, 4, 5]);
    let lane = &config.lanes[0];
    assert_eq!((lane.ack, lane.segment_bytes), (AckLevel::Written, 16 << 20));
    assert_eq!(lane.retention_age, Duration::from_secs(7200));
    assert_eq!(lane.retention_bytes, Some(1 << 30));
    assert_eq!((lane.dedupe_keys_max, lane.disk_reserve_bytes), (10_000, Some(1 << 30)));
    let source = &config.sources[0];
    assert_eq!((source.lane, source.environment.as_str()), (1, "sandbox"));
    assert_eq!(source.tenant.as_deref(), Some("acme"));
    assert_eq!(source.content_types, ["text/plain"]);
    assert_eq!(source.tolerance, Some(Duration::from_secs(60)));
    assert_eq!(source.body_bytes_max, 64 * 1024);
    let origins: Vec<&Origin> = source.secrets.iter().map(|secret| &secret.origin).collect();
    assert_eq!(origins, [&Origin::Value, &Origin::Env("B".to_owned())]);
}

#[test]
fn the_environment_goes_before_the_file() {
    let config = good(
        LEAST,
        &[
            ("FOREBAY_DATA_DIR", "elsewhere"),
            ("FOREBAY_RECEIVE__LISTEN", "0.0.0.0:80"),
            ("FOREBAY_RECEIVE__RECEIVERS", "7"),
            ("FOREBAY_LANE__MAIN__ACK", "written"),
            ("FOREBAY_LANE__MAIN__RETENTION__AGE", "96h"),
            ("FOREBAY_SOURCE__HUB_EU__PATH", "/\u{68}ub2"),
            ("FOREBAY_SOURCE__HUB_EU__CONTENT_TYPES", "text/plain, application/json"),
            ("FOREBAY_SOURCE__HUB_EU__SECRETS__A", "another-secret-than-that"),
            ("FOREBAY_SOURCE__HUB_EU__BODY_MAX", "2KiB"),
            ("FOREBAY_LOG", "debug"),
            ("FOREBAY_CONFIG", "x"),
            ("FOREBAY_SERVICE_HOST", "10.0.0.1"),
            ("FOREBAY_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ],
    );
    assert_eq!(config.data_dir, Path::new("elsewhere"), "relative to the working folder");
    assert_eq!(config.receive.listen.to_string(), "0.0.0.0:80");
    assert_eq!(config.receive.receivers, 7);
    assert_eq!(config.lanes[0].ack, AckLevel::Written);
    assert_eq!(config.lanes[0].retention_age, Duration::from_secs(96 * 3600));
    let source = &config.sources[0];
    assert_eq!((source.path.as_str(), source.body_bytes_max), ("/hub2", 2048));
    assert_eq!(source.content_types, ["text/plain", "application/json"]);
    let variable = "FOREBAY_SOURCE__HUB_EU__SECRETS__A".to_owned();
    assert_eq!(source.secrets[0].origin, Origin::Env(variable));
}

#[test]
fn secrets_may_come_from_the_environment_alone() {
    let bare = LEAST.lines().filter(|line| !line.starts_with("secrets")).collect::<Vec<_>>();
    let config = good(
        &bare.join("\n").replace("github", "livekit"),
        &[
            ("FOREBAY_SOURCE__HUB_EU__SECRETS__NEW_ONE", "0123456789abcdef"),
            ("FOREBAY_SOURCE__HUB_EU__SECRETS__NEW_ONE__KEY_ID", "k"),
            ("FOREBAY_SOURCE__HUB_EU__SECRETS__OLD__KEY_ID", "old"),
            ("FOREBAY_SOURCE__HUB_EU__SECRETS__OLD__ENV", "FOREBAY_OLD__SECRET"),
            ("FOREBAY_OLD__SECRET", "fedcba9876543210"),
        ],
    );
    let secrets = &config.sources[0].secrets;
    assert_eq!(secrets[0].name, "new-one");
    assert_eq!(secrets[0].key_id.as_deref(), Some("k"));
    assert_eq!(secrets[1].origin, Origin::Env("FOREBAY_OLD__SECRET".to_owned()));
}

#[test]
fn a_source_may_write_its_own_scheme_and_rules() {
    let scheme = r#"
[source.scheme]
algorithm = "hmac-sha256"
header = "X-Sig"
signed = ["header:X-At", "literal:.", "body"]
signature_encoding = "hex"
time = { from = "header:X-At", unit = "s" }
"#;
    let text = LEAST.replace("preset = \"github\"", "event_id = [\"json:a\", \"json:b\"]");
    let config = good(
        &format!("{text}{scheme}"),
        &[
            ("FOREBAY_SOURCE__HUB_EU__SCHEME__SIGNATURE_ENCODING", "base64"),
            ("FOREBAY_SOURCE__HUB_EU__SCHEME__TIME__PAST", "60s"),
            ("FOREBAY_SOURCE__HUB_EU__TENANT", "json:account.id"),
        ],
    );
    let source = &config.sources[0];
    assert!(source.preset.is_none() && source.tenant.is_none());
    let rules: Vec<_> = source.rules().map(|(key, _)| key).collect();
    assert_eq!(rules, ["tenant", "event_id"]);
}

#[test]
fn every_preset_can_be_configured() {
    for preset in crate::verify::presets() {
        let secret = crate::verify::tests::example_secret(preset).trim_end().replace('\n', "\\n");
        let key_id = crate::verify::tests::example_key_id(preset)
            .map_or_else(String::new, |id| format!(", key_id = \"{id}\""));
        let text = LEAST.replace("github", &preset.name);
        let text = text.replace(&format!("\"{CANARY}\""), &format!("\"{secret}\"{key_id}"));
        let account = "public_url = \"https://hooks.example.com\"\nparams = { webhook_id = \"w\", topic_arn = \"t\" }\n";
        let config = good(&format!("{text}\n{account}"), &[]);
        assert_eq!(config.sources[0].preset.unwrap().name, preset.name);
    }
}

#[test]
fn a_secret_of_a_file_ends_before_its_line_end() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("s"), "0123456789abcdef\r\n").unwrap();
    let text = LEAST.replace("value = \"canary-canary-canary-canary\"", "file = \"s\"");
    let path = folder.path().join("forebay.toml");
    fs::write(&path, text).unwrap();
    let config = load(&path, []).unwrap();
    assert_eq!(config.sources[0].secrets[0].origin, Origin::File(folder.path().join("s")));
    fs::write(folder.path().join("s"), "0123456789abcdef \n").unwrap();
    assert!(load(&path, []).unwrap_err().to_string().contains("white space"));
}

#[test]
fn every_default_is_a_value_that_fits() {
    for key in schema::keys().filter(|key| !key.default.is_empty()) {
        let fits = match key.form {
            Form::Span(min, max) => {
                parse_duration(key.default).is_ok_and(|span| (min..=max).contains(&span))
            }
            Form::Size(min, max) => {
                units::parse_size(key.default).is_ok_and(|size| (min..=max).contains(&size))
            }
            Form::Count(min, max) => key.default.parse().is_ok_and(|n| (min..=max).contains(&n)),
            Form::Choice(words) => words.contains(&key.default),
            _ => true,
        };
        assert!(fits, "{}", key.path);
    }
}

#[test]
fn the_readme_lists_every_key() {
    let expected: Vec<String> = schema::keys()
        .map(|key| {
            let default = match key.default {
                "" => String::new(),
                default => format!("`{default}`"),
            };
            format!("| `{}` | {default} | {} |", key.path, key.meaning)
        })
        .collect();
    let written = readme_rows("| Key | Default | Meaning |\n|---|---|---|\n");
    assert_eq!(written, expected, "the table should be:\n{}\n", expected.join("\n"));
}

#[test]
fn the_readme_lists_every_key_of_a_scheme() {
    // serde knows the fields, and tells them to whoever asks for one that is none.
    let known_of = |text: &str| -> Vec<String> {
        let error = toml::from_str::<crate::verify::SchemeSpec>(text).unwrap_err();
        let (_, known) = error.message().split_once(", expected").unwrap();
        known.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let base = "algorithm = \"hmac-sha256\"\nheader = \"x\"\n";
    let mut expected: Vec<String> = Vec::new();
    for key in known_of("none = 1") {
        match key.as_str() {
            "time" | "key_pair" | "jwt" => expected.extend(
                known_of(&format!("{base}[{key}]\nnone = 1"))
                    .iter()
                    .map(|inner| format!("{key}.{inner}")),
            ),
            _ => expected.push(key),
        }
    }
    let written: Vec<&str> = readme_rows("| Key of a scheme | Meaning |\n|---|---|\n")
        .iter()
        .filter_map(|row| row.split('`').nth(1))
        .collect();
    assert_eq!(written, expected);
}

/// The rows of a table in the README of this folder, or in that of `verify`.
fn readme_rows(head: &str) -> Vec<&'static str> {
    let readmes = [include_str!("../README.md"), include_str!("../../verify/README.md")];
    readmes
        .into_iter()
        .find_map(|readme| readme.split(head).nth(1))
        .expect("one of them has the table")
        .lines()
        .take_while(|line| line.starts_with('|'))
        .collect()
}

#[test]
fn the_readme_tells_the_bounds_that_no_key_changes() {
    use crate::limits as l;
    let readme = include_str!("../README.md");
    for bound in [
        format!("those of sinks {} at most", l::SINK_NAME_BYTES_MAX),
        format!(
            "at most {} sources, {} lanes, {} sinks",
            l::SOURCES_MAX,
            l::LANES_MAX,
            l::SINKS_MAX
        ),
        format!("{} secrets of a source", l::SECRETS_MAX),
        format!("none of them below {} bytes", l::SECRET_BYTES_MIN),
        format!("{} bytes and {} header lines", l::HEAD_BYTES_MAX, l::HEADERS_MAX),
        format!("more than {} bytes counts as absent", l::IDENTITY_BYTES_MAX),
        format!("more than {} events is kept as one", l::ITEMS_MAX),
    ] {
        assert!(readme.contains(&bound), "{bound}");
    }
}

#[test]
fn a_sink_has_its_defaults_and_takes_every_lane() {
    let config = good(&format!("{LEAST}\n[[sink]]\nname = \"out\"\n[sink.stdout]\n"), &[]);
    let [sink] = config.sinks.as_slice() else { panic!("one sink") };
    assert_eq!((sink.name.as_str(), sink.lanes.as_slice()), ("out", &[0][..]));
    assert_eq!(sink.settings.word(), "stdout");
    assert_eq!((sink.batch.events_max, sink.concurrency_max), (500, 32));
    assert_eq!(sink.retry.horizon, Duration::from_secs(72 * 3600));
    assert_eq!((sink.order.word(), sink.events_per_second), ("none", None));
    assert!(good(LEAST, &[]).sinks.is_empty(), "there may be none");
}

#[cfg(feature = "sink-object")]
#[test]
fn a_sink_of_objects_gathers_more_unless_it_is_told() {
    let sink = |lines: &str| {
        let text = format!(
            "{LEAST}\n[[sink]]\nname = \"out\"\n{lines}\n[sink.object]\n\
             url = \"s3://bucket/folder\"\nendpoint = \"https://store.example.com\"\n\
             region = \"eu-1\"\naccess_key = \"id\"\nsecret_key = {{ value = \"word\" }}\n"
        );
        good(&text, &[]).sinks.remove(0)
    };
    let gathers = sink("").batch;
    assert_eq!((gathers.events_max, gathers.bytes_max), (10_000, 16 << 20));
    assert_eq!(gathers.linger, Duration::from_secs(60));
    let told = sink("batch = { count = 50000, linger = \"1s\" }");
    assert_eq!((told.batch.events_max, told.batch.bytes_max), (50_000, 16 << 20));
    assert_eq!(told.batch.linger, Duration::from_secs(1));
    assert_eq!(told.memory_bytes_max, (16 << 20) + 50_000 * 1024, "a batch fits");
    assert_eq!(told.settings.word(), "object");
}

#[test]
fn a_sink_is_overridden_by_its_name() {
    let text = format!(
        "{LEAST}\n[[sink]]\nname = \"to-bus\"\norder = \"key\"\norder_key = [\"json:a.b|header:x\", \
         \"field:tenant\"]\n[sink.stdout]\n"
    );
    let environment = [("FOREBAY_SINK__TO_BUS__BATCH__COUNT", "9")];
    let config = good(&text, &environment);
    assert_eq!(config.sinks[0].batch.events_max, 9);
    assert_eq!(config.sinks[0].order.rule(), Some("json:a.b|header:x and field:tenant"));
}

#[test]
fn a_sink_of_http_has_its_secrets_and_headers_from_anywhere() {
    let text = format!(
        "{LEAST}[[sink]]\nname = \"out\"\nformat = \"normalised\"\ntypes = [\"room.*\"]\n\
         filter = \".body.x\"\n[sink.http]\nurl = \"https://hooks.example.com/x\"\n\
         secrets = [{{ name = \"a\", env = \"SIGNS\" }}]\n\
         headers = [{{ name = \"Authorization\", env = \"TOKEN\" }}]\n"
    );
    let variables = [
        ("SIGNS", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"),
        ("TOKEN", "Bearer t"),
        ("FOREBAY_SINK__OUT__HTTP__IDLE_TIMEOUT", "2s"),
    ];
    let config = good(&text, &variables);
    let http = settings::<http::Settings>(&config.sinks[0]);
    assert_eq!((http.secrets.len(), http.headers[0].0.as_str()), (1, "authorization"));
    assert_eq!(http.headers[0].1, "Bearer t");
    assert_eq!(http.idle_timeout, Duration::from_secs(2));
    assert!(!http.allow_private && http.authorities.is_none());
}

#[test]
fn a_sink_of_files_has_its_folder_beside_the_configuration() {
    let text = format!("{LEAST}[[sink]]\nname = \"out\"\n[sink.file]\nfolder = \"events\"\n");
    let config = good(&text, &[]);
    let file = settings::<file::Settings>(&config.sinks[0]);
    assert_eq!(file.folder, Path::new("etc/events"));
    assert!(file.sync);
}

#[test]
fn a_lane_that_replicates_syncs_first_and_its_sink_does_not_linger() {
    const SINK: &str = "[sink.nats]\nservers = [\"nats://127.0.0.1:4222\"]\n";
    let lane = "name = \"main\"\nack = \"replicated\"\nreplicate_to = \"stream\"";
    let least = LEAST.replace("name = \"main\"", lane);
    let text = format!("{least}[[sink]]\nname = \"stream\"\n{SINK}[[sink]]\nname = \"b\"\n{SINK}");
    let config = good(&text, &[]);
    assert_eq!((config.lanes[0].ack, config.lanes[0].ack_text()), (AckLevel::Synced, "replicated"));
    assert_eq!(config.lanes[0].replicate_to.as_deref(), Some("stream"));
    let lingers = [0, 1].map(|sink: usize| config.sinks[sink].batch.linger.is_zero());
    assert_eq!(lingers, [true, false]);
}

#[test]
fn a_sink_is_known_to_have_changed_by_its_secrets_too_wherever_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let text = format!(
        "{LEAST}[[sink]]\nname = \"out\"\nrate = 5\n[sink.http]\nurl = \"https://a.example/x\"\n\
         secrets = [{{ name = \"a\", env = \"SIGNS\" }}]\n\
         headers = [{{ name = \"x-token\", file = \"{}\" }}]\n",
        file.display()
    );
    let (one, other) =
        ("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    fs::write(&file, "first").unwrap();
    let print = |text: &str, secret| good(text, &[("SIGNS", secret)]).sinks[0].print;
    let first = print(&text, one);
    assert_eq!(print(&text, one), first);
    // What is only written in another way is the same.
    assert_eq!(print(&text.replace("rate = 5\n", "# fast\n  rate = 5\n"), one), first);
    assert_ne!(print(&text, other), first);
    assert_ne!(print(&text.replace("rate = 5", "rate = 6"), one), first);
    fs::write(&file, "second").unwrap();
    assert_ne!(print(&text, one), first);
    assert_eq!(format!("{first:?}"), "Print");
}

#[test]
fn what_a_replay_to_another_receiver_needs_is_read_without_a_secret() {
    let text = format!(
        "{}\n[[sink]]\nname = \"out\"\n[sink.http]\nurl = \"https://Hooks.Example/x\"\n\
         secrets = [{{ name = \"a\", env = \"NOT_SET\" }}]\n\
         [[sink]]\nname = \"queue\"\n[sink.nats]\nservers = [\"nats://q.example:4222\"]\n",
        LEAST.replace("value = \"canary-canary-canary-canary\"", "env = \"NOT_SET\"")
    );
    let environment = BTreeMap::new();
    let path = Path::new("etc/forebay.toml");
    let staging = parse(path, &text, &environment, staging::read).unwrap();
    assert_eq!((staging.senders.len(), staging.senders[0].name.as_str()), (1, "hub-eu"));
    let host = |sink: &str, host: &str, port| SinkHost {
        sink: sink.to_owned(),
        host: host.to_owned(),
        port,
    };
    let hosts = [host("out", "hooks.example", None), host("queue", "q.example", Some(4222))];
    assert_eq!(staging.hosts, hosts);
    assert_eq!(staging.listeners.len(), 2);
}

#[cfg(feature = "sink-sqs")]
#[test]
fn a_queue_of_sqs_is_asked_where_it_is_unless_another_place_is_named() {
    let sqs = |lines: &str| {
        let text = format!("{LEAST}\n[[sink]]\nname = \"out\"\n[sink.sqs]\n{lines}\n");
        let config = good(&text, &[]);
        let settings = settings::<crate::drain::sinks::sqs::Settings>(&config.sinks[0]);
        (settings.endpoint.to_string(), settings.region.clone())
    };
    let of = |endpoint: &str, region: &str| (endpoint.to_owned(), region.to_owned());
    assert_eq!(
        sqs("queue_url = \"https://sqs.eu-central-1.amazonaws.com/1/hooks.fifo\""),
        of("https://sqs.eu-central-1.amazonaws.com/", "eu-central-1")
    );
    assert_eq!(
        sqs("queue_url = \"https://sqs.eu-central-1.amazonaws.com/1/hooks\"\n\
             endpoint = \"https://vpce-1-a.sqs.eu-west-1.vpce.amazonaws.com/x\""),
        of("https://vpce-1-a.sqs.eu-west-1.vpce.amazonaws.com/", "eu-west-1")
    );
    assert_eq!(
        sqs("queue_url = \"http://127.0.0.1:9324/1/hooks\"\nregion = \"none\"\n\
             allow_http = true\nallow_private = true"),
        of("http://127.0.0.1:9324/", "none")
    );
}

#[cfg(feature = "sink-pubsub")]
#[test]
fn a_topic_of_pubsub_is_published_to_as_the_machine_unless_a_key_is_given() {
    use crate::drain::sinks::pubsub::{self, Login};
    let pubsub = |lines: &str, environment: &[(&str, &str)]| {
        let text = format!(
            "{LEAST}\n[[sink]]\nname = \"out\"\n[sink.pubsub]\n\
             topic = \"projects/p/topics/t\"\n{lines}\n"
        );
        settings::<pubsub::Settings>(&good(&text, environment).sinks[0]).clone()
    };
    let plain = pubsub("", &[]);
    assert_eq!(plain.endpoint, "https://pubsub.googleapis.com/");
    assert!(matches!(&plain.login, Login::Machine(host) if host == "metadata.google.internal"));
    let moved = pubsub("", &[("GCE_METADATA_HOST", "127.0.0.1:8080")]);
    assert!(matches!(&moved.login, Login::Machine(host) if host == "127.0.0.1:8080"));
    assert!(matches!(pubsub("login = \"none\"", &[]).login, Login::Nobody));
    let key = serde_json::json!({
        "client_email": "me@example.com", "token_uri": "https://oauth2.googleapis.com/token",
        "private_key": include_str!("../../../tests/keys/rsa.pem"),
    });
    let keyed = pubsub("credentials = { env = \"KEY\" }", &[("KEY", key.to_string().as_str())]);
    assert!(matches!(keyed.login, Login::Key(_)));
    assert!(!format!("{keyed:?}").contains("PRIVATE"), "{keyed:?}");
}
