//! What is refused of sinks, in the words that the user reads.

use super::refused::bad;
use super::*;

#[track_caller]
fn bad_sink(lines: &str) -> String {
    bad(&format!("{LEAST}[[sink]]\nname = \"out\"\n{lines}\n"), &[])
}

#[test]
fn a_sink_that_cannot_be_is_refused_with_its_cure() {
    let sink = |text: &str| bad(&format!("{LEAST}\n[[sink]]\nname = \"out\"\n{text}\n"), &[]);
    for (text, title, cure) in [
        ("", "a sink has no kind", "say where events go"),
        ("order = \"key\"\n[sink.stdout]", "`sink.order_key` is missing", "json:room.id"),
        ("order_key = \"json:a\"\n[sink.stdout]", "is not asked for", "order = \"key\""),
        ("order = \"key\"\norder_key = \"claim:a\"\n[sink.stdout]", "names no place", "json:PATH"),
        ("order = \"key\"\norder_key = \"field:x\"\n[sink.stdout]", "no field", "json:PATH"),
        ("lanes = [\"mian\"]\n[sink.stdout]", "names no lane by \"mian\"", "did you mean \"main\""),
        ("lanes = []\n[sink.stdout]", "`sink.lanes` is empty", "leave the key out"),
        ("retry = { first = \"2m\", max = \"1m\" }\n[sink.stdout]", "`sink.retry.max`", "\"2m\""),
        ("memory = \"1MiB\"\n[sink.stdout]", "`sink.memory` is less", "\"4MiB\""),
        (
            "[sink.dead_letters]\nredrive = \"daily\"\n[sink.stdout]",
            "`sink.dead_letters.redrive` is no time of cron",
            "\"0 4 * * *\"",
        ),
        (
            "[sink.dead_letters]\nrate = 5\n[sink.stdout]",
            "`sink.dead_letters.rate` is of a redrive that has no times",
            "say when",
        ),
    ] {
        let report = sink(text);
        assert!(report.contains(title) && report.contains(cure), "{text}:\n{report}");
    }
    let twice = "[[sink]]\nname = \"out\"\n[sink.stdout]\n";
    let report = bad(&format!("{LEAST}\n{twice}{twice}"), &[]);
    assert!(report.contains("is taken"), "{report}");
    let long = format!("{LEAST}\n[[sink]]\nname = \"{}\"\n[sink.stdout]\n", "x".repeat(60));
    assert!(bad(&long, &[]).contains("too long"));
}

#[test]
fn a_replica_that_cannot_carry_acknowledgements_is_refused_with_its_cure() {
    const NATS: &str = "[sink.nats]\nservers = [\"nats://127.0.0.1:4222\"]";
    let report = |lane: &str, sink: &str| {
        let least = LEAST.replace("name = \"main\"", &format!("name = \"main\"\n{lane}"));
        bad(&format!("{least}[[sink]]\nname = \"stream\"\n{sink}\n"), &[])
    };
    for (lane, title, cure) in [
        ("ack = \"replicated\"", "`lane.replicate_to` is missing", "replicate_to = \"NAME\""),
        ("replicate_to = \"stream\"", "is not asked for by `lane.ack`", "ack = \"replicated\""),
        (
            "ack = \"replicated\"\nreplicate_to = \"steam\"",
            "`lane.replicate_to` names no sink by \"steam\"",
            "did you mean \"stream\"?",
        ),
    ] {
        let report = report(lane, NATS);
        assert!(report.contains(title) && report.contains(cure), "{lane}:\n{report}");
    }
    let replicates = "ack = \"replicated\"\nreplicate_to = \"stream\"";
    for (sink, title) in [
        ("[sink.stdout]", "`lane.replicate_to` names a sink of kind `stdout`"),
        (
            "rate = 5\n[sink.nats]",
            "`sink.rate` would hold back the acknowledgements of lane `main`",
        ),
        ("order = \"tenant\"\n[sink.nats]", "`sink.order` would make each acknowledgement"),
        ("batch = { linger = \"5ms\" }\n[sink.nats]", "`sink.batch` has a linger"),
        ("sources = [\"hub-eu\"]\n[sink.nats]", "`sink.sources` may keep events from the replica"),
        ("types = [\"a\"]\n[sink.nats]", "`sink.types` may keep"),
        ("tenants = [\"a\"]\n[sink.nats]", "`sink.tenants` may keep"),
        ("environments = [\"a\"]\n[sink.nats]", "`sink.environments` may keep"),
        ("filter = \".a\"\n[sink.nats]", "`sink.filter` may keep"),
        ("transform = \".a\"\n[sink.nats]", "`sink.transform` may keep"),
        ("redact = [\"json:a\"]\n[sink.nats]", "`sink.redact` may keep"),
    ] {
        let sink = sink.replace("[sink.nats]", NATS);
        let report = report(replicates, &sink);
        assert!(report.contains(title), "{sink}:\n{report}");
    }
    let other = "[[lane]]\nname = \"other\"";
    let report = report(replicates, &format!("lanes = [\"other\"]\n{NATS}\n{other}"));
    assert!(report.contains("leave out \"main\", which replicates to it"), "{report}");
}

#[cfg(not(any(feature = "sink-kafka", feature = "sink-object", feature = "sink-rabbitmq")))]
#[test]
fn a_sink_that_is_not_built_in_is_refused_with_the_feature_that_brings_it() {
    for kind in ["kafka", "object", "rabbitmq"] {
        let report = bad_sink(&format!("[sink.{kind}]"));
        let title = format!("`sink.{kind}` is a kind of sink that this forebay");
        let cure = format!("--features sink-{kind}`");
        assert!(report.contains(&title) && report.contains(&cure), "{report}");
    }
}

#[cfg(feature = "sink-object")]
#[test]
fn a_store_that_cannot_be_is_refused_with_its_cure() {
    const S3: &str = "url = \"s3://bucket/folder\"";
    for (lines, title, cure) in [
        (String::new(), "`sink.object.url` is missing", "s3://BUCKET"),
        ("url = \"bucket\"".into(), "`sink.object.url` is no URL", "s3://BUCKET"),
        ("url = \"ftp://bucket\"".into(), "no store that forebay knows", "gs://"),
        ("url = \"s3:///folder\"".into(), "names no bucket", "s3://BUCKET"),
        ("url = \"s3://key:word@bucket\"".into(), "names no bucket", "s3://BUCKET"),
        ("url = \"file://folder\"".into(), "by its whole path", "file:///"),
        (format!("{S3}\nprefix = \"{{type}}/\""), "knows no place {type}", "{lane}/"),
        (format!("{S3}\naccess_key = \"a\""), "`sink.object.secret_key` is missing", "env"),
        (
            format!("{S3}\nsecret_key = {{ value = \"a\" }}"),
            "`sink.object.access_key` is missing",
            "whose secret",
        ),
        (
            "url = \"file:///tmp\"\naccess_key = \"a\"".into(),
            "`sink.object.access_key` is nothing that this store",
            "leave it out",
        ),
        (
            format!("{S3}\nendpoint = \"http://127.0.0.1:9000\""),
            "`sink.object.endpoint` is without TLS",
            "allow_http = true",
        ),
        (format!("{S3}\nendpoint = \"127.0.0.1\""), "is no address of a store", "https://"),
        (format!("{S3}\nca_file = \"/nowhere\""), "cannot be read", "PEM"),
        (format!("{S3}\ncompression = 40"), "`sink.object.compression`", "19"),
    ] {
        let report = bad_sink(&format!("[sink.object]\n{lines}"));
        assert!(report.contains(title) && report.contains(cure), "{lines}:\n{report}");
    }
    // A batch of each lane has to fit beside what its events take themselves.
    let report = bad_sink(&format!("memory = \"20MiB\"\n[sink.object]\n{S3}"));
    assert!(report.contains("`sink.memory` is less than one batch"), "{report}");
}

#[test]
fn an_expression_that_does_not_compile_is_underlined() {
    let report = bad_sink("filter = \".a |\"\nredact = [\"user\"]\n[sink.stdout]");
    assert!(report.contains("`sink.filter` needs term at the end (character 5)"), "{report}");
    assert!(report.contains("etc/forebay.toml:11:10"), "{report}");
    assert!(report.contains("`sink.redact` holds \"user\", which is no rule"), "{report}");
}

#[test]
fn a_destination_that_cannot_be_meant_is_refused() {
    for (lines, expected) in [
        ("url = \"http://127.0.0.1/x\"", "`sink.http.url` names an address that is not public"),
        ("url = \"http://[fd00:ec2::254]/x\"", "names an address that is not public"),
        ("url = \"ftp://a.example.com/x\"", "`sink.http.url` is no URL of http or https"),
        ("url = \"https://me:pass@a.example.com/x\"", "is no URL of http or https"),
        ("batch = \"json\"", "`sink.http.url` is missing"),
        (
            "url = \"https://a.example.com\"\nheaders = [{ name = \"webhook-id\", value = \"canary\" }]",
            "`sink.http.headers.name` is no header that can be added",
        ),
        (
            "url = \"https://a.example.com\"\nsecrets = [{ name = \"a\", value = \"canary\" }]",
            "`sink.http.secrets.value` holds too short a secret",
        ),
        (
            "url = \"https://a.example.com\"\nbatch = \"json\"\nattributes = \"cloudevents\"",
            "`sink.http.attributes` say of one event",
        ),
        (
            "url = \"https://a.example.com\"\nca_file = \"/nonexistent\"",
            "`sink.http.ca_file` names",
        ),
    ] {
        let report = bad_sink(&format!("[sink.http]\n{lines}"));
        assert!(report.contains(expected), "{lines}:\n{report}");
    }
}

#[cfg(feature = "sink-kafka")]
#[test]
fn a_cluster_of_kafka_that_cannot_be_meant_is_refused() {
    const BROKERS: &str = "brokers = [\"a.example.com:9092\"]\n";
    for (lines, expected) in [
        ("", "`sink.kafka.brokers` is missing"),
        ("brokers = []", "`sink.kafka.brokers` holds what is no address"),
        ("brokers = [\"kafka://a.example.com:9092\"]", "holds what is no address"),
        ("brokers = [\"a.example.com\"]", "holds what is no address"),
        ("BROKERS topic = \"a b\"", "`sink.kafka.topic` is no name: it holds ' '"),
        ("BROKERS topic = \"a/{lane}\"", "`sink.kafka.topic` is no name of a topic"),
        ("BROKERS topic = \"{room}\"", "`sink.kafka.topic` is no name of a topic"),
        ("BROKERS ca_file = \"/nonexistent\"", "`sink.kafka.ca_file` names `/nonexistent`"),
        ("BROKERS user = \"me\"", "`sink.kafka.user` is not asked for without `sasl`"),
        ("BROKERS sasl = \"plain\"", "`sink.kafka.user` is missing"),
        ("BROKERS sasl = \"plain\"\nuser = \"me\"", "`sink.kafka.password` is missing"),
        ("BROKERS compression = \"zstd\"", "`sink.kafka.compression`"),
    ] {
        let report = bad_sink(&format!("[sink.kafka]\n{}", lines.replace("BROKERS ", BROKERS)));
        assert!(report.contains(expected), "{lines}:\n{report}");
    }
}

#[cfg(feature = "sink-rabbitmq")]
#[test]
fn a_server_of_rabbitmq_that_cannot_be_meant_is_refused() {
    const ALL: &str = "servers = [\"amqps://a.example.com\"]\nuser = \"me\"\n\
                       password = { value = \"canary\" }\n";
    let long = "x".repeat(256);
    for (lines, expected) in [
        ("", "`sink.rabbitmq.servers` is missing"),
        ("", "`sink.rabbitmq.user` is missing"),
        ("", "`sink.rabbitmq.password` is missing"),
        ("servers = []", "`sink.rabbitmq.servers` is empty"),
        ("servers = [\"a.example.com:5672\"]", "`sink.rabbitmq.servers` holds what is no server"),
        ("servers = [\"amqp://a.example.com/vhost\"]", "holds what is no server"),
        ("servers = [\"amqp://a.example.com:0x\"]", "holds what is no server"),
        ("servers = [\"amqp://me:canary@a.example.com\"]", "holds a user or a password"),
        (
            "servers = [\"amqp://a\"]\nca_file = \"/x\"",
            "`sink.rabbitmq.ca_file` is of certificates",
        ),
        ("ALL ca_file = \"/nonexistent\"", "`sink.rabbitmq.ca_file` names `/nonexistent`"),
        ("ALL routing_key = \"a b\"", "`sink.rabbitmq.routing_key` is no name: it holds ' '"),
        ("ALL routing_key = \"LONG\"", "`sink.rabbitmq.routing_key` is too long"),
        ("ALL vhost = \"LONG\"", "`sink.rabbitmq.vhost` is too long"),
        ("ALL exchange = \"LONG\"", "`sink.rabbitmq.exchange` is too long"),
        ("ALL heartbeat = \"10ms\"", "`sink.rabbitmq.heartbeat`"),
    ] {
        let lines = lines.replace("ALL ", ALL).replace("LONG", &long);
        let report = bad_sink(&format!("[sink.rabbitmq]\n{lines}"));
        assert!(report.contains(expected), "{lines}:\n{report}");
        assert!(!report.contains("canary"), "{report}");
    }
}

#[cfg(feature = "sink-sqs")]
#[test]
fn a_queue_of_sqs_that_cannot_be_meant_is_refused() {
    const QUEUE: &str = "queue_url = \"https://sqs.eu-central-1.amazonaws.com/1/hooks.fifo\"\n";
    for (lines, expected) in [
        ("", "`sink.sqs.queue_url` is missing"),
        ("queue_url = \"hooks\"", "`sink.sqs.queue_url` is no URL of an API"),
        (
            "queue_url = \"ftp://sqs.example.com/1/hooks\"",
            "`sink.sqs.queue_url` is no URL of an API",
        ),
        ("queue_url = \"https://a:b@sqs.example.com/1/hooks\"", "is no URL of an API"),
        ("queue_url = \"https://sqs.example.com/\"", "`sink.sqs.queue_url` names no queue"),
        ("queue_url = \"https://sqs.example.com/1/a.b\"", "`sink.sqs.queue_url` names no queue"),
        ("queue_url = \"http://sqs.example.com/1/hooks\"", "`sink.sqs.queue_url` is without TLS"),
        ("queue_url = \"https://sqs.example.com/1/hooks\"", "`sink.sqs.region` is missing"),
        ("queue_url = \"https://10.0.0.1/1/hooks\"", "`sink.sqs.queue_url` names an address"),
        ("QUEUE endpoint = \"https://10.0.0.1\"", "`sink.sqs.endpoint` names an address"),
        ("QUEUE endpoint = \"http://sqs.example.com\"", "`sink.sqs.endpoint` is without TLS"),
        ("QUEUE access_key = \"AKIA\"", "`sink.sqs.secret_key` is missing"),
        ("QUEUE secret_key = { value = \"a\" }", "`sink.sqs.access_key` is missing"),
        ("QUEUE session_token = { value = \"a\" }", "`sink.sqs.access_key` is missing"),
        ("QUEUE ca_file = \"/nonexistent\"", "`sink.sqs.ca_file` names `/nonexistent`"),
        ("QUEUE request_size = \"1\"", "`sink.sqs.request_size`"),
    ] {
        let report = bad_sink(&format!("[sink.sqs]\n{}", lines.replace("QUEUE ", QUEUE)));
        assert!(report.contains(expected), "{lines}:\n{report}");
    }
}

#[cfg(feature = "sink-pubsub")]
#[test]
fn a_topic_of_pubsub_that_cannot_be_meant_is_refused() {
    const TOPIC: &str = "topic = \"projects/p/topics/t\"\n";
    for (lines, expected) in [
        ("", "`sink.pubsub.topic` is missing"),
        ("topic = \"hooks\"", "`sink.pubsub.topic` is no whole name of a topic"),
        ("topic = \"projects/p/topics/a?b\"", "is no whole name of a topic"),
        ("TOPIC endpoint = \"pubsub\"", "`sink.pubsub.endpoint` is no URL of an API"),
        ("TOPIC endpoint = \"http://a.example.com\"", "`sink.pubsub.endpoint` is without TLS"),
        ("TOPIC endpoint = \"https://10.0.0.1\"", "`sink.pubsub.endpoint` names an address"),
        ("TOPIC login = \"me\"", "`sink.pubsub.login`"),
        ("TOPIC credentials = { value = \"a\" }", "is no key of a service account as JSON"),
        (
            "TOPIC login = \"none\"\ncredentials = { value = \"a\" }",
            "`sink.pubsub.login` is said by `credentials` already",
        ),
        ("TOPIC ca_file = \"/nonexistent\"", "`sink.pubsub.ca_file` names `/nonexistent`"),
    ] {
        let report = bad_sink(&format!("[sink.pubsub]\n{}", lines.replace("TOPIC ", TOPIC)));
        assert!(report.contains(expected), "{lines}:\n{report}");
    }
}
