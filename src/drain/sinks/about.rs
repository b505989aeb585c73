//! What a message says of its event beside the payload, for sinks whose messages have headers.

use std::borrow::Cow;

use forebay_log::Tag;

use crate::drain::sink::{Event, Pass};

/// Names and values; what the event does not have is not there. A value is as its sender wrote it.
pub fn about(event: &Event) -> Vec<(&'static str, Cow<'_, str>)> {
    let mut about = vec![
        ("Forebay-Lane", Cow::Borrowed(&*event.lane)),
        ("Forebay-Position", event.position().to_string().into()),
        ("Content-Type", Cow::Borrowed(&*event.content_type)),
    ];
    let fields = [
        ("Forebay-Source", Tag::Source),
        ("Forebay-Type", Tag::EventType),
        ("Forebay-Event-Id", Tag::EventId),
        ("Forebay-Tenant", Tag::Tenant),
        ("Forebay-Environment", Tag::Environment),
    ];
    for (name, tag) in fields {
        about.extend(event.field(tag).filter(|value| !value.is_empty()).map(|value| (name, value)));
    }
    let pass = match event.pass {
        Pass::Live => None,
        Pass::Replay => Some("replay"),
        Pass::Redrive => Some("redrive"),
    };
    about.extend(pass.map(|pass| ("Forebay-Pass", pass.into())));
    about
}
