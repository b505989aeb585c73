//! Structured logs on standard error: for people on a terminal, one JSON object a line
//! otherwise.
//!
//! `FOREBAY_LOG` filters (`info` unless set; `debug`, `forebay::receive=trace,warn`, ...), and
//! `NO_COLOR` or `TERM=dumb` takes the colours away. What is logged names sources, lanes,
//! positions and reasons; never a body, a header value, a tenant's data or a secret. Nothing above
//! `debug` is logged for each event: standard error may block.

use std::io::{self, IsTerminal};

use thiserror::Error;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{FilterExt as _, ParseError, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer as _, Registry};

/// The variable that holds the filter.
const FILTER: &str = "FOREBAY_LOG";
/// The client of `RabbitMQ`, which writes a message that is returned into a warning, with its
/// payload. What it has to tell, its sink tells.
const INDISCREET: &str = "lapin";

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Human {
        /// With colours.
        colours: bool,
    },
    /// For machines.
    Json,
}

/// Why logging could not start.
#[derive(Debug, Error)]
pub enum LogsError {
    /// The filter cannot be read.
    #[error(
        "FOREBAY_LOG={filter:?} is not a filter; write a level (error, warn, info, debug, trace) \
         or a list such as forebay::receive=debug,info"
    )]
    Filter {
        /// What the variable held.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// Something in this process logs already.
    #[error("logging was started twice")]
    Twice(#[from] TryInitError),
}

/// Starts logging to standard error. `env` looks an environment variable up.
pub fn start(env: impl Fn(&str) -> Option<String>) -> Result<(), LogsError> {
    let form = form(io::stderr().is_terminal(), &env);
    let filter = env(FILTER).unwrap_or_default();
    subscriber(&filter, form, io::stderr)?.try_init()?;
    Ok(())
}

fn form(terminal: bool, env: impl Fn(&str) -> Option<String>) -> Form {
    if terminal { Form::Human { colours: colours(env) } } else { Form::Json }
}

/// Does the environment leave a terminal its colours? By <https://no-color.org> any `NO_COLOR` but
/// the empty one takes them away; a dumb terminal has none.
pub(crate) fn colours(env: impl Fn(&str) -> Option<String>) -> bool {
    env("NO_COLOR").is_none_or(|value| value.is_empty()) && env("TERM").as_deref() != Some("dumb")
}

fn subscriber<W>(
    filter: &str,
    form: Form,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, LogsError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(filter)
        .map_err(|source| LogsError::Filter { filter: filter.to_owned(), source })?;
    let filter = filter.and(filter_fn(|line| !line.target().starts_with(INDISCREET)));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    Ok(match form {
        Form::Human { colours } => {
            Box::new(Registry::default().with(lines.with_ansi(colours).with_filter(filter)))
        }
        Form::Json => {
            Box::new(Registry::default().with(lines.json().flatten_event(true).with_filter(filter)))
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crossbeam::sync::ShardedLock;

    use super::*;

    /// Collects what was written.
    #[derive(Clone, Default)]
    struct Lines(Arc<ShardedLock<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write().expect("one thread").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What the filter lets through of an info, a debug and a hostile line.
    fn written(filter: &str, form: Form) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(filter, form, move || writer.clone()).expect("a filter");
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(source = "stripe", "taken");
            tracing::debug!("detail");
            tracing::warn!(source = "\u{1b}[31mred\nforged", "odd");
            tracing::error!(target: "lapin::returned_messages", payload = "of a customer", "back");
        });
        let bytes = lines.0.read().expect("one thread").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn without_a_terminal_each_line_is_one_json_object() {
        let text = written("", Form::Json);
        assert_eq!(text.lines().count(), 2);
        for line in text.lines() {
            let object: serde_json::Value = serde_json::from_str(line).expect("json");
            assert!(object["source"].is_string() && object["message"].is_string(), "{line}");
        }
    }

    #[test]
    fn a_logged_value_cannot_forge_a_line_or_reach_the_terminal() {
        for form in [Form::Json, Form::Human { colours: false }] {
            let text = written("", form);
            assert_eq!(text.lines().count(), 2, "{text}");
            assert!(!text.contains('\u{1b}'), "{text:?}");
        }
    }

    #[test]
    fn the_filter_widens_and_narrows() {
        assert!(written("debug", Form::Json).contains("detail"));
        assert_eq!(written("error", Form::Json), "");
    }

    #[test]
    fn no_filter_lets_a_line_through_that_may_hold_a_payload() {
        for filter in ["trace", "lapin=trace", "lapin::returned_messages=trace,lapin=debug"] {
            assert!(!written(filter, Form::Json).contains("of a customer"), "{filter}");
        }
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_named_with_its_cure() {
        let Err(error) = subscriber("forebay=loud", Form::Json, io::stderr) else {
            panic!("refused")
        };
        let error = error.to_string();
        assert!(
            error.contains("FOREBAY_LOG=\"forebay=loud\"") && error.contains("info"),
            "{error}"
        );
    }

    #[test]
    fn colours_need_a_terminal_that_did_not_decline() {
        let with = |name, value: &str| {
            let value = value.to_owned();
            form(true, move |asked| (asked == name).then(|| value.clone()))
        };
        for (name, value, colours) in [
            ("TERM", "xterm-256color", true),
            ("TERM", "dumb", false),
            ("NO_COLOR", "", true),
            ("NO_COLOR", "1", false),
        ] {
            assert_eq!(with(name, value), Form::Human { colours }, "{name}={value}");
        }
        assert_eq!(form(true, |_| None), Form::Human { colours: true });
        assert_eq!(form(false, |_| None), Form::Json);
    }
}
