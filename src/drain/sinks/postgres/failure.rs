//! What follows from an error of PostgreSQL, by its SQLSTATE.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::DbError;

use crate::drain::sink::{Class, Failure};
use crate::drain::sinks::answer::{unconnected, words};

/// Why there is no connection.
pub(super) fn of_connect(error: &Error) -> Failure {
    if error.as_db_error().is_some() {
        return of_error(error);
    }
    // These are settings that do not fit the server: a password that is missing, TLS that it does
    // not speak. The client tells them apart by its words alone.
    let text = error.to_string();
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    if ["authentication error", "invalid configuration"].iter().any(|of| text.starts_with(of))
        || cause == "server does not support TLS"
    {
        let reason = format!("the connection is set up wrongly: {text}: {}", words(&cause));
        return Failure::new(Class::Misconfigured, reason);
    }
    unconnected(error)
}

/// Why a statement failed.
pub(super) fn of_error(error: &Error) -> Failure {
    match error.as_db_error() {
        Some(answer) => of_answer(answer),
        None if error.is_closed() => Failure::temporary("the connection was lost"),
        None => Failure::temporary(words(&error.to_string())),
    }
}

fn of_answer(answer: &DbError) -> Failure {
    let code = answer.code().code();
    let class = class_of(code);
    let reason = match class {
        // The words may quote a value, which may be a payload; names of the schema are told.
        Class::Permanent => {
            let constraint = answer.constraint().map(|name| format!(", constraint {name}"));
            format!("the server refuses the row: SQLSTATE {code}{}", constraint.unwrap_or_default())
        }
        _ => format!("the server answers: {} (SQLSTATE {code})", words(answer.message())),
    };
    Failure::new(class, reason)
}

/// The class of a SQLSTATE, mostly by its first two characters.
fn class_of(code: &str) -> Class {
    // Two that make the tables at once, of which one finds them made the next time; a statement
    // that was cancelled or kept waiting; a primary that has become a standby.
    if matches!(code, "42P07" | "42710" | "57014" | "55P03" | "55006" | "25006") {
        return Class::Temporary;
    }
    match code.get(..2).unwrap_or_default() {
        // Data, an integrity constraint, an exception that a trigger raised, a view's check, a
        // limit such as that of an index.
        "21" | "22" | "23" | "27" | "44" | "54" | "P0" => Class::Permanent,
        // Memory, disk, connections.
        "53" => Class::Overloaded,
        // Credentials, catalogue, schema, a name, a privilege, a feature.
        "0A" | "0P" | "28" | "3D" | "3F" | "42" => Class::Misconfigured,
        _ => Class::Temporary,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sqlstate_has_the_class_that_follows_from_it() {
        let classes = [
            ("22P02", Class::Permanent),     // invalid_text_representation
            ("22P05", Class::Permanent),     // untranslatable_character
            ("23514", Class::Permanent),     // check_violation
            ("P0001", Class::Permanent),     // raise_exception
            ("28P01", Class::Misconfigured), // invalid_password
            ("3D000", Class::Misconfigured), // invalid_catalog_name
            ("42P01", Class::Misconfigured), // undefined_table
            ("42501", Class::Misconfigured), // insufficient_privilege
            ("53300", Class::Overloaded),    // too_many_connections
            ("53100", Class::Overloaded),    // disk_full
            ("57P01", Class::Temporary),     // admin_shutdown
            ("57P03", Class::Temporary),     // cannot_connect_now
            ("40P01", Class::Temporary),     // deadlock_detected
            ("25006", Class::Temporary),     // read_only_sql_transaction
            ("XX000", Class::Temporary),     // internal_error
            ("", Class::Temporary),
        ];
        for (code, class) in classes {
            assert_eq!(class_of(code), class, "{code}");
        }
    }
}
