//! A few values out of a JSON text in one pass, as written, without a tree.
//!
//! Strings and numbers both become text, `true` and `false` too; objects, arrays and null are
//! nothing, and so is a text that is empty or too long. The first of doubled keys counts.
//!
//! Reading stops as soon as everything asked for is found, so what stands behind it is neither
//! read nor judged; a body that breaks before that yields nothing at all.

mod cursor;

use std::borrow::Cow;

use self::cursor::{Broken, Cursor, DEPTH_MAX, Quoted};
use crate::limits;

/// The most paths read in one pass.
pub(crate) const PATHS_MAX: usize = 24;
/// The inside of a string: a text may grow sixfold by escapes.
const INSIDE_BYTES_MAX: usize = 6 * limits::IDENTITY_BYTES_MAX;

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
        let values = Values { texts: [None; PATHS_MAX], missing: wanted };
        let mut walk = Walk { cursor: Cursor::new(text), values };
        let whole = walk.value(&self.root, 0).is_ok() && walk.cursor.ends();
        if whole || walk.values.missing == 0 { walk.values } else { Values::none() }
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
    texts: [Option<Text<'b>>; PATHS_MAX],
    missing: u32,
}

/// What a value is as text.
#[derive(Clone, Copy, Debug)]
enum Text<'b> {
    /// As it stands: a string's inside, a number.
    Plain(&'b str),
    /// A string with escapes in it, quotes and all.
    Escaped(&'b [u8]),
    /// An object or a list, which is no text.
    Composite(&'b [u8]),
}

impl<'b> Values<'b> {
    /// Nothing found.
    pub(crate) fn none() -> Self {
        Self { texts: [None; PATHS_MAX], missing: 0 }
    }

    /// The text of a value: a string's content, a number as written.
    pub(crate) fn text(&self, slot: Slot) -> Option<Cow<'b, str>> {
        match self.texts.get(usize::from(slot.0)).copied().flatten()? {
            Text::Plain(text) => Some(Cow::Borrowed(text)),
            Text::Escaped(quoted) => unescaped(quoted).map(Cow::Owned),
            Text::Composite(_) => None,
        }
    }

    /// The text of an object or a list, as it stands in the body.
    pub(crate) fn composite(&self, slot: Slot) -> Option<&'b str> {
        match self.texts.get(usize::from(slot.0)).copied().flatten()? {
            Text::Composite(text) => std::str::from_utf8(text).ok(),
            Text::Plain(_) | Text::Escaped(_) => None,
        }
    }

    fn put(&mut self, slot: Slot, text: Text<'b>) {
        if let Some(place) = self.texts.get_mut(usize::from(slot.0)) {
            *place = Some(text);
        }
        // Without a text its alternatives are wanted, wherever they stand.
        if !matches!(text, Text::Composite(_)) {
            self.missing &= !slot.bit();
        }
    }
}

fn unescaped(quoted: &[u8]) -> Option<String> {
    serde_json::from_slice(quoted).ok().filter(|text: &String| fits(text))
}

fn fits(text: &str) -> bool {
    (1..=limits::IDENTITY_BYTES_MAX).contains(&text.len())
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
struct Walk<'b> {
    cursor: Cursor<'b>,
    values: Values<'b>,
}

impl Walk<'_> {
    /// One value, in `depth` others, along one node.
    fn value(&mut self, node: &Node, depth: u32) -> Result<(), Stop> {
        let first = self.cursor.peek()?;
        match (first, node.slot) {
            (b'{', _) if !node.children.is_empty() => self.object(&node.children, depth)?,
            (b'[', _) if !node.children.is_empty() => self.array(&node.children, depth)?,
            (b'"', Some(slot)) => self.string(slot)?,
            (_, slot) => {
                let start = self.cursor.at();
                self.cursor.skip(depth)?;
                if let Some(slot) = slot {
                    self.keep(slot, first, start);
                }
            }
        }
        if self.values.missing == 0 { Err(Stop::Found) } else { Ok(()) }
    }

    /// Keeps what was just stepped over, and is no string.
    fn keep(&mut self, slot: Slot, first: u8, start: usize) {
        let bytes = self.cursor.since(start);
        let text = match first {
            b'n' => None,
            b'{' | b'[' => Some(Text::Composite(bytes)),
            _ => std::str::from_utf8(bytes).ok().filter(|text| fits(text)).map(Text::Plain),
        };
        if let Some(text) = text {
            self.values.put(slot, text);
        }
    }

    fn string(&mut self, slot: Slot) -> Result<(), Stop> {
        let start = self.cursor.at();
        let Quoted { inside, escaped } = self.cursor.string()?;
        let text = if inside.len() > INSIDE_BYTES_MAX {
            None
        } else if escaped {
            let quoted = self.cursor.since(start);
            unescaped(quoted).map(|_| Text::Escaped(quoted))
        } else {
            std::str::from_utf8(inside).ok().filter(|text| fits(text)).map(Text::Plain)
        };
        if let Some(text) = text {
            self.values.put(slot, text);
        }
        Ok(())
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
