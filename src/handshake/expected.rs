//! What a source expects of every verified request: that it is of the right environment, account
//! or topic.
//!
//! A signature proves who sent a request, and not that it was meant for this source: a test mode
//! may share the secret of production, and a public key may be shared by all customers.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::place::Place;
use crate::reject::Reject;
use crate::verify::json::{Paths, Values};
use crate::verify::{SpecError, Verified};

/// The values of which one must stand at a place.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOf {
    /// This one.
    One(String),
    /// One of these.
    Many(Vec<String>),
}

/// Places and the values of which one must stand there.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    places: Vec<(Place, Vec<String>)>,
    paths: Paths,
    wanted: u32,
    told: Vec<String>,
}

impl Expected {
    /// Compiles the places `header:NAME`, `query:NAME` and `json:PATH`.
    pub fn new(spec: &BTreeMap<String, OneOf>) -> Result<Self, SpecError> {
        let mut expected = Self::default();
        for (at, values) in spec {
            let values = match values {
                OneOf::One(value) => vec![value.clone()],
                OneOf::Many(values) => values.clone(),
            };
            let place = Place::new(at, &mut expected.paths)?;
            expected.told.push(format!("{at} is {}", values.join(" or ")));
            expected.wanted |= place.slot().map_or(0, crate::verify::json::Slot::bit);
            expected.places.push((place, values));
        }
        Ok(expected)
    }

    /// Each place with its values, for people.
    pub fn places(&self) -> &[String] {
        &self.told
    }

    /// Whether all of it stands in a request. A header counts only for what it is: of many
    /// senders it is not signed.
    pub fn check(&self, verified: &Verified<'_>) -> Result<(), Reject> {
        if self.places.is_empty() {
            return Ok(());
        }
        let admitted = verified.admitted();
        let body = match self.wanted {
            0 => Values::none(),
            wanted => self.paths.read(admitted.body(), wanted),
        };
        let stands = |(place, values): &(Place, Vec<String>)| {
            let text = place.text(admitted.received().head, &body);
            text.is_some_and(|text| values.iter().any(|value| *value == text))
        };
        if self.places.iter().all(stands) { Ok(()) } else { Err(Reject::NotExpected) }
    }
}
