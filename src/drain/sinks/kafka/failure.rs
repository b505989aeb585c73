//! What follows from an error of Kafka, by the code of the broker or the kind of the client's own.

use krafka::error::ErrorCode;
use krafka::{KrafkaError, ProtocolErrorKind};

use crate::drain::sink::{Class, Failure};
use crate::drain::sinks::answer::{unconnected, words};

/// Why there is no producer.
pub(super) fn of_connect(error: &KrafkaError) -> Failure {
    match error {
        KrafkaError::Network(why) => unconnected(&**why),
        _ => of_error(error),
    }
}

/// Why an event is not there. The client's words name topics, codes and limits, never a payload.
pub(super) fn of_error(error: &KrafkaError) -> Failure {
    match error {
        KrafkaError::Broker { code, .. } => of_code(*code),
        KrafkaError::Auth { message, .. } => misconfigured("the brokers refuse forebay", message),
        KrafkaError::Config { message } => misconfigured("the client refuses", message),
        KrafkaError::UnknownTopic { topic } => misconfigured("there is no topic", topic),
        KrafkaError::Protocol { kind, message } => match kind {
            ProtocolErrorKind::FrameTooLarge | ProtocolErrorKind::InvalidLength => {
                Failure::permanent(format!("no request can carry the record: {}", words(message)))
            }
            ProtocolErrorKind::UnknownApiVersion => {
                misconfigured("the brokers lack what the sink needs", message)
            }
            _ => Failure::temporary(format!("no answer that could be read: {}", words(message))),
        },
        KrafkaError::Network(why) => {
            Failure::temporary(format!("the connection was lost: {}", words(&why.to_string())))
        }
        _ => Failure::temporary(words(&error.to_string())),
    }
}

fn misconfigured(what: &str, message: &str) -> Failure {
    Failure::new(Class::Misconfigured, format!("{what}: {}", words(message)))
}

fn of_code(code: ErrorCode) -> Failure {
    let class = match code {
        ErrorCode::InvalidMessageSize
        | ErrorCode::InvalidRecord
        | ErrorCode::InvalidTimestamp
        | ErrorCode::MessageTooLarge
        | ErrorCode::RecordListTooLarge => Class::Permanent,
        ErrorCode::ThrottlingQuotaExceeded => Class::Overloaded,
        ErrorCode::ClusterAuthorizationFailed
        | ErrorCode::IllegalSaslState
        | ErrorCode::InvalidConfig
        | ErrorCode::InvalidRequiredAcks
        | ErrorCode::InvalidTopic
        | ErrorCode::PolicyViolation
        | ErrorCode::SaslAuthenticationFailed
        | ErrorCode::SecurityDisabled
        | ErrorCode::TopicAuthorizationFailed
        | ErrorCode::UnknownTopicOrPartition
        | ErrorCode::UnsupportedCompressionType
        | ErrorCode::UnsupportedForMessageFormat
        | ErrorCode::UnsupportedSaslMechanism
        | ErrorCode::UnsupportedVersion => Class::Misconfigured,
        // No leader, too few replicas, a disk, a request that took too long, a session that began
        // anew: it is the cluster's to mend.
        _ => Class::Temporary,
    };
    let hint = match code {
        ErrorCode::UnknownTopicOrPartition => {
            "; make the topic, or allow it by create_topics = true"
        }
        _ => "",
    };
    Failure::new(class, format!("the broker answers: {code:?}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_the_class_that_follows_from_it() {
        let classes = [
            (ErrorCode::MessageTooLarge, Class::Permanent),
            (ErrorCode::InvalidRecord, Class::Permanent),
            (ErrorCode::SaslAuthenticationFailed, Class::Misconfigured),
            (ErrorCode::TopicAuthorizationFailed, Class::Misconfigured),
            (ErrorCode::UnknownTopicOrPartition, Class::Misconfigured),
            (ErrorCode::UnsupportedCompressionType, Class::Misconfigured),
            (ErrorCode::ThrottlingQuotaExceeded, Class::Overloaded),
            (ErrorCode::NotEnoughReplicas, Class::Temporary),
            (ErrorCode::NotLeaderForPartition, Class::Temporary),
            (ErrorCode::RequestTimedOut, Class::Temporary),
            (ErrorCode::UnknownServerError, Class::Temporary),
        ];
        for (code, class) in classes {
            let failure = of_error(&KrafkaError::broker(code, "of a topic"));
            assert_eq!(failure.class, class, "{failure}");
        }
    }

    #[test]
    fn an_error_of_the_clients_own_has_the_class_that_follows_from_it() {
        let (large, old) = (ProtocolErrorKind::FrameTooLarge, ProtocolErrorKind::UnknownApiVersion);
        let classes = [
            (KrafkaError::protocol_kind(large, "produce request size 9"), Class::Permanent),
            (KrafkaError::protocol_kind(old, "no InitProducerId"), Class::Misconfigured),
            (KrafkaError::auth("no user of this name"), Class::Misconfigured),
            (KrafkaError::unknown_topic("hooks"), Class::Misconfigured),
            (KrafkaError::delivery_timeout(true, "no answer"), Class::Temporary),
            (KrafkaError::fenced("another epoch"), Class::Temporary),
            (KrafkaError::timeout("metadata"), Class::Temporary),
        ];
        for (error, class) in classes {
            assert_eq!(of_error(&error).class, class, "{error}");
        }
    }
}
