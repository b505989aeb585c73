//! Every vector of `tests/vectors` over HTTP: the whole server, on a real socket and with a real
//! log, at the time of the vector. Its status, its answer and its event are judged; then it is
//! changed, and sent to every other sender's source.

mod hall;
mod changed;
#[path = "../support/vector.rs"]
mod vector;

use forebay::verify::{
    Format, NamedSecret, Profile, SchemeSpec, SecretText, Settings, SpecError, Verifier, preset,
};
use serde_json::Value;

use self::hall::{Case, Hall, halls};
use self::vector::Vector;
use crate::support::Driver;
use crate::support::http::Response;
use crate::support::log::Row;

for_each_driver!(every_vector_gets_its_verdict_its_answer_and_its_event);

fn every_vector_gets_its_verdict_its_answer_and_its_event(driver: Driver) {
    for cases in halls(Case::all()) {
        let mut hall = Hall::start(driver, &cases);
        for case in &cases {
            judge_answer(case, &hall.send(case));
        }
        let rows = hall.rows();
        for case in &cases {
            let own = rows.get(&case.source).map_or(&[][..], Vec::as_slice);
            judge_rows(case, own);
        }
    }
}

/// The answer is the vector's own where it has one, else what its sender takes.
fn judge_answer(case: &Case, answer: &Response) {
    let Vector { name, why, response, .. } = case.vector;
    let status = answer.status;
    if let Some(wanted) = response {
        assert_eq!(status, wanted.status, "{name} ({why}): {answer:?}");
        for (header, value) in &wanted.headers {
            let given = answer.value(&header.to_ascii_lowercase());
            assert!(given.starts_with(value.as_str()), "{name}: {header}: {answer:?}");
        }
        if status < 300 {
            assert_eq!(answer.text(), wanted.body, "{name}");
        }
    } else if case.vector.accepted() {
        let wanted = &case.profile.answers;
        assert_eq!(status, wanted.success_status.as_u16(), "{name} ({why}): {answer:?}");
        assert_eq!(answer.body, wanted.success_body, "{name}");
    } else {
        // Some hubs want that what is not theirs is swallowed.
        let swallowed = case.profile.answers.bad_signature_status.as_u16() == status;
        assert!((400..600).contains(&status) || swallowed, "{name} ({why}): {answer:?}");
    }
}

/// What was accepted is in the log, byte for byte, as the event that it is; nothing else is.
fn judge_rows(case: &Case, rows: &[Row]) {
    let Vector { name, event, response, .. } = case.vector;
    if !case.vector.accepted() {
        assert!(rows.is_empty(), "{name} was refused and is in the log: {rows:?}");
        return;
    }
    let handshake = response.is_some() && rows.is_empty();
    let Some(row) = rows.first() else {
        assert!(handshake, "{name} was accepted and is not in the log");
        return;
    };
    match items(case) {
        None => assert_eq!(row.body(), case.vector.body(), "{name}"),
        Some(items) => {
            let kept: Vec<Value> =
                rows.iter().map(|row| serde_json::from_slice(&row.body()).unwrap()).collect();
            assert_eq!(kept, items, "{name}");
        }
    }
    let Some(event) = event else { return };
    let pairs = [
        (&event.id, &row.event_id),
        (&event.r#type, &row.event_type),
        (&event.time, &row.event_time),
        (&event.tenant, &row.tenant),
    ];
    for (wanted, found) in pairs {
        assert!(wanted.is_none() || wanted == found, "{name}: {wanted:?}, not {found:?}");
    }
}

/// The items of a batch.
fn items(case: &Case) -> Option<Vec<Value>> {
    let path = case.profile.identity.items.as_deref()?.strip_prefix("json:").unwrap();
    let body: Value = serde_json::from_slice(&case.vector.body()).unwrap();
    let list = if path.is_empty() { &body } else { &body[path] };
    list.as_array().cloned()
}
