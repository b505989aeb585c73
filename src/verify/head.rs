//! What a request's head says about its signature: headers that must stand exactly once, and the
//! candidates inside the signature header.
//!
//! The headers are gone through once. Nothing is copied: candidates and labelled values are spans
//! of the signature header's value. Nothing is decoded here and nothing is trusted.

use std::iter::once;
use std::ops::Range;

use http::{HeaderMap, HeaderName};
use memchr::memchr_iter;

use crate::limits;
use crate::reject::Reject;

/// The most labels of a list header that a scheme may refer to.
pub(super) const LABELS_MAX: usize = 4;
/// The most headers that a scheme may need beside the one with the signature.
pub(super) const OTHERS_MAX: usize = 4;

/// A header that must be there, under one of its names.
#[derive(Clone, Debug)]
pub(super) struct Needed {
    /// The name of the scheme, then its aliases.
    pub(super) names: Vec<HeaderName>,
    /// The lengths of the names, a bit each: most headers of a request are told by theirs.
    lengths: u64,
}

impl Needed {
    pub(super) fn new(names: Vec<HeaderName>) -> Self {
        let lengths = names.iter().fold(0, |lengths, name| lengths | length_bit(name));
        Self { names, lengths }
    }

    /// The one value of the header.
    pub(super) fn value<'h>(&self, headers: &'h HeaderMap) -> Result<&'h [u8], Reject> {
        let mut values = [Seen::default()];
        gather(headers, &mut values, |_| self);
        values[0].once()
    }
}

fn length_bit(name: &HeaderName) -> u64 {
    1 << name.as_str().len().min(63)
}

/// The value of a needed header, as far as the headers were gone through.
#[derive(Clone, Copy, Debug, Default)]
struct Seen<'h> {
    last: Option<&'h [u8]>,
    /// The names under which it was found, a bit each.
    names: u32,
    doubled: bool,
}

impl<'h> Seen<'h> {
    /// Under two names it must be the same value, so that no later reader of either name sees
    /// another one than was signed.
    fn add(&mut self, name: usize, value: &'h [u8]) {
        let bit = 1_u32.checked_shl(u32::try_from(name).unwrap_or(u32::MAX)).unwrap_or(0);
        self.doubled |= self.names & bit != 0 || self.last.is_some_and(|other| other != value);
        self.names |= bit;
        self.last = Some(value);
    }

    fn once(self) -> Result<&'h [u8], Reject> {
        if self.doubled {
            return Err(Reject::SignatureDoubled);
        }
        self.last.filter(|value| !value.is_empty()).ok_or(Reject::SignatureMissing)
    }
}

/// Goes through the headers once and notes the values of those that are needed.
fn gather<'n, 'h>(
    headers: &'h HeaderMap,
    values: &mut [Seen<'h>],
    needed: impl Fn(usize) -> &'n Needed,
) {
    let lengths = (0..values.len()).fold(0, |lengths, index| lengths | needed(index).lengths);
    for (name, value) in headers {
        let length = length_bit(name);
        if lengths & length == 0 {
            continue;
        }
        for (index, found) in values.iter_mut().enumerate() {
            let needed = needed(index);
            if needed.lengths & length != 0
                && let Some(known) = needed.names.iter().position(|known| known == name)
            {
                found.add(known, value.as_bytes());
            }
        }
    }
}

/// The values of the signature header and of the others that a scheme needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'h> {
    pub(super) signature: &'h [u8],
    others: [&'h [u8]; OTHERS_MAX],
}

impl<'h> Values<'h> {
    /// Each of them exactly once. Of `others`, [`OTHERS_MAX`] are read at most.
    pub(super) fn read(
        signature: &Needed,
        others: &[Needed],
        headers: &'h HeaderMap,
    ) -> Result<Self, Reject> {
        let count = others.len().min(OTHERS_MAX);
        let mut values = [Seen::default(); OTHERS_MAX + 1];
        let wanted = values.get_mut(..=count).unwrap_or_default();
        let needed = |index: usize| index.checked_sub(1).map_or(signature, |index| &others[index]);
        gather(headers, wanted, needed);
        let [first, rest @ ..] = values;
        let mut read = Self { signature: first.once()?, others: [&[]; OTHERS_MAX] };
        for (slot, value) in read.others.iter_mut().zip(rest).take(count) {
            *slot = value.once()?;
        }
        Ok(read)
    }

    pub(super) fn other(&self, index: usize) -> Result<&'h [u8], Reject> {
        self.others.get(index).copied().ok_or(Reject::SignatureMissing)
    }
}

/// A part of a header's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    start: u16,
    end: u16,
}

impl Span {
    fn new(range: Range<usize>) -> Option<Self> {
        Some(Self { start: range.start.try_into().ok()?, end: range.end.try_into().ok()? })
    }

    pub(super) fn of(self, value: &[u8]) -> Option<&[u8]> {
        value.get(usize::from(self.start)..usize::from(self.end))
    }
}

/// The candidates and labelled values of one signature header.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    signatures: [Span; limits::SIGNATURES_MAX],
    count: u8,
    /// By which of the scheme's algorithms they are made; the first but for [`Shape::Named`].
    pub(super) algorithm: u8,
    pub(super) labels: [Option<Span>; LABELS_MAX],
}

impl Found {
    pub(super) fn signatures(&self) -> &[Span] {
        self.signatures.get(..usize::from(self.count)).unwrap_or_default()
    }

    /// Keeps a candidate; beyond the bound it is not looked at.
    fn push(&mut self, span: Span) {
        if let Some(slot) = self.signatures.get_mut(usize::from(self.count)) {
            *slot = span;
            self.count += 1;
        }
    }
}

/// How candidates stand in the signature header.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// One signature after a fixed prefix.
    Plain { prefix: Box<[u8]> },
    /// `t=..,v1=..,v1=..`: labelled entries, split at the first `=`.
    KvList { separator: u8, label: Box<[u8]>, labels: Vec<Box<[u8]>> },
    /// `v1,.. v1a,..`: versioned entries between spaces.
    SpaceList { label: Box<[u8]> },
    /// Signatures between commas.
    CommaList,
    /// One signature after one of these, which say by what algorithm it was made.
    Named { names: Vec<&'static [u8]> },
}

impl Shape {
    /// Finds the candidates for which `readable` holds; unreadable ones spoil nothing.
    pub(super) fn find(
        &self,
        value: &[u8],
        mut readable: impl FnMut(&[u8]) -> bool,
    ) -> Result<Found, Reject> {
        let mut found = Found::default();
        match self {
            Self::Plain { prefix } => {
                let range = prefix.len()..value.len();
                if value.starts_with(prefix) {
                    keep(&mut found, value, range, &mut readable);
                }
            }
            Self::KvList { separator, label, labels } => {
                for entry in entries(value, *separator) {
                    let text = value.get(entry.clone()).unwrap_or_default();
                    let Some(equals) = text.iter().position(|byte| *byte == b'=') else { continue };
                    let name = text.get(..equals).unwrap_or_default();
                    let range = entry.start + equals + 1..entry.end;
                    if name == &**label {
                        keep(&mut found, value, range, &mut readable);
                    } else if let Some(index) = labels.iter().position(|want| name == &**want) {
                        let slot = found.labels.get_mut(index).ok_or(Reject::SignatureMalformed)?;
                        if slot.is_some() {
                            return Err(Reject::SignatureMalformed);
                        }
                        *slot = Span::new(range);
                    }
                }
                if found.labels.iter().flatten().count() < labels.len() {
                    return Err(Reject::SignatureMalformed);
                }
            }
            Self::Named { names } => {
                let known = |name: &&[u8]| value.starts_with(name);
                if let Some((index, name)) = names.iter().enumerate().find(|(_, name)| known(name))
                {
                    found.algorithm = u8::try_from(index).unwrap_or(u8::MAX);
                    keep(&mut found, value, name.len()..value.len(), &mut readable);
                }
            }
            Self::CommaList => {
                for entry in entries(value, b',') {
                    keep(&mut found, value, entry, &mut readable);
                }
            }
            Self::SpaceList { label } => {
                for entry in entries(value, b' ') {
                    let text = value.get(entry.clone()).unwrap_or_default();
                    let rest = text.strip_prefix(&**label).and_then(|rest| rest.strip_prefix(b","));
                    if let Some(signature) = rest {
                        let start = entry.end - signature.len();
                        keep(&mut found, value, start..entry.end, &mut readable);
                    }
                }
            }
        }
        if found.count == 0 { Err(Reject::SignatureMalformed) } else { Ok(found) }
    }
}

fn keep(found: &mut Found, value: &[u8], range: Range<usize>, readable: impl FnMut(&[u8]) -> bool) {
    if usize::from(found.count) < limits::SIGNATURES_MAX
        && let Some(span) = Span::new(range)
        && span.of(value).is_some_and(readable)
    {
        found.push(span);
    }
}

/// The entries of a list without the white space around them.
fn entries(value: &[u8], separator: u8) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    memchr_iter(separator, value).chain(once(value.len())).map(move |end| {
        let entry = value.get(start..end).unwrap_or_default();
        let begin = end - entry.trim_ascii_start().len();
        start = end + 1;
        begin..begin + entry.trim_ascii().len()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'v>(shape: &Shape, value: &'v str) -> Option<Vec<&'v str>> {
        let found = shape.find(value.as_bytes(), |text| !text.starts_with(b"bad")).ok()?;
        let text = |span: &Span| {
            std::str::from_utf8(span.of(value.as_bytes()).expect("inside")).expect("text")
        };
        Some(found.signatures().iter().chain(found.labels.iter().flatten()).map(text).collect())
    }

    fn kv(separator: u8) -> Shape {
        let label = b"v1".to_vec().into();
        Shape::KvList { separator, label, labels: vec![b"t".to_vec().into()] }
    }

    #[test]
    fn entries_split_at_the_first_equals_sign() {
        assert_eq!(found(&kv(b','), "t=1,v1=YQ=="), Some(vec!["YQ==", "1"]));
        assert_eq!(found(&kv(b';'), "t=1;v1=a"), Some(vec!["a", "1"]));
        assert_eq!(found(&kv(b','), " t=1 ,\tv1=a, v1=b"), Some(vec!["a", "b", "1"]));
    }

    #[test]
    fn unknown_labels_and_unreadable_candidates_spoil_nothing() {
        assert_eq!(found(&kv(b','), "x,v0=b,t=1,v1=bad,v1=a,=,"), Some(vec!["a", "1"]));
        let list = Shape::SpaceList { label: b"v1".to_vec().into() };
        assert_eq!(found(&list, "v1a,x v2,y v1 v1,bad  v1,a v1,b"), Some(vec!["a", "b"]));
        assert_eq!(found(&list, "v1a,x"), None);
    }

    #[test]
    fn only_the_configured_label_counts_and_the_time_stands_once() {
        for bad in ["t=1,v0=a", "v1=a", "t=1", "t=1,t=2,v1=a", "", "t=1,v1=bad", "t=1;v1=a"] {
            assert_eq!(found(&kv(b','), bad), None, "{bad}");
        }
    }

    #[test]
    fn a_plain_header_needs_its_prefix() {
        let plain = Shape::Plain { prefix: b"sha256=".to_vec().into() };
        assert_eq!(found(&plain, "sha256=aa"), Some(vec!["aa"]));
        assert_eq!(found(&plain, "aa"), None);
        assert_eq!(found(&plain, "sha1=aa"), None);
    }

    #[test]
    fn a_name_that_is_not_pinned_counts_for_nothing() {
        let named = Shape::Named { names: vec![b"sha256=", b"sha1="] };
        assert_eq!(found(&named, "sha1=aa"), Some(vec!["aa"]));
        for other in ["md5=aa", "SHA1=aa", "aa", "sha256=bad", "=aa", ""] {
            assert_eq!(found(&named, other), None, "{other}");
        }
        let of = |value: &[u8]| named.find(value, |_| true).expect("found").algorithm;
        assert_eq!((of(b"sha256=a"), of(b"sha1=a")), (0, 1));
    }

    #[test]
    fn at_most_the_bound_of_candidates_is_kept() {
        let many = format!("t=1{}", ",v1=a".repeat(1_000));
        assert_eq!(found(&kv(b','), &many).expect("found").len(), limits::SIGNATURES_MAX + 1);
    }

    #[test]
    fn a_doubled_header_is_told_from_a_missing_one() {
        let names = ["svix-id", "webhook-id"].map(HeaderName::from_static).to_vec();
        let needed = Needed::new(names);
        let mut headers = HeaderMap::new();
        assert_eq!(needed.value(&headers), Err(Reject::SignatureMissing));
        headers.append("webhook-id", "".parse().expect("value"));
        assert_eq!(needed.value(&headers), Err(Reject::SignatureMissing));
        headers.insert("webhook-id", "a".parse().expect("value"));
        assert_eq!(needed.value(&headers), Ok(&b"a"[..]));
        headers.insert("svix-id", "a".parse().expect("value"));
        assert_eq!(needed.value(&headers), Ok(&b"a"[..]));
        headers.insert("svix-id", "b".parse().expect("value"));
        assert_eq!(needed.value(&headers), Err(Reject::SignatureDoubled));
        headers.remove("svix-id");
        headers.append("webhook-id", "a".parse().expect("value"));
        assert_eq!(needed.value(&headers), Err(Reject::SignatureDoubled));
    }
}
