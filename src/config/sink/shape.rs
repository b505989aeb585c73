//! Which events a sink takes and what it gets of them: keys of `[[sink]]` itself.

use std::sync::Arc;

use super::Section;
use crate::drain::shape::{Format, Select, Settings, Shape};

/// Reads and compiles; a mistake in an expression is reported at its key.
pub(super) fn read(section: &Section<'_>) -> Option<Arc<Shape>> {
    let format = section.choice("format").map(|word| match word {
        "cloudevents" => Format::CloudEvents,
        "normalised" => Format::Normalised,
        _ => Format::Raw,
    });
    let list = |key| {
        if !section.has(key) {
            return Some(Vec::new());
        }
        let texts = section.texts(key)?;
        if texts.is_empty() {
            section.refuse(key, "is empty, and would take nothing", "leave it out to take all");
        }
        Some(texts.into_iter().map(str::to_owned).collect())
    };
    let select = Select {
        sources: list("sources")?,
        types: list("types")?,
        tenants: list("tenants")?,
        environments: list("environments")?,
    };
    let text = |key| section.text(key).map(str::to_owned);
    let settings = Settings {
        format: format?,
        select,
        filter: text("filter"),
        transform: text("transform"),
        redact: list("redact")?,
    };
    match Shape::compile(&settings) {
        Ok(shape) => Some(Arc::new(shape)),
        Err(errors) => {
            for error in errors {
                let cure = match error.key {
                    "redact" => "write \"json:user.email\" or \"header:authorization\"",
                    _ => {
                        "write an expression of jq over the normalised event, such as \
                          \".body.amount > 100\""
                    }
                };
                section.refuse(error.key, &error.what, cure);
            }
            None
        }
    }
}
