//! What may stand in a `[[sink]]` of any kind.

use std::time::Duration;

use super::{AGE, DEADLINE, Form, GIB, KIB, Key, TIB, key};

pub(super) const KEYS: &[Key] = &[
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
];
