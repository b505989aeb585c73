//! What no sink may see of an event: places in its JSON, and headers.
//!
//! What is found is replaced by a text that says so. Only an object's member is a place; a list on
//! the way is walked through, so that `json:users.email` is the e-mail of each of the users, and
//! `*` stands for every member.

use std::borrow::Cow;

use jaq_json::{Rc, Val};

use super::jq;
use super::row::{Row, Value};

/// Stands where something was.
const REDACTED: &str = "[redacted]";

/// Compiled rules.
#[derive(Clone, Debug, Default)]
pub(super) struct Redact {
    paths: Vec<Vec<Box<str>>>,
    headers: Vec<Box<str>>,
}

impl Redact {
    /// Reads `json:PATH` and `header:NAME`; the error says what is wrong with a rule.
    pub(super) fn new(rules: &[String]) -> Result<Self, String> {
        let mut redact = Self::default();
        for rule in rules {
            match rule.split_once(':') {
                Some(("json", path)) if path.split('.').all(|word| !word.is_empty()) => {
                    redact.paths.push(path.split('.').map(Box::from).collect());
                }
                Some(("header", name)) if !name.is_empty() => {
                    redact.headers.push(name.to_ascii_lowercase().into());
                }
                _ => return Err(format!("holds \"{rule}\", which is no rule")),
            }
        }
        Ok(redact)
    }

    /// The body without what is redacted: as it is where nothing was found. A body in which
    /// nothing can be looked for is not let through.
    pub(super) fn body<'b>(&self, body: &'b [u8]) -> Result<Cow<'b, [u8]>, &'static str> {
        if self.paths.is_empty() {
            return Ok(Cow::Borrowed(body));
        }
        let mut value = jq::value_of(body)?;
        // The reader knows more than JSON does.
        serde_json::from_slice::<&serde_json::value::RawValue>(body).map_err(|_| "is not JSON")?;
        let mut found = false;
        for path in &self.paths {
            found |= replace(&mut value, path);
        }
        Ok(if found { Cow::Owned(value.to_string().into_bytes()) } else { Cow::Borrowed(body) })
    }

    /// The same for the headers of a row.
    pub(super) fn headers(&self, row: &mut Row<'_>) {
        for (name, value) in &mut row.headers {
            if self.headers.iter().any(|known| name.eq_ignore_ascii_case(known)) {
                *value = Value::Text(REDACTED);
            }
        }
    }
}

/// Whether anything was replaced.
fn replace(value: &mut Val, path: &[Box<str>]) -> bool {
    match value {
        Val::Arr(list) => {
            Rc::make_mut(list).iter_mut().fold(false, |found, value| replace(value, path) | found)
        }
        Val::Obj(object) => {
            let Some((word, rest)) = path.split_first() else { return false };
            let key = Val::utf8_str(word.to_string());
            let members = Rc::make_mut(object).iter_mut();
            members.fold(false, |found, (name, value)| {
                let meant = **word == *"*" || *name == key;
                let replaced =
                    meant && (!rest.is_empty() && replace(value, rest) || rest.is_empty());
                if replaced && rest.is_empty() {
                    *value = Val::utf8_str(REDACTED);
                }
                found | replaced
            })
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(rules: &[&str], body: &str) -> Result<String, &'static str> {
        let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
        let redact = Redact::new(&rules).expect("good rules");
        redact.body(body.as_bytes()).map(|body| String::from_utf8_lossy(&body).into_owned())
    }

    #[test]
    fn what_is_named_is_replaced_wherever_it_stands() {
        let rules = ["json:user.email", "json:items.card.*", "json:note"];
        assert_eq!(
            redacted(&rules, r#"{"user":{"email":"a@b","id":1},"items":[{"card":{"n":1,"c":[2]}},{"x":1}],"note":{"deep":[1]}}"#),
            Ok(r#"{"user":{"email":"[redacted]","id":1},"items":[{"card":{"n":"[redacted]","c":"[redacted]"}},{"x":1}],"note":"[redacted]"}"#.to_owned())
        );
        assert_eq!(
            redacted(&rules, r#"[{"note":1},[{"note":2}]]"#),
            Ok(r#"[{"note":"[redacted]"},[{"note":"[redacted]"}]]"#.to_owned())
        );
        // A name that stands twice is replaced twice or goes.
        let twice = redacted(&rules, r#"{"note":"canary","note":"canary","n\u006fte":"canary"}"#);
        assert!(!twice.expect("is JSON").contains("canary"));
    }

    #[test]
    fn a_body_without_any_of_it_stays_as_it_is() {
        let body = "{ \"user\" : \"me\", \"big\": 12345678901234567890.50 }";
        assert_eq!(redacted(&["json:user.email"], body), Ok(body.to_owned()));
        assert_eq!(redacted(&["header:authorization"], "no json"), Ok("no json".to_owned()));
    }

    #[test]
    fn a_body_in_which_nothing_can_be_found_is_not_let_through() {
        for body in ["email=a", "{\"user\":", "NaN", "# c\n{}", ""] {
            assert_eq!(redacted(&["json:user.email"], body), Err("is not JSON"), "{body}");
        }
    }

    #[test]
    fn a_rule_that_names_nothing_is_refused() {
        for rule in ["user.email", "json:", "json:a..b", "header:", "body:x", ""] {
            Redact::new(&[rule.to_owned()]).expect_err(rule);
        }
    }
}
