//! Which events a sink takes, by what forebay knows of them: no body is looked at.

use forebay_log::{RecordRef, Tag};

/// What may be asked for; an empty list asks for nothing.
#[derive(Clone, Debug, Default)]
pub struct Select {
    /// Names of sources.
    pub sources: Vec<String>,
    /// Types, in which `*` stands for any text.
    pub types: Vec<String>,
    /// Tenants.
    pub tenants: Vec<String>,
    /// Environments.
    pub environments: Vec<String>,
}

impl Select {
    /// Whether the event is one of these; what a record does not say fits no list.
    pub(super) fn takes(&self, record: &RecordRef<'_>) -> bool {
        let meta = record.meta();
        let listed = |list: &[String], tag, fits: fn(&str, &[u8]) -> bool| {
            list.is_empty()
                || meta.get(tag).is_some_and(|text| list.iter().any(|known| fits(known, text)))
        };
        let same = |known: &str, text: &[u8]| known.as_bytes() == text;
        listed(&self.sources, Tag::Source, same)
            && listed(&self.types, Tag::EventType, |glob, text| matches(glob.as_bytes(), text))
            && listed(&self.tenants, Tag::Tenant, same)
            && listed(&self.environments, Tag::Environment, same)
    }
}

/// Whether a text fits a pattern in which `*` stands for any text, also none. Goes back to the
/// last `*` alone, which suffices and keeps the cost at the product of the lengths.
fn matches(glob: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while from < text.len() {
        match glob.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(byte) if Some(byte) == text.get(from) => {
                at += 1;
                from += 1;
            }
            _ => match star {
                Some((place, begin)) => {
                    star = Some((place, begin + 1));
                    at = place + 1;
                    from = begin + 1;
                }
                None => return false,
            },
        }
    }
    glob.get(at..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::matches;

    /// The same by trying everything.
    fn slowly(glob: &[u8], text: &[u8]) -> bool {
        match (glob.split_first(), text.split_first()) {
            (None, rest) => rest.is_none(),
            (Some((b'*', glob)), _) => (0..=text.len()).any(|cut| slowly(glob, &text[cut..])),
            (Some((wanted, glob)), Some((found, text))) => wanted == found && slowly(glob, text),
            (Some(_), None) => false,
        }
    }

    #[test]
    fn a_star_stands_for_any_text() {
        let fits = |glob: &str, text: &str| matches(glob.as_bytes(), text.as_bytes());
        assert!(fits("room.*", "room.started") && fits("room.*", "room."));
        assert!(fits("*", "") && fits("*.created", "a.b.created") && fits("a*b*c", "a1b2b3c"));
        assert!(!fits("room.*", "room") && !fits("room", "room.started") && !fits("", "a"));
    }

    proptest! {
        #[test]
        fn the_matcher_agrees_with_one_that_tries_everything(
            glob in "[ab*]{0,7}",
            text in "[ab]{0,9}",
        ) {
            prop_assert_eq!(
                matches(glob.as_bytes(), text.as_bytes()),
                slowly(glob.as_bytes(), text.as_bytes())
            );
        }
    }
}
