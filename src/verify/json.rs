//! A few values out of a JSON text in one pass, as written, without a tree.
//!
//! Strings and numbers both become text, `true` and `false` too; objects, arrays and null are
//! nothing, and so is a text that is empty or too long. The first of doubled keys counts.
//!
//! Reading stops as soon as everything asked for is found, so what stands behind it is neither
//! read nor judged; a body that breaks before that yields nothing at all. Strict reading, for
//! values that a signature covers one by one, goes to the end and takes no doubled key.

mod cursor;

use std::borrow::Cow;

use serde_json::value::RawValue;

use self::cursor::{Broken, Cursor, DEPTH_MAX, Quoted};
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
        self.add_steps(steps(path)?)
    }

    fn add_steps(&mut self, steps: Vec<Step>) -> Result<Slot, String> {
        let mut node = &mut self.root;
        for step in steps {
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

    /// Adds a key of the outermost object, whatever characters it has.
    pub(crate) fn add_key(&mut self, key: &str) -> Result<Slot, String> {
        self.add_steps(vec![Step::Field(key.into())])
    }

    /// Reads until every wanted path is found or the text ends.
    pub(crate) fn read<'b>(&self, text: &'b [u8], wanted: u32) -> Values<'b> {
        // Not by an update of a struct, which copies all of it.
        let mut values = Values::none();
        values.missing = wanted;
        let whole = self.walk(text, &mut values);
        if !whole && values.missing != 0 {
            values.raw = [None; PATHS_MAX];
        }
        values
    }

    /// Reads the whole text; nothing if it is no JSON or if a key on the way stands twice.
    pub(crate) fn read_strictly<'b>(&self, text: &'b [u8]) -> Option<Values<'b>> {
        // In what it passes over, the reader of JSON does not look at the characters.
        std::str::from_utf8(text).ok()?;
        let mut values = Values { missing: u32::MAX, strict: true, ..Values::none() };
        self.walk(text, &mut values).then_some(values)
    }

    fn walk<'b>(&self, text: &'b [u8], values: &mut Values<'b>) -> bool {
        let mut walk = Walk { cursor: Cursor::new(text), values };
        walk.value(&self.root, 0).is_ok() && walk.cursor.ends()
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

/// The value that a whole text is, without the white space around it; nothing if it is no JSON, by
/// the same rules as those of `serde_json`, however deep it nests.
pub(crate) fn value(text: &[u8]) -> Option<&str> {
    let mut cursor = Cursor::new(text);
    let start = cursor.peek().ok().map(|_| cursor.at())?;
    if cursor.skip(0).is_ok() {
        let value = cursor.since(start);
        return if cursor.ends() { std::str::from_utf8(value).ok() } else { None };
    }
    // No JSON, or deeper than the cursor goes.
    serde_json::from_slice::<&RawValue>(text).ok().map(RawValue::get)
}

/// Whether a string says this text as it stands, without an escape.
pub(crate) fn is_plain(text: &str) -> bool {
    cursor::plain(text.as_bytes()) == text.len()
}

/// What was found, borrowed from the text.
#[derive(Debug)]
pub(crate) struct Values<'b> {
    raw: [Option<&'b [u8]>; PATHS_MAX],
    /// Those that are strings without an escape, whose content needs no look for one.
    plain: u32,
    missing: u32,
    strict: bool,
}

impl<'b> Values<'b> {
    /// Nothing found.
    pub(crate) fn none() -> Self {
        Self { raw: [None; PATHS_MAX], plain: 0, missing: 0, strict: false }
    }

    fn bytes(&self, slot: Slot) -> Option<&'b [u8]> {
        self.raw.get(usize::from(slot.0)).copied().flatten()
    }

    /// A value as it stands in the text.
    pub(crate) fn raw(&self, slot: Slot) -> Option<&'b str> {
        std::str::from_utf8(self.bytes(slot)?).ok()
    }

    /// The content of a string of any length; nothing else has one.
    pub(crate) fn string(&self, slot: Slot) -> Option<Cow<'b, str>> {
        content(self.bytes(slot).filter(|raw| raw.starts_with(b"\""))?)
    }

    /// The text of a value: a string's content, a number as written.
    pub(crate) fn text(&self, slot: Slot) -> Option<Cow<'b, str>> {
        let raw = self.bytes(slot)?;
        if self.plain & slot.bit() != 0 { plain_text(raw).map(Cow::Borrowed) } else { text_of(raw) }
    }

    fn put(&mut self, slot: Slot, raw: &'b [u8], plain: bool) {
        if let Some(place) = self.raw.get_mut(usize::from(slot.0)) {
            *place = Some(raw);
        }
        if plain {
            self.plain |= slot.bit();
        }
        // Otherwise its alternatives are wanted, wherever they stand. Most are ASCII, and what
        // they say is read but once, by who asks for it.
        let wanted = self.missing & slot.bit() != 0;
        if wanted && (plain && is_plain_ascii(raw) || self.text(slot).is_some()) {
            self.missing &= !slot.bit();
        }
    }
}

/// What stands between the quotes of a string without an escape, if it is of a length that counts.
fn plain_bytes(raw: &[u8]) -> Option<&[u8]> {
    let [b'"', inside @ .., b'"'] = raw else { return None };
    (1..=limits::IDENTITY_BYTES_MAX).contains(&inside.len()).then_some(inside)
}

/// The text of a string without an escape.
fn plain_text(raw: &[u8]) -> Option<&str> {
    std::str::from_utf8(plain_bytes(raw)?).ok()
}

/// Whether a string without an escape has a text, told without reading it: true for most that have.
fn is_plain_ascii(raw: &[u8]) -> bool {
    plain_bytes(raw).is_some_and(<[u8]>::is_ascii)
}

fn text_of(raw: &[u8]) -> Option<Cow<'_, str>> {
    if raw.len() > RAW_BYTES_MAX || matches!(raw.first()?, b'{' | b'[' | b'n') {
        return None;
    }
    content(raw).filter(|text| (1..=limits::IDENTITY_BYTES_MAX).contains(&text.len()))
}

/// What a scalar says: a string without its quotes and escapes.
fn content(raw: &[u8]) -> Option<Cow<'_, str>> {
    match raw {
        [b'"', inside @ .., b'"'] if !inside.contains(&b'\\') => {
            std::str::from_utf8(inside).ok().map(Cow::Borrowed)
        }
        [b'"', ..] => serde_json::from_slice(raw).ok().map(Cow::Owned),
        scalar => std::str::from_utf8(scalar).ok().map(Cow::Borrowed),
    }
}

/// Why a walk ends early.
enum Stop {
    /// Nothing is missing any more.
    Found,
    /// The text is no JSON.
    Broken,
}

impl From<Broken> for Stop {
    fn from(_: Broken) -> Self {
        Self::Broken
    }
}

/// Walks a text along the tree of paths.
struct Walk<'w, 'b> {
    cursor: Cursor<'b>,
    values: &'w mut Values<'b>,
}

impl Walk<'_, '_> {
    /// One value, in `depth` others, along one node.
    fn value(&mut self, node: &Node, depth: u32) -> Result<(), Stop> {
        let first = self.cursor.peek()?;
        let start = self.cursor.at();
        let mut plain = false;
        match first {
            b'"' => plain = !self.cursor.string()?.escaped,
            b'{' if !node.children.is_empty() => self.object(&node.children, depth)?,
            b'[' if !node.children.is_empty() => self.array(&node.children, depth)?,
            _ => self.cursor.skip(depth)?,
        }
        if let Some(slot) = node.slot {
            self.values.put(slot, self.cursor.since(start), plain);
        }
        let enough = self.values.missing == 0 && !self.values.strict;
        if enough { Err(Stop::Found) } else { Ok(()) }
    }

    fn object(&mut self, children: &[(Step, Node)], depth: u32) -> Result<(), Stop> {
        if depth == DEPTH_MAX || !self.cursor.take(b'{')? {
            return Err(Stop::Broken);
        }
        let mut seen = 0_u32;
        let mut more = !self.cursor.take(b'}')?;
        while more {
            let key = self.cursor.key()?;
            match children.iter().position(|(step, _)| step.names(key)) {
                Some(index) if seen & (1 << index) == 0 => {
                    seen |= 1 << index;
                    self.value(&children[index].1, depth + 1)?;
                }
                Some(_) if self.values.strict => return Err(Stop::Broken),
                _ => self.cursor.skip(depth + 1)?,
            }
            more = self.cursor.take(b',')?;
            if !more && !self.cursor.take(b'}')? {
                return Err(Stop::Broken);
            }
        }
        Ok(())
    }

    fn array(&mut self, children: &[(Step, Node)], depth: u32) -> Result<(), Stop> {
        if depth == DEPTH_MAX || !self.cursor.take(b'[')? {
            return Err(Stop::Broken);
        }
        let mut more = !self.cursor.take(b']')?;
        let mut index = 0;
        while more {
            match children.iter().find(|(step, _)| *step == Step::Index(index)) {
                Some((_, node)) => self.value(node, depth + 1)?,
                None => self.cursor.skip(depth + 1)?,
            }
            index += 1;
            more = self.cursor.take(b',')?;
            if !more && !self.cursor.take(b']')? {
                return Err(Stop::Broken);
            }
        }
        Ok(())
    }
}

impl Step {
    /// Whether a key as written is this field's.
    fn names(&self, key: Quoted<'_>) -> bool {
        let Self::Field(name) = self else { return false };
        if !key.escaped {
            return key.inside == name.as_bytes();
        }
        let quoted = [&b"\""[..], key.inside, b"\""].concat();
        serde_json::from_slice::<String>(&quoted).is_ok_and(|key| *key == **name)
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

    #[test]
    fn a_whole_text_is_the_value_that_serde_json_takes_it_for() {
        let theirs = |text: &[u8]| {
            let raw = serde_json::from_slice::<Box<RawValue>>(text).ok();
            raw.map(|raw| raw.get().to_owned())
        };
        let text = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..24),
            "[ \\[\\]{}:,\"\\\\ua0-9eE.+\\- tfnrls\n\u{1}\u{e9}]{0,24}"
                .prop_map(String::into_bytes),
            ("[ \n\r\t]{0,2}", any_json(), "[ \n\r\tx]{0,2}").prop_map(|(front, value, behind)| {
                format!("{front}{value:#}{behind}").into_bytes()
            }),
            (100_usize..300, any::<bool>()).prop_map(|(depth, whole)| {
                let ends = depth - usize::from(!whole);
                (" [".repeat(depth) + &"]".repeat(ends)).into_bytes()
            }),
        ];
        // One byte of the text is another: UTF-8, escapes and brackets break.
        let broken = prop::option::of((any::<prop::sample::Index>(), any::<u8>()));
        proptest!(ProptestConfig::with_cases(2000), |(text in text, broken in broken)| {
            let mut text = text;
            if let Some((at, byte)) = broken.filter(|_| !text.is_empty()) {
                let at = at.index(text.len());
                text[at] = byte;
            }
            prop_assert_eq!(value(&text).map(str::to_owned), theirs(&text), "{:?}", text);
        });
        assert_eq!(value(b" {\"a\": \"\xff\"}"), None);
        assert_eq!(value(b" {\"a\": 1}\n "), Some("{\"a\": 1}"));
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
        fn strict_reading_finds_the_same_and_takes_nothing_twice(value in any_json()) {
            let paths = ["a", "a.b", "b.a.c", "c[1]"];
            let mut merged = Paths::default();
            let slots = paths.map(|path| merged.add(path).expect("a path"));
            let text = value.to_string();
            let (found, kindly) =
                (merged.read_strictly(text.as_bytes()), merged.read(text.as_bytes(), u32::MAX));
            let found = found.expect("no key of a tree stands twice");
            for slot in slots {
                prop_assert_eq!(found.raw(slot), kindly.raw(slot));
                let parsed = found.raw(slot).and_then(|raw| serde_json::from_str::<String>(raw).ok());
                prop_assert_eq!(found.string(slot).map(Cow::into_owned), parsed);
            }
            for twice in [json!({ "b": 1 }), value] {
                let doubled = format!("{{\"a\":{twice},\"x\":0,\"a\":{twice}}}");
                prop_assert!(merged.read_strictly(doubled.as_bytes()).is_none());
                let trailing = format!("{{\"a\":{twice}}}x");
                prop_assert!(merged.read_strictly(trailing.as_bytes()).is_none());
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
