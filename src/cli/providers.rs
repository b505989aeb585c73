//! `forebay providers`: which senders are built in, and what is known of each.
//!
//! Everything printed is from the presets, the data files that the server itself verifies by.
//! Exit codes: 0 done, 2 no such preset.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{keys, terminal};
use crate::config::duration_text;
use crate::verify::{self, Answers, Delivery, Family, Format, Profile};

/// What `providers` takes.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ProvidersArgs {
    /// The preset to show in full; without it all are listed
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the verb.
pub(super) fn run(args: &ProvidersArgs) -> ExitCode {
    let text = match (&args.name, args.json) {
        (None, false) => list_text(),
        (None, true) => format!("{:#}\n", verify::presets().map(short_json).collect::<Value>()),
        (Some(name), json) => match keys::preset(name) {
            Ok(profile) if json => format!("{:#}\n", full_json(profile)),
            Ok(profile) => full_text(profile),
            Err(why) => {
                terminal::warn(&format!("error: {why}"));
                return ExitCode::from(super::EXIT_USAGE);
            }
        },
    };
    terminal::print(text.as_bytes(), 0)
}

/// One line a sender.
fn list_text() -> String {
    let mut text = format!("{:<26}{:<12}{:<11}{}\n", "PRESET", "FAMILY", "TRIES FOR", "SENDER");
    let mut guessed = false;
    for profile in verify::presets() {
        let horizon = profile.delivery.horizon.map_or_else(|| "-".to_owned(), duration_text);
        let family = profile.family().to_string();
        let mark = if profile.unconfirmed.is_some() { " (unconfirmed)" } else { "" };
        guessed |= profile.unconfirmed.is_some();
        // Writing to a String cannot fail.
        _ = writeln!(text, "{:<26}{family:<12}{horizon:<11}{}{mark}", profile.name, profile.title);
    }
    text.push_str(
        "\nPatience: how long a sender tries again. `forebay providers NAME` says all.\n",
    );
    if guessed {
        text.push_str(
            "Unconfirmed: part of the recipe is a guess; try it with a captured request.\n",
        );
    }
    text
}

fn short_json(profile: &Profile) -> Value {
    json!({
        "name": profile.name,
        "title": profile.title,
        "family": profile.family(),
        "patience": profile.delivery.patience(),
        "unconfirmed": profile.unconfirmed,
    })
}

fn full_json(profile: &Profile) -> Value {
    let Answers { success_status, success_body, success_type, .. } = &profile.answers;
    let answers = &profile.answers;
    let delivery = &profile.delivery;
    let Value::Object(mut all) = short_json(profile) else { return Value::Null };
    let rest = json!({
        "references": profile.references,
        "content_types": profile.content_types,
        "scheme": table(profile, "scheme"),
        "identity": table(profile, "identity"),
        "answers": {
            "success_status": success_status.as_u16(),
            "success_body": String::from_utf8_lossy(success_body),
            "success_type": success_type.as_ref().and_then(|value| value.to_str().ok()),
            "bad_signature_status": answers.bad_signature_status.as_u16(),
            "unsigned_status": answers.unsigned_status().as_u16(),
            "cannot_verify_status": answers.cannot_verify_status.as_u16(),
            "retry_after_max": duration_text(answers.retry_after_max),
        },
        "delivery": {
            "timeout": delivery.timeout.map(duration_text),
            "horizon": delivery.horizon.map(duration_text),
            "attempts": delivery.attempts,
            "punishes": delivery.punishes,
            "ordered": delivery.ordered,
        },
        "notes": table(profile, "notes"),
        "config": snippet(profile),
    });
    if let Value::Object(rest) = rest {
        all.extend(rest);
    }
    Value::Object(all)
}

/// A table of the data file, as it stands there.
fn table(profile: &Profile, name: &str) -> Value {
    let file: toml::Table = toml::from_str(profile.text).unwrap_or_default();
    file.get(name).and_then(|table| serde_json::to_value(table).ok()).unwrap_or_else(|| json!({}))
}

/// The facts in two columns, under headings.
fn full_text(profile: &Profile) -> String {
    let mut text = Facts(format!("{}, preset {}\n\n", profile.title, profile.name));
    text.fact("family", &profile.family().to_string());
    if let Some(unconfirmed) = &profile.unconfirmed {
        text.fact("unconfirmed", unconfirmed);
    }
    text.fact("takes", &profile.content_types.join(", "));
    for reference in &profile.references {
        text.fact("reference", reference);
    }
    text.heading("how it signs");
    text.flat("", &table(profile, "scheme"));
    text.heading("where an event's identity is");
    text.flat("", &table(profile, "identity"));
    if profile.identity.event_id.is_none() {
        text.fact("event_id", "none: the event's key is made from the signed bytes");
    }
    answers_text(&mut text, &profile.answers);
    delivery_text(&mut text, &profile.delivery);
    text.heading("what else to know");
    text.flat("", &table(profile, "notes"));
    text.heading("in the configuration");
    text.0.push('\n');
    text.0.push_str(&snippet(profile));
    text.0
}

fn answers_text(text: &mut Facts, answers: &Answers) {
    text.heading("what it is answered");
    let body = String::from_utf8_lossy(&answers.success_body);
    let media = answers.success_type.as_ref().and_then(|value| value.to_str().ok());
    let success = [answers.success_status.as_str(), &body, media.unwrap_or_default()];
    let success: Vec<&str> = success.into_iter().filter(|part| !part.is_empty()).collect();
    text.fact("kept", &success.join(" "));
    text.fact("bad signature", answers.bad_signature_status.as_str());
    text.fact("unsigned", answers.unsigned_status().as_str());
    text.fact("cannot verify", answers.cannot_verify_status.as_str());
    text.fact("Retry-After", &format!("at most {}", duration_text(answers.retry_after_max)));
}

fn delivery_text(text: &mut Facts, delivery: &Delivery) {
    text.heading("how it tries");
    let unknown = || "not known".to_owned();
    text.fact("waits", &delivery.timeout.map_or_else(unknown, duration_text));
    text.fact("tries for", &delivery.horizon.map_or_else(unknown, duration_text));
    text.fact("attempts", &delivery.attempts.map_or_else(unknown, |count| count.to_string()));
    if delivery.ordered {
        text.fact("order", "later events wait behind the one in flight");
    }
    if delivery.punishes {
        text.fact("failures", "an endpoint that keeps failing is disabled");
    }
}

/// A source of this sender, to be copied.
fn snippet(profile: &Profile) -> String {
    let name = &profile.name;
    let variable = name.to_ascii_uppercase().replace('-', "_");
    let key_id = if profile.scheme.names_keys() { ", key_id = \"...\"" } else { "" };
    let signed = &profile.scheme.signed;
    let mut more = String::new();
    let url_sha256 = profile.scheme.jwt.as_ref().and_then(|jwt| jwt.url_sha256.as_ref());
    if url_sha256.is_some() || signed.iter().any(|part| part.starts_with("url")) {
        more.push_str("public_url = \"https://...\"\n");
    }
    let params = signed.iter().filter_map(|part| part.strip_prefix("param:"));
    let topic = (profile.scheme.format == Format::Sns).then_some("topic_arn");
    for param in params.chain(topic) {
        // Writing to a String cannot fail.
        _ = writeln!(more, "params.{param} = \"...\"");
    }
    let secret = if profile.family() == Family::PublicKey { "PUBLIC_KEY" } else { "SECRET" };
    format!(
        "[[source]]\nname = \"{name}\"\npath = \"/{name}\"\npreset = \"{name}\"\n{more}\
         secrets = [{{ name = \"main\", env = \"{variable}_{secret}\"{key_id} }}]\n"
    )
}

/// The text as it grows.
struct Facts(String);

impl Facts {
    fn heading(&mut self, heading: &str) {
        // Writing to a String cannot fail.
        _ = writeln!(self.0, "\n{heading}");
    }

    fn fact(&mut self, key: &str, value: &str) {
        _ = writeln!(self.0, "  {key:<20}  {value}");
    }

    /// A table with its keys joined by dots; of a list, all that is joined or tried in turn.
    fn flat(&mut self, prefix: &str, value: &Value) {
        match value {
            Value::Object(table) => {
                for (key, value) in table {
                    let dot = if prefix.is_empty() { "" } else { "." };
                    self.flat(&format!("{prefix}{dot}{key}"), value);
                }
            }
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(plain).collect();
                self.fact(prefix, &items.join(" + "));
            }
            value => self.fact(prefix, &plain(value)),
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), |text| text.replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identify::RuleText;

    #[test]
    fn every_preset_is_listed_and_told_in_full() {
        let list = list_text();
        for profile in verify::presets() {
            let line = list.lines().find(|line| line.starts_with(&format!("{} ", profile.name)));
            let line = line.unwrap_or_else(|| panic!("{} is not listed", profile.name));
            assert!(line.contains(&profile.title), "{line}");
            assert_eq!(line.contains("(unconfirmed)"), profile.unconfirmed.is_some(), "{line}");
            let full = full_text(profile);
            for heading in ["how it signs", "what it is answered", "how it tries"] {
                assert!(full.contains(heading), "{full}");
            }
            assert_eq!(full.contains("unconfirmed "), profile.unconfirmed.is_some(), "{full}");
            let json = full_json(profile);
            assert!(json["scheme"].as_object().is_some_and(|scheme| !scheme.is_empty()));
            assert_eq!(json["name"], profile.name.as_str());
        }
    }

    #[test]
    fn every_preset_says_what_its_users_must_know() {
        for profile in verify::presets() {
            let name = &profile.name;
            let guessed = profile.unconfirmed.is_some();
            assert!(guessed || !profile.references.is_empty(), "{name} has no reference");
            assert!(profile.references.iter().all(|url| url.starts_with("https://")), "{name}");
            assert!(profile.notes.answer.is_some() && profile.notes.retry.is_some(), "{name}");
        }
    }

    const GUIDE: &str = include_str!("../verify/presets/README.md");

    /// The row of a sender in the guide.
    fn row(profile: &Profile) -> String {
        let Profile { name, title, scheme, identity, delivery, answers, .. } = profile;
        let mark = if profile.unconfirmed.is_some() { ", unconfirmed" } else { "" };
        let place = match (&*scheme.header, &scheme.query, profile.family()) {
            ("", Some(query), _) => format!("parameter `{query}`"),
            ("", None, Family::Basic) => "`Authorization`".to_owned(),
            ("", None, _) => "in the body".to_owned(),
            (header, ..) => format!("`{header}`"),
        };
        let key = match identity.event_key.as_ref().or(identity.event_id.as_ref()) {
            None => "digest".to_owned(),
            Some(RuleText::One(rule)) => short(rule),
            Some(RuleText::Joined(rules)) => {
                rules.iter().map(|rule| short(rule)).collect::<Vec<_>>().join(" + ")
            }
        };
        let horizon = delivery.horizon.map_or_else(|| "-".to_owned(), duration_text);
        let (family, success) = (profile.family(), answers.success_status.as_u16());
        format!("| {title}{mark} | `{name}` | {family} | {place} | {key} | {horizon} | {success} |")
    }

    /// The first place of a rule, without what kind of place it is.
    fn short(rule: &str) -> String {
        let first = rule.split('|').next().unwrap_or(rule).trim();
        first.split_once(':').map_or(first, |(_, place)| place).to_owned()
    }

    #[test]
    fn the_guide_lists_every_sender_as_it_is() {
        let head = "| Sender | Preset | Family | Proof | Key | Tries for | Success |\n\
                    |---|---|---|---|---|---|---|\n";
        let rows: Vec<String> = verify::presets().map(row).collect();
        let table = format!("{head}{}\n", rows.join("\n"));
        let (_, rest) = GUIDE.split_once("data files -->\n\n").expect("the table begins");
        let (found, _) = rest.split_once("\n<!-- end -->").expect("the table ends");
        assert_eq!(found, table, "the table should be:\n{table}");
    }

    #[test]
    fn the_sources_of_the_guide_are_good() {
        let blocks = GUIDE.split("```toml\n").skip(1).filter_map(|text| text.split("```").next());
        let mut count = 0;
        for block in blocks {
            let source: toml::Table = toml::from_str(block).expect(block);
            let source = source["source"][0].as_table().expect("a source");
            let name = source["preset"].as_str().expect("a preset");
            let profile = verify::preset(name).expect(name);
            let secret = source["secrets"][0].as_table().expect("a secret");
            assert_eq!(secret.contains_key("key_id"), profile.scheme.names_keys(), "{name}");
            count += 1;
        }
        assert_eq!(count, 6, "one for each family");
    }

    #[test]
    fn the_answers_of_a_sender_are_told_as_they_will_be_given() {
        let agora = full_text(verify::preset("agora").expect("a preset"));
        assert!(agora.contains("200 {} application/json"), "{agora}");
        let livekit = full_json(verify::preset("livekit").expect("a preset"));
        assert_eq!(livekit["delivery"]["horizon"], "30s");
        assert_eq!(livekit["answers"]["unsigned_status"], 401);
        assert!(livekit["config"].as_str().is_some_and(|text| text.contains("key_id")));
    }
}
