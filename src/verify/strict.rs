//! Whether two JSON texts say the same, and say it once.
//!
//! Keys may stand in any order and numbers be written in any way, but no key may stand twice: of
//! two values each reader could believe another one.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Whether both are JSON without doubled keys, and equal.
pub(super) fn same_json(one: &[u8], other: &[u8]) -> bool {
    let read = |text| serde_json::from_slice::<Strict>(text).ok();
    match (read(one), read(other)) {
        (Some(one), Some(other)) => one.0 == other.0,
        _ => false,
    }
}

/// A value in which no key stands twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Read).map(Self)
    }
}

struct Read;

impl<'de> Visitor<'de> for Read {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, Strict(value))) = map.next_entry()? {
            if object.insert(key, value).is_some() {
                return Err(A::Error::custom("a key stands twice"));
            }
        }
        Ok(object.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(truth.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_white_space_do_not_matter_and_values_do() {
        let same = |one: &str, other: &str| same_json(one.as_bytes(), other.as_bytes());
        let one = r#"{"a":[1,-2,null,true,0.5,"\u00e9"],"b":{"c":"x"}}"#;
        assert!(same(
            one,
            "{ \"b\": {\"c\":\"x\"},\n\"a\": [1, -2, null, true, 5e-1, \"\u{e9}\"] }"
        ));
        for other in [
            r#"{"a":[1,-2,null,true,0.5,"e"],"b":{"c":"x"}}"#,
            r#"{"a":[1,-2,null,true,0.5,"\u00e9"],"b":{"c":"x"},"d":1}"#,
            r#"{"a":[1,-2,null,true,0.5,"\u00e9"],"b":{"c":"y","c":"x"}}"#,
            r#"{"a":[-2,1,null,true,0.5,"\u00e9"],"b":{"c":"x"}}"#,
            "",
            "{",
        ] {
            assert!(!same(one, other) && !same(other, one), "{other}");
        }
        assert!(!same(r#"{"a":1,"a":1}"#, r#"{"a":1,"a":1}"#), "of two each may be believed");
    }
}
