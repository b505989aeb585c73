//! What follows from what the server says, or from its silence.

use std::time::Duration;

use lapin::ErrorKind;
use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPHardError, AMQPSoftError};

use super::Settings;
use super::attempt::{Said, routing_key};
use super::link::Link;
use crate::drain::sink::{Class, Event, Failure};
use crate::drain::sinks::answer::{timed_out, unconnected, words};

/// The server takes nothing for now.
pub(super) fn blocked() -> Failure {
    let why = "the server blocks all that publish, for want of memory or disk (an alarm)";
    Failure::new(Class::Overloaded, why)
}

/// Why an event is not there.
pub(super) fn of(
    said: &Said,
    event: &Event,
    settings: &Settings,
    (link, timeout): (&Link, Duration),
) -> Failure {
    match said {
        Said::Unroutable => {
            let exchange = match settings.exchange.as_str() {
                "" => "there is no queue of that name; declare it".to_owned(),
                exchange => format!("bind a queue to exchange \"{exchange}\", or an alternate one"),
            };
            let key = routing_key(settings, event);
            misconfigured(format!("no queue takes routing key \"{key}\": {exchange}"))
        }
        Said::Refused => {
            let why = "the server refuses the message: its queue is full, or has failed";
            Failure::new(Class::Overloaded, why)
        }
        Said::Overweight => Failure::permanent(format!(
            "its headers are larger than a frame of {} bytes, the server's frame_max",
            link.frame_bytes_max()
        )),
        Said::Error(error) => of_error(error),
        Said::Nothing | Said::Taken if link.is_up() && link.is_blocked() => blocked(),
        Said::Nothing | Said::Taken => timed_out(timeout),
    }
}

/// Why there is no connection.
pub(super) fn of_connect(error: &lapin::Error) -> Failure {
    match error.kind() {
        ErrorKind::IOError(why) => unconnected(&**why),
        _ => of_error(error),
    }
}

/// Why the connection or a channel has ended. The server's words name users, exchanges and limits,
/// never a payload.
pub(super) fn of_error(error: &lapin::Error) -> Failure {
    match error.kind() {
        ErrorKind::ProtocolError(why) => of_code(why),
        ErrorKind::IOError(why) => {
            Failure::temporary(format!("the connection was lost: {}", words(&why.to_string())))
        }
        ErrorKind::MissingHeartbeatError => {
            Failure::temporary("the connection was lost: the server's heartbeats have stopped")
        }
        ErrorKind::ChannelsLimitReached => Failure::new(
            Class::Overloaded,
            "the server allows no more channels; lower concurrency_max or raise its channel_max",
        ),
        ErrorKind::InvalidProtocolVersion(version) => {
            misconfigured(format!("the server speaks AMQP {version} and not 0-9-1"))
        }
        ErrorKind::AuthProviderError(why) => {
            misconfigured(format!("the login failed: {}", words(why)))
        }
        _ => Failure::temporary(words(&error.to_string())),
    }
}

fn misconfigured(reason: String) -> Failure {
    Failure::new(Class::Misconfigured, reason)
}

fn of_code(why: &AMQPError) -> Failure {
    let class = match why.kind() {
        // Too large, or of a kind that an interceptor of the server's does not let in.
        AMQPErrorKind::Soft(AMQPSoftError::CONTENTTOOLARGE | AMQPSoftError::PRECONDITIONFAILED) => {
            Class::Permanent
        }
        // The login, the exchange, the virtual host: a name or a permission.
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED | AMQPSoftError::NOTFOUND)
        | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED | AMQPHardError::INVALIDPATH) => {
            Class::Misconfigured
        }
        AMQPErrorKind::Hard(AMQPHardError::RESOURCEERROR) => Class::Overloaded,
        // A server that is stopped, a bug, a frame that went wrong: the next connection may do.
        _ => Class::Temporary,
    };
    let said = words(why.get_message().as_str());
    Failure::new(class, format!("the server answers {}: {said}", why.get_id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_the_class_that_follows_from_it() {
        for (code, class) in [
            (311, Class::Permanent),
            (406, Class::Permanent),
            (403, Class::Misconfigured),
            (404, Class::Misconfigured),
            (530, Class::Misconfigured),
            (402, Class::Misconfigured),
            (506, Class::Overloaded),
            (320, Class::Temporary),
            (501, Class::Temporary),
            (541, Class::Temporary),
        ] {
            let error = AMQPError::from_id(code, "OF_ITS_OWN - a reason".into());
            let error = ErrorKind::ProtocolError(error.expect("a code of AMQP")).into();
            let failure = of_error(&error);
            assert_eq!(failure.class, class, "{failure}");
            assert!(failure.reason.contains(&code.to_string()), "{failure}");
        }
    }

    #[test]
    fn an_error_of_the_clients_own_has_the_class_that_follows_from_it() {
        let io = |kind| lapin::Error::from(std::io::Error::from(kind));
        for (error, class) in [
            (ErrorKind::ChannelsLimitReached.into(), Class::Overloaded),
            (ErrorKind::AuthProviderError("no".into()).into(), Class::Misconfigured),
            (ErrorKind::MissingHeartbeatError.into(), Class::Temporary),
            (io(std::io::ErrorKind::ConnectionRefused), Class::Temporary),
        ] {
            assert_eq!(of_error(&error).class, class, "{error}");
            assert_eq!(of_connect(&error).class, class, "{error}");
        }
    }
}
