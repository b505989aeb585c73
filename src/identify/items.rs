//! Batches: a body that lists several events becomes one event for each item.
//!
//! The body is checked whole before its first item is given out, so a list that breaks anywhere
//! yields nothing and its request stays one event. After that the items are read one by one, each
//! where it stands: nothing is copied, and only what the rules want of an item is looked at.
//!
//! Bounds: [`ITEMS_MAX`] items, and no recursion but along the paths of the rules, so a body nested
//! however deep costs no stack.

use std::borrow::Cow;
use std::ops::Range;

use http::HeaderMap;
use serde_json::value::RawValue;

use super::rule::Source;
use super::{Identity, Rules, claimed, header_text};
use crate::limits::ITEMS_MAX;
use crate::verify::json::{Paths, Slot, Values};

/// Where the list is, and what is wanted of its items.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    list: Option<(Paths, Slot)>,
    paths: Paths,
}

impl Batch {
    /// The list at `path`; at no path the body itself.
    pub(super) fn new(path: &str, paths: Paths) -> Result<Self, String> {
        let mut list = Paths::default();
        let slot = if path.is_empty() { None } else { Some(list.add(path)?) };
        Ok(Self { list: slot.map(|slot| (list, slot)), paths })
    }

    /// The text of the list in a body that is JSON as a whole.
    fn list<'b>(&self, body: &'b [u8]) -> Option<&'b str> {
        let list = match &self.list {
            // A list is never a text, so the pass goes to the end of the body.
            Some((paths, slot)) => paths.read(body, slot.bit()).raw(*slot)?,
            None => serde_json::from_slice::<&RawValue>(body).ok()?.get(),
        };
        list.strip_prefix('[')
    }
}

/// One event of a batch.
#[derive(Clone, Debug)]
pub struct Item<'r> {
    /// Where it stands in the body.
    pub bytes: Range<usize>,
    /// Which event it is.
    pub identity: Identity<'r>,
}

/// The events of a batch, in the order of the body.
#[derive(Debug)]
pub struct Items<'r> {
    rules: &'r Rules,
    batch: &'r Batch,
    headers: &'r HeaderMap,
    body: &'r [u8],
    shared: Values<'r>,
    claims: Option<Vec<u8>>,
    texts: Texts<'r>,
    index: u32,
}

impl Rules {
    /// The events of a verified request, if it is a batch. A body that is no such list, an empty
    /// list and one above [`ITEMS_MAX`] are none: their request is one event.
    pub fn items<'r>(&'r self, headers: &'r HeaderMap, body: &'r [u8]) -> Option<Items<'r>> {
        let batch = self.batch.as_ref()?;
        let list = batch.list(body)?;
        let texts = Texts(list);
        if !(1..=ITEMS_MAX).contains(&texts.clone().take(ITEMS_MAX + 1).count()) {
            return None;
        }
        let wanted = self.wanted(headers, Source::json);
        let shared = if wanted == 0 { Values::none() } else { self.paths.read(body, wanted) };
        let claims = self.claims(headers);
        Some(Items { rules: self, batch, headers, body, shared, claims, texts, index: 0 })
    }
}

impl<'r> Iterator for Items<'r> {
    type Item = Item<'r>;

    fn next(&mut self) -> Option<Item<'r>> {
        let text = self.texts.next()?;
        // Where a part of a slice begins is the distance of their addresses.
        let start = (text.as_ptr() as usize).checked_sub(self.body.as_ptr() as usize)?;
        let wanted = self.rules.wanted(self.headers, Source::item);
        let values = self.batch.paths.read(text.as_bytes(), wanted);
        let claims = self.rules.claim_values(self.claims.as_deref());
        let identity = self.rules.identity(Some(self.index), |source| match source {
            Source::Header { name, .. } => header_text(self.headers, name).map(Cow::Borrowed),
            Source::Json { slot, .. } => self.shared.text(*slot),
            Source::Item { slot, .. } => values.text(*slot),
            // What holds a list is no form.
            Source::Form { .. } => None,
            Source::Claim(slot) => claimed(claims.as_ref(), *slot),
        });
        self.index += 1;
        Some(Item { bytes: start..start + text.len(), identity })
    }
}

/// The texts of the items of a list that is known to be JSON, from behind its `[`.
#[derive(Clone, Debug)]
struct Texts<'b>(&'b str);

impl<'b> Iterator for Texts<'b> {
    type Item = &'b str;

    fn next(&mut self) -> Option<&'b str> {
        let mut values = serde_json::Deserializer::from_str(self.0).into_iter::<&RawValue>();
        // At the end of the list stands `]`, which is no value.
        let item = values.next()?.ok()?.get();
        let behind = self.0.get(values.byte_offset()..)?.trim_ascii_start();
        self.0 = behind.strip_prefix(',').unwrap_or(behind);
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::identify::{IdentitySpec, KeyKind};
    use crate::verify::{DigestOf, preset};

    fn rules(text: &str) -> Rules {
        let spec: IdentitySpec = toml::from_str(text).expect("reads");
        Rules::new(&spec, &preset("slack").expect("a preset").scheme).expect("compiles")
    }

    fn by_id(list: &str) -> Rules {
        rules(&format!(
            "items = \"json:{list}\"\nevent_id = \"item:id\"\nevent_type = \"item:t | json:t\""
        ))
    }

    /// Text and id of each item; nothing if it is no batch.
    fn split<'b>(rules: &Rules, body: &'b str) -> Option<Vec<(&'b str, Option<String>)>> {
        let headers = HeaderMap::new();
        let items = rules.items(&headers, body.as_bytes())?;
        let told = |item: Item<'_>| (item.bytes, item.identity.event_id.map(Cow::into_owned));
        Some(items.map(told).map(|(bytes, id)| (&body[bytes], id)).collect())
    }

    #[test]
    fn each_item_has_its_own_bytes_and_id() {
        let some = |id: &str| Some(id.to_owned());
        let body = "[ {\"id\":\"a\"} ,{\"x\":[\"]\",\"}\"],\"id\":2}, 7, \"t\" ]\r\n";
        let items = split(&by_id(""), body).expect("a batch");
        assert_eq!(items[0], ("{\"id\":\"a\"}", some("a")));
        assert_eq!(items[1], ("{\"x\":[\"]\",\"}\"],\"id\":2}", some("2")));
        assert_eq!(items[2..], [("7", None), ("\"t\"", None)]);
        let inside = r#"{"a":{"l":[{"id":1},{"id":2}]},"t":"all"}"#;
        let items = split(&by_id("a.l"), inside).expect("a batch");
        assert_eq!(items, [("{\"id\":1}", some("1")), ("{\"id\":2}", some("2"))]);
    }

    #[test]
    fn what_is_no_whole_list_stays_one_event() {
        for body in [
            "",
            "[]",
            "{}",
            "7",
            "null",
            "[1",
            "[1,]",
            "[1 2]",
            "[1]x",
            "[1],[2]",
            "[{\"id\":1},x]",
        ] {
            assert_eq!(split(&by_id(""), body), None, "{body}");
        }
        for body in ["[1]", "{\"l\":[]}", "{\"l\":{}}", "{\"l\":[1]", "{\"l\":[1]} x"] {
            assert_eq!(split(&by_id("l"), body), None, "{body}");
        }
        let slack = rules("event_id = \"json:id\"");
        assert_eq!(split(&slack, "[{\"id\":1}]"), None, "no batch without `items`");
    }

    #[test]
    fn the_bound_of_a_batch_holds_and_depth_costs_no_stack() {
        let list = |count: usize| format!("[{}]", vec!["1"; count].join(","));
        let count = |body: &str| split(&by_id(""), body).map(|items| items.len());
        assert_eq!(count(&list(ITEMS_MAX)), Some(ITEMS_MAX));
        assert_eq!(count(&list(ITEMS_MAX + 1)), None);
        let deep = format!("[{}{}]", "[".repeat(200_000), "]".repeat(200_000));
        assert_eq!(count(&deep), Some(1));
        let deep = format!("[{}1{}]", r#"{"id":"#.repeat(100_000), "}".repeat(100_000));
        assert_eq!(count(&deep), Some(1));
    }

    #[test]
    fn items_without_an_id_have_keys_of_their_own() {
        let rules = by_id("");
        let headers = HeaderMap::new();
        let keys: Vec<Vec<Vec<u8>>> = rules
            .items(&headers, br#"[{"id":"a"},{},{},{"id":"a"}]"#)
            .expect("a batch")
            .map(|item| {
                let key = item.identity.key(|over| {
                    assert_eq!(over, DigestOf::Signed);
                    Ok([9; 32])
                });
                key.expect("a key").parts().map(<[u8]>::to_vec).collect()
            })
            .collect();
        assert_eq!(keys[0], [vec![KeyKind::Id as u8], b"a".to_vec()]);
        assert_eq!(keys[1], [vec![KeyKind::Signed as u8], vec![9; 32], vec![1, 0, 0, 0]]);
        assert_ne!(keys[1], keys[2]);
        assert_eq!(keys[0], keys[3], "one event listed twice is one event");
    }

    #[test]
    fn a_mistake_in_a_batch_names_its_key() {
        for (text, cure) in [
            ("items = \"header:x\"", "write \"json:PATH\""),
            ("items = \"json:a..b\"", "write it as"),
            ("event_id = \"item:id\"", "say where the list is"),
        ] {
            let spec: IdentitySpec = toml::from_str(text).expect("reads");
            let scheme = &preset("slack").expect("a preset").scheme;
            let error = Rules::new(&spec, scheme).expect_err(text);
            assert_eq!(error.key, "items");
            assert!(error.message.contains(cure), "{}", error.message);
        }
    }

    fn any_item() -> impl Strategy<Value = Value> {
        let text = prop_oneof!["[a-c]{0,3}", Just("]}\"\\{[,".to_owned())];
        prop_oneof![
            Just(json!(null)),
            any::<i64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
            (text, any::<u8>()).prop_map(|(x, id)| json!({ "x": [x, { "id": 0 }], "id": id })),
        ]
    }

    proptest! {
        #[test]
        fn items_are_those_of_the_whole_tree(
            list in prop::collection::vec(any_item(), 1..20),
            pretty in any::<bool>(),
        ) {
            let list = Value::from(list);
            let body = if pretty { format!("{list:#}") } else { list.to_string() };
            let items = split(&by_id(""), &body).expect("a batch");
            let parsed: Result<Vec<Value>, _> =
                items.iter().map(|(text, _)| serde_json::from_str(text)).collect();
            prop_assert_eq!(Value::from(parsed.expect("JSON")), list.clone());
            for ((_, id), item) in items.iter().zip(list.as_array().expect("a list")) {
                prop_assert_eq!(id.clone(), item.get("id").map(Value::to_string));
            }
        }

        #[test]
        fn a_list_cut_anywhere_is_no_batch(cut in 0_usize..40) {
            let body = r#"[{"id":"a","x":[1]},{"id":"b"},"]",3.5] "#;
            let whole = body.trim_end().len();
            let cut = cut.min(body.len());
            prop_assert_eq!(split(&by_id(""), &body[..cut]).is_some(), cut >= whole);
        }
    }
}
