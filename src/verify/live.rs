//! Which secrets count at a moment.
//!
//! What is valid changes at a few moments that are known at load. Between two of them the live
//! secrets are one slice, made in advance, so that a scheme sees nothing else and a request pays
//! one comparison.

use super::keys::Secret;
use super::secret::SecretIndex;

/// When a secret counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its first moment, in nanoseconds since 1970.
    pub from_ns: u64,
    /// The first moment at which it counts no more.
    pub until_ns: u64,
}

impl Validity {
    /// At any time.
    pub const ALWAYS: Self = Self { from_ns: 0, until_ns: u64::MAX };

    /// Whether a moment lies in it.
    pub const fn holds(self, now_ns: u64) -> bool {
        self.from_ns <= now_ns && (now_ns < self.until_ns || self.until_ns == u64::MAX)
    }
}

/// The secrets of a source and when each counts.
#[derive(Clone, Debug)]
pub(super) struct Live {
    all: Vec<Secret>,
    /// In the order of time; the last has no end.
    spans: Vec<Span>,
}

/// Between two changes.
#[derive(Clone, Debug)]
pub(super) struct Span {
    until_ns: u64,
    pub(super) secrets: Vec<Secret>,
    indices: Vec<usize>,
}

impl Live {
    /// Every secret at any time, unless `validities` has an entry for it.
    pub(super) fn new(all: Vec<Secret>, validities: &[Validity]) -> Self {
        let valid = |index: usize| validities.get(index).copied().unwrap_or(Validity::ALWAYS);
        let mut changes: Vec<u64> = (0..all.len())
            .flat_map(|index| [valid(index).from_ns, valid(index).until_ns, u64::MAX])
            .chain([u64::MAX])
            .filter(|at| *at > 0)
            .collect();
        changes.sort_unstable();
        changes.dedup();
        let span = |until_ns: u64| {
            // Nothing changes inside a span, so its last moment speaks for all of it.
            let live = |index: &usize| valid(*index).holds(until_ns - 1);
            let indices: Vec<usize> = (0..all.len()).filter(live).collect();
            let secrets = indices.iter().filter_map(|index| all.get(*index).cloned()).collect();
            Span { until_ns, secrets, indices }
        };
        let spans = changes.into_iter().map(span).collect();
        Self { all, spans }
    }

    /// The secrets that count at a moment. None live, where there are some: `None`.
    pub(super) fn at(&self, now_ns: u64) -> Option<&Span> {
        let span = self.spans.iter().find(|span| now_ns < span.until_ns).or(self.spans.last())?;
        (self.all.is_empty() || !span.secrets.is_empty()).then_some(span)
    }

    /// Every secret, in the order of the configuration.
    pub(super) fn all(&self) -> &[Secret] {
        &self.all
    }
}

impl Span {
    /// An index into the live secrets as one into all of them.
    pub(super) fn index(&self, live: SecretIndex) -> SecretIndex {
        self.indices.get(live.as_usize()).map_or(live, |index| SecretIndex::new(*index))
    }
}

#[cfg(test)]
mod tests {
    use ring::hmac;

    use super::super::keys::Key;
    use super::*;

    fn live(validities: &[Validity]) -> Live {
        let secret = |index: usize| Secret {
            name: format!("s{index}"),
            key_id: None,
            key: Key::Mac(hmac::Key::new(hmac::HMAC_SHA256, b"a key of a test")),
            others: Vec::new(),
        };
        Live::new((0..validities.len()).map(secret).collect(), validities)
    }

    fn names(live: &Live, now_ns: u64) -> Vec<String> {
        let span = live.at(now_ns);
        span.map_or_else(Vec::new, |span| span.secrets.iter().map(|of| of.name.clone()).collect())
    }

    #[test]
    fn a_secret_counts_from_its_first_moment_to_before_its_last() {
        let old = Validity { from_ns: 0, until_ns: 200 };
        let new = Validity { from_ns: 100, until_ns: u64::MAX };
        let live = live(&[old, new]);
        for (now_ns, expected) in [
            (0, vec!["s0"]),
            (99, vec!["s0"]),
            (100, vec!["s0", "s1"]),
            (199, vec!["s0", "s1"]),
            (200, vec!["s1"]),
            (u64::MAX, vec!["s1"]),
        ] {
            assert_eq!(names(&live, now_ns), expected, "at {now_ns}");
        }
        let span = live.at(200).expect("one is live");
        assert_eq!(span.index(SecretIndex::new(0)).as_usize(), 1);
    }

    #[test]
    fn where_no_secret_counts_nothing_can_be_verified() {
        let gap =
            [Validity { from_ns: 100, until_ns: 200 }, Validity { from_ns: 300, until_ns: 400 }];
        let live = live(&gap);
        for (now_ns, some) in [(0, false), (100, true), (250, false), (399, true), (400, false)] {
            assert_eq!(live.at(now_ns).is_some(), some, "at {now_ns}");
        }
        assert!(Live::new(Vec::new(), &[]).at(7).is_some(), "a scheme without secrets has none");
    }

    #[test]
    fn every_moment_agrees_with_each_validity() {
        let all: Vec<Validity> = (0..6_u64)
            .map(|n| Validity { from_ns: n * 7 % 5, until_ns: 5 + n * 11 % 7 })
            .chain([Validity::ALWAYS])
            .collect();
        let live = live(&all);
        for now_ns in 0..20 {
            let valid = all.iter().enumerate().filter(|(_, of)| of.holds(now_ns));
            let expected: Vec<String> = valid.map(|(index, _)| format!("s{index}")).collect();
            assert_eq!(names(&live, now_ns), expected, "at {now_ns}");
        }
    }
}
