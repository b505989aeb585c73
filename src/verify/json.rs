//! A few values out of a JSON text in one pass, as written, without a tree.
//!
//! Strings and numbers both become text, `true` and `false` too; objects, arrays and null are
//! nothing, and so is a text that is empty or too long. The first of doubled keys counts.
//!
//! Reading stops as soon as everything asked for is found, so what stands behind it is neither
//! read nor judged; a body that breaks before that yields nothing at all.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::limits;

/// The most paths read in one pass.
pub(crate) const PATHS_MAX: usize = 24;
/// A text may grow sixfold by escapes, and has two quotes.
const RAW_BYTES_MAX: usize = 6 * limits::IDENTITY_BYTES_MAX + 2;

/// Which path of a [`Paths`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(u8);

impl Slot {
    /// The slot as a bit of a mask of wanted paths.
    pub(crate) const fn bit(self) -> u32 {
        1 << self.0
    }
}

const _: () = assert!(PATHS_MAX <= 32, "slots are bits of a u32");

/// One step into a value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(Box<str>),
    Index(usize),
}

/// Paths merged into one tree, so that one pass serves all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paths {
    root: Node,
    count: u8,
}

#[derive(Clone, Debug, Default)]
struct Node {
    slot: Option<Slot>,
    children: Vec<(Step, Node)>,
}

impl Paths {
    /// Adds `a.b[0].c`; the same path again has the same slot.
    pub(crate) fn add(&mut self, path: &str) -> Result<Slot, String> {
        let mut node = &mut self.root;
        for step in steps(path)? {
            let at = node.children.iter().position(|(known, _)| *known == step);
            let index = at.unwrap_or_else(|| {
                node.children.push((step, Node::default()));
                node.children.len() - 1
            });
            node = &mut node.children[index].1;
        }
        if let Some(slot) = node.slot {
            return Ok(slot);
        }
        if usize::from(self.count) == PATHS_MAX {
            return Err(format!("is one path too many; at most {PATHS_MAX} are read"));
        }
        let slot = Slot(self.count);
        node.slot = Some(slot);
        self.count += 1;
        Ok(slot)
    }

    /// Reads until every wanted path is found or the text ends.
    pub(crate) fn read<'b>(&self, text: &'b [u8], wanted: u32) -> Values<'b> {
        let mut values = Values { raw: [None; PATHS_MAX], missing: wanted };
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let walked = Walk { node: &self.root, values: &mut values }.deserialize(&mut deserializer);
        let whole = walked.is_ok() && deserializer.end().is_ok();
        if !whole && values.missing != 0 {
            values.raw = [None; PATHS_MAX];
        }
        values
    }
}

/// `a.b[0].c` as steps; a name is anything but `.`, `[` and `]`.
fn steps(path: &str) -> Result<Vec<Step>, String> {
    let shape = || format!("{path:?} is not a path; write it as \"data.items[0].id\"");
    let mut steps = Vec::new();
    for piece in path.split('.') {
        let (name, mut indices) = piece.split_at(piece.find('[').unwrap_or(piece.len()));
        let no_step = name.is_empty() && (indices.is_empty() || !steps.is_empty());
        if no_step || name.contains(']') {
            return Err(shape());
        }
        if !name.is_empty() {
            steps.push(Step::Field(name.into()));
        }
        while let Some(rest) = indices.strip_prefix('[') {
            let (index, rest) = rest.split_once(']').ok_or_else(shape)?;
            steps.push(Step::Index(index.parse().map_err(|_| shape())?));
            indices = rest;
        }
        if !indices.is_empty() {
            return Err(shape());
        }
    }
    Ok(steps)
}

/// What was found, borrowed from the text.
#[derive(Debug)]
pub(crate) struct Values<'b> {
    raw: [Option<&'b RawValue>; PATHS_MAX],
    missing: u32,
}

impl<'b> Values<'b> {
    /// Nothing found.
    pub(crate) fn none() -> Self {
        Self { raw: [None; PATHS_MAX], missing: 0 }
    }

    /// The text of a value: a string's content, a number as written.
    pub(crate) fn text(&self, slot: Slot) -> Option<Cow<'b, str>> {
        self.raw.get(usize::from(slot.0)).copied().flatten().and_then(text_of)
    }

    fn put(&mut self, slot: Slot, raw: &'b RawValue) {
        if let Some(place) = self.raw.get_mut(usize::from(slot.0)) {
            *place = Some(raw);
        }
        // Otherwise its alternatives are wanted, wherever they stand.
        if text_of(raw).is_some() {
            self.missing &= !slot.bit();
        }
    }
}

fn text_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    let raw = raw.get();
    if raw.len() > RAW_BYTES_MAX {
        return None;
    }
    let text = match raw.as_bytes().first()? {
        b'"' if raw.contains('\\') => Cow::Owned(serde_json::from_str(raw).ok()?),
        b'"' => Cow::Borrowed(raw.get(1..raw.len().saturating_sub(1))?),
        b'{' | b'[' | b'n' => return None,
        _ => Cow::Borrowed(raw),
    };
    (1..=limits::IDENTITY_BYTES_MAX).contains(&text.len()).then_some(text)
}

/// Walks one value along one node of the tree.
struct Walk<'w, 'b> {
    node: &'w Node,
    values: &'w mut Values<'b>,
}

impl<'b> Walk<'_, 'b> {
    /// Stops the pass once nothing is missing; the error is how serde is told to stop.
    fn stop_when_found<E: de::Error>(&self) -> Result<(), E> {
        if self.values.missing == 0 { Err(E::custom("")) } else { Ok(()) }
    }

    fn child<E: de::Error>(
        &mut self,
        node: &Node,
        walk: impl FnOnce(Walk<'_, 'b>) -> Result<(), E>,
    ) -> Result<(), E> {
        walk(Walk { node, values: self.values })?;
        self.stop_when_found()
    }
}

impl<'b> DeserializeSeed<'b> for Walk<'_, 'b> {
    type Value = ();

    fn deserialize<D: Deserializer<'b>>(self, deserializer: D) -> Result<(), D::Error> {
        let Some(slot) = self.node.slot else { return deserializer.deserialize_any(self) };
        let raw = <&RawValue>::deserialize(deserializer)?;
        self.values.put(slot, raw);
        if self.node.children.is_empty() {
            return Ok(());
        }
        // A path that ends here and another one that goes on: the value is read a second time.
        let mut again = serde_json::Deserializer::from_str(raw.get());
        again.deserialize_any(self).map_err(de::Error::custom)
    }
}

impl<'b> Visitor<'b> for Walk<'_, 'b> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'b>>(mut self, mut map: A) -> Result<(), A::Error> {
        let children = &self.node.children;
        let mut seen = 0_u32;
        while let Some(child) = map.next_key_seed(KeyOf { children })? {
            match child.and_then(|index| Some((index, children.get(index)?))) {
                Some((index, (_, node))) if seen & (1 << index) == 0 => {
                    seen |= 1 << index;
                    self.child(node, |walk| map.next_value_seed(walk))?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'b>>(self, mut seq: A) -> Result<(), A::Error> {
        for index in 0.. {
            let step = Step::Index(index);
            let child = self.node.children.iter().find(|(known, _)| *known == step);
            let more = match child {
                Some((_, node)) => {
                    let walk = Walk { node, values: self.values };
                    seq.next_element_seed(walk)?.is_some()
                }
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
            self.stop_when_found()?;
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Reads a key and says which child it names.
struct KeyOf<'w> {
    children: &'w [(Step, Node)],
}

impl<'b> DeserializeSeed<'b> for KeyOf<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'b>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyOf<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        let names = |(step, _): &(Step, Node)| matches!(step, Step::Field(name) if **name == *key);
        Ok(self.children.iter().position(names))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// Any JSON, with keys that paths name, keys that need escapes, and brackets in strings.
    fn any_json() -> impl Strategy<Value = Value> {
        let text = prop_oneof!["[a-c]{1,2}", "\\PC{0,20}", Just("]}\"\\{[".to_owned())];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, move |inner| {
            let key = prop_oneof![3 => "[a-c]", 1 => text.clone()];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key, inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// What the tree of `serde_json` says of a path.
    fn by_tree(value: &Value, pointer: &str) -> Option<String> {
        let step = |at: &'_ Value, name: &str| match (at, name.parse::<usize>()) {
            (Value::Array(items), Ok(index)) => items.get(index).cloned(),
            (Value::Object(map), Err(_)) => map.get(name).cloned(),
            _ => None,
        };
        let text = match pointer.split('/').try_fold(value.clone(), |at, name| step(&at, name))? {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(truth) => truth.to_string(),
            _ => return None,
        };
        (1..=limits::IDENTITY_BYTES_MAX).contains(&text.len()).then_some(text)
    }

    proptest! {
        #[test]
        fn every_path_reads_as_in_the_whole_tree(value in any_json()) {
            let paths = ["a", "a.b", "b.a.c", "c[1]", "a[0].a", "b[2][0]", "a.a.a"];
            let pointers = ["a", "a/b", "b/a/c", "c/1", "a/0/a", "b/2/0", "a/a/a"];
            let mut merged = Paths::default();
            let slots = paths.map(|path| merged.add(path).expect("a path"));
            for text in [value.to_string(), serde_json::to_string_pretty(&value).expect("text")] {
                let found = merged.read(text.as_bytes(), u32::MAX);
                for (slot, pointer) in slots.iter().zip(pointers) {
                    let want = by_tree(&value, pointer);
                    prop_assert_eq!(found.text(*slot).map(Cow::into_owned), want);
                }
            }
        }

        #[test]
        fn a_text_cut_anywhere_yields_nothing_wrong(value in any_json(), cut in 0_usize..200) {
            let text = json!({ "z": value, "a": "whole" }).to_string();
            let cut = cut.min(text.len());
            let mut paths = Paths::default();
            let slot = paths.add("a").expect("a path");
            let found = paths.read(&text.as_bytes()[..cut], slot.bit());
            prop_assert!(found.text(slot).is_none_or(|id| id == "whole"));
        }
    }
}
