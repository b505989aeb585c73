//! What is refused, in the words that the user reads.

use proptest::prelude::*;

use super::*;

/// The report of a configuration that must be refused, without its secrets.
#[track_caller]
pub(super) fn bad(text: &str, environment: &[(&str, &str)]) -> String {
    let report = load_with(text, environment).expect_err("must be refused").to_string();
    assert!(!report.contains("canary"), "a secret is shown:\n{report}");
    report
}

/// The same with a line of the least configuration replaced.
#[track_caller]
fn bad_line(line: &str, replacement: &str) -> String {
    assert!(LEAST.contains(line), "no such line");
    bad(&LEAST.replace(line, replacement), &[])
}

/// Prints what a refusal looks like and compares it.
#[track_caller]
fn reads(report: &str, expected: &str) {
    assert_eq!(report, expected.trim_matches('\n'), "the report is now:\n{report}\n");
}

#[test]
fn a_mistyped_key_is_underlined_and_its_neighbour_named() {
    reads(
        &bad_line("name = \"main\"", "name = \"main\"\nsegment_siz = \"1MiB\""),
        r#"
error: unknown key `lane.segment_siz`
 --> etc/forebay.toml:4:1
  |
4 | segment_siz = "1MiB"
  | ^^^^^^^^^^^ no such key
  |
  = help: did you mean `segment_size`?
"#,
    );
}

#[test]
fn a_variable_is_named_as_the_origin() {
    reads(
        &bad(LEAST, &[("FOREBAY_RECEIVE__HEAD_TIMEOUT", "5 parsecs")]),
        r#"
error: `receive.head_timeout` does not fit: unknown time unit "parsecs"
 --> environment:1:33
  |
1 | FOREBAY_RECEIVE__HEAD_TIMEOUT = "5 parsecs"
  |                                 ^^^^^^^^^^^
  |
  = help: write a duration from "10ms" to "1h", a number and a unit: "250ms", "5s", "72h"
"#,
    );
}

#[test]
fn a_mistyped_variable_is_no_silence_and_does_not_show_its_value() {
    reads(
        &bad(LEAST, &[("FOREBAY_SOURCE__HUB_EU__SECRET__A", CANARY)]),
        r#"
error: the variable `FOREBAY_SOURCE__HUB_EU__SECRET__A` overrides no key
 --> environment:1:1
  |
1 | FOREBAY_SOURCE__HUB_EU__SECRET__A = "***"
  | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ no such key
  |
  = help: did you mean `FOREBAY_SOURCE__HUB_EU__SECRETS__A`?
"#,
    );
    let mistyped = [
        ("FOREBAY_DATADIR", "`FOREBAY_DATA_DIR`"),
        ("FOREBAY_RECIEVE__LISTEN", "`FOREBAY_RECEIVE__LISTEN`"),
        ("FOREBAY_LANE__MIAN__ACK", "`FOREBAY_LANE__MAIN__ACK`"),
        ("FOREBAY_SOURCE__HUB_EU__SECRETS__B", "`FOREBAY_SOURCE__HUB_EU__SECRETS__A`"),
    ];
    for (variable, meant) in mistyped {
        let report = bad(LEAST, &[(variable, "canary")]);
        assert!(report.contains(&format!("did you mean {meant}?")), "{report}");
    }
}

#[test]
fn what_is_not_toml_is_shown_without_its_secrets() {
    reads(
        &bad(&LEAST.replace("}]", "]"), &[]),
        r#"
error: not TOML: invalid inline table element, expected `,`
 --> etc/forebay.toml:8:64
  |
8 | secrets = [{ **** = "*"* ***** = "***************************" ]
  |                                                                ^
  |
  = help: correct the place, or see https://toml.io for how TOML is written
"#,
    );
}

#[test]
fn a_time_that_is_none_is_refused_and_the_secret_beside_it_not_shown() {
    let secret = "value = \"canary-canary-canary-canary\"";
    for (time, what) in [
        ("not_after = \"tomorrow\"", "it is no moment since 1970"),
        ("not_after = \"2026-01-01\"", "it is no moment since 1970"),
        ("not_after = \"1969-01-01T00:00:00Z\"", "it is no moment since 1970"),
        ("not_before = 1700000000", "it is an integer"),
        (
            "not_before = 2026-01-02T00:00:00Z, not_after = 2026-01-01T00:00:00Z",
            "is not after `not_before`",
        ),
    ] {
        let report = bad(&LEAST.replace(secret, &format!("{secret}, {time}")), &[]);
        assert!(report.contains(what), "{time}:\n{report}");
        assert!(report.contains(time), "the time is no secret:\n{report}");
    }
}

#[test]
fn a_handshake_or_an_answer_that_cannot_be_is_underlined() {
    for (line, what) in [
        ("answers = { success_status = 404 }", "404 is no such status"),
        ("answers = { sucess_status = 200 }", "did you mean `success_status`?"),
        ("handshakes = [{ name = \"a\" }]", "missing field `answer`"),
        (
            "handshakes = [{ name = \"a\", answer = { kind = \"echo\", from = \"x\" } }]",
            "`a` \"x\" is no place",
        ),
        ("verify_token = { value = \"short\" }", "too short a token"),
        ("verify_token = { env = \"UNSET\" }", "`UNSET`, which is not set"),
        ("verify_token = {}", "`source.verify_token.env` is missing"),
    ] {
        let report = bad(&format!("{LEAST}{line}\n"), &[]);
        assert!(report.contains(what), "{line}:\n{report}");
    }
}

#[test]
fn a_layer_that_would_not_hold_is_refused() {
    for (line, what) in [
        ("allow_from = [\"10.0.0.0/33\"]", "holds \"10.0.0.0/33\", which is no network"),
        ("allow_from = [\"example.com\"]", "which is no network"),
        ("allow_from = \"10.0.0.0/8\"", "it is not a list of texts"),
        ("path_token = { value = \"canary-canary-canary-canary\" }", "has no place in `path`"),
        ("expect = { \"body\" = \"x\" }", "is no place"),
        ("expect = { \"json:a\" = 1 }", "`source.expect` does not fit"),
        (
            "client_certificate = { header = \"x-cert\", values = [\"CN=a\"] }",
            "name it in `receive.trusted_proxies`",
        ),
    ] {
        let report = bad(&format!("{LEAST}{line}\n"), &[]);
        assert!(report.contains(what), "{line}:\n{report}");
    }
    let hidden = LEAST.replace("\"/hub\"", "\"/hub/{token}\"");
    let report = bad(&hidden, &[]);
    assert!(report.contains("`source.path_token` is missing"), "{report}");
    for token in ["canary", "canary-canary-canary", "canary/canary/canary/canary"] {
        let report = bad(&format!("{hidden}path_token = {{ value = \"{token}\" }}\n"), &[]);
        assert!(report.contains("path_token"), "{report}");
    }
    let twice = LEAST.replace("\"/hub\"", "\"/{token}/{token}\"");
    assert!(bad(&twice, &[]).contains("characters that no path has"));
    let report = bad(&format!("receive.proxy_header = \"proxy-protocol\"\n{LEAST}"), &[]);
    assert!(report.contains("`receive.trusted_proxies` is missing"), "{report}");
}

#[test]
fn every_mistake_of_a_file_is_named_at_once() {
    let report = bad(
        r#"
        data_dir = 1
        [receive]
        listen = "localhost:80"
        receivers = "4"
        driver = "epol"
        body_max = 1048576
        idle_timeout = "30"
        [[lane]]
        name = "Main"
        ack = "sync"
        segment_size = "1KiB"
        [[source]]
        name = "s"
        path = "hook"
        preset = "gitub"
        secrets = [{ name = "a", value = "canary" }, { name = "a" }]
        "#,
        &[],
    );
    for line in [
        "`data_dir` does not fit: it is an integer",
        "`receive.listen` is no address",
        "`receive.receivers` does not fit: it is a string",
        "`receive.driver` knows no \"epol\"",
        "did you mean \"epoll\"?",
        "`receive.body_max` does not fit: it is an integer",
        "`receive.idle_timeout` does not fit: the unit is missing",
        "`lane.name` is no name",
        "`lane.ack` does not fit: it knows no \"sync\"",
        "`lane.segment_size` does not fit: it is out of bounds",
        "`source.path` does not start with `/`",
        "`source.preset` names no preset",
        "did you mean \"github\"?",
        "`source.secrets.name` \"a\" is taken",
        "`source.secrets.env` is missing",
    ] {
        assert!(report.contains(line), "{line}\n{report}");
    }
}

#[test]
fn what_is_missing_is_said_with_what_to_write() {
    reads(
        &bad("", &[]),
        r#"
error: `data_dir` is missing
--> etc/forebay.toml
 = help: add data_dir = "/var/lib/forebay", or set FOREBAY_DATA_DIR

error: `lane` is missing
--> etc/forebay.toml
 = help: add a lane:
         [[lane]]
         name = "main"

error: `source` is missing
--> etc/forebay.toml
 = help: add a source:
         [[source]]
         name = "github"
         path = "/github"
         preset = "github"
         secrets = [{ name = "main", env = "GITHUB_SECRET" }]
"#,
    );
    let error = load(Path::new("/nonexistent/forebay.toml"), []).unwrap_err().to_string();
    assert!(error.contains("cannot read `/nonexistent/forebay.toml`"), "{error}");
}

#[test]
fn a_source_is_never_started_unverified() {
    let report = bad_line("preset = \"github\"", "");
    assert!(report.contains("`source.preset` is missing"), "{report}");
    assert!(report.contains("an unverified source is never started"), "{report}");
    let secrets = "secrets = [{ name = \"a\", value = \"canary-canary-canary-canary\" }]";
    for none in ["", "secrets = []"] {
        let report = bad_line(secrets, none);
        assert!(report.contains("`source.secrets` is missing"), "{report}");
    }
    let report = bad_line(secrets, "secrets = \"canary-canary-canary-canary\"");
    assert!(report.contains("`source.secrets` is a string, not a list of tables"), "{report}");
    let report = bad_line(secrets, "secret = [{ name = \"a\", value = \"canary\" }]");
    assert!(report.contains("did you mean `secrets`?"), "{report}");
}

#[test]
fn a_secret_that_cannot_be_had_stops_the_start() {
    reads(
        &bad_line("value = \"canary-canary-canary-canary\"", "env = \"HUB_SECRET\""),
        r#"
error: `source.secrets.env` names the variable `HUB_SECRET`, which is not set
 --> etc/forebay.toml:8:32
  |
8 | secrets = [{ name = "a", env = "HUB_SECRET" }]
  |                                ^^^^^^^^^^^^
  |
  = help: set HUB_SECRET in forebay's environment
"#,
    );
    let report = bad_line("value = \"canary-canary-canary-canary\"", "file = \"/nonexistent\"");
    assert!(report.contains("`source.secrets.file` names `/nonexistent`"), "{report}");
    let report = bad_line("canary-canary-canary-canary", "canary-short");
    assert!(report.contains("`source.secrets.value` holds too short a secret"), "{report}");
    let report = bad_line("canary-canary-canary-canary", " canary-canary-canary");
    assert!(report.contains("white space"), "{report}");
    let report = bad_line("value =", "env = \"X\", value =");
    assert!(report.contains("is a second origin of one secret"), "{report}");
}

#[test]
fn who_only_reads_the_log_needs_no_secret() {
    let text = LEAST.replace("value = \"canary-canary-canary-canary\"", "env = \"HUB_SECRET\"");
    assert!(load_with(&text, &[]).is_err());
    let path = Path::new("forebay.toml");
    let kept = parse(path, &text, &BTreeMap::new(), read_kept).unwrap();
    assert_eq!((kept.data_dir.as_path(), kept.lanes.len()), (Path::new("data"), 1));
}

#[test]
fn sandbox_and_production_never_share_a_lane() {
    let two = format!(
        "{LEAST}[[source]]\nname = \"b\"\npath = \"/b\"\npreset = \"github\"\n\
         environment = \"sandbox\"\nsecrets = [{{ name = \"a\", value = \"{CANARY}\" }}]\n"
    );
    reads(
        &bad(&two, &[]),
        r#"
error: `source.environment` is "sandbox", but lane "main" takes "production"
  --> etc/forebay.toml:13:15
   |
 4 | [[source]]
   | ---------- "production" came first
...
13 | environment = "sandbox"
   |               ^^^^^^^^^ of another environment
   |
   = help: give it a lane of its own: add [[lane]] name = "sandbox", and here lane = "sandbox"
"#,
    );
    let own_lane =
        two.replace("[[source]]\nname = \"b\"", "[[source]]\nname = \"b\"\nlane = \"c\"");
    let own_lane = own_lane.replacen("[[lane]]", "[[lane]]\nname = \"c\"\n[[lane]]", 1);
    let report = bad(&own_lane, &[]);
    assert!(report.contains("say which lane takes the events: \"c\", \"main\""), "{report}");
    good(&own_lane.replace("path = \"/hub\"", "path = \"/hub\"\nlane = \"main\""), &[]);
}

#[test]
fn two_of_a_name_or_a_path_are_shown_together() {
    let twice = format!("{LEAST}{}", &LEAST[LEAST.find("[[source]]").unwrap()..]);
    let report = bad(&twice, &[]);
    assert!(report.contains("`source.name` \"hub-eu\" is taken"), "{report}");
    assert!(report.contains("`source.path` \"/hub\" is taken"), "{report}");
    let report = bad_line("[[lane]]", "[[lane]]\nname = \"main\"\n[[lane]]");
    assert!(report.contains("`lane.name` \"main\" is taken"), "{report}");
}

#[test]
fn the_log_holds_what_is_remembered() {
    reads(
        &bad_line("name = \"main\"", "name = \"main\"\nretention = { age = \"24h\" }"),
        r#"
error: `lane.retention.age` is shorter than `lane.dedupe_window`
 --> etc/forebay.toml:4:21
  |
4 | retention = { age = "24h" }
  |                     ^^^^^
  |
  = help: the log must hold the window, because the memory of events is rebuilt from it: raise retention.age to "72h", or lower dedupe_window to "24h"
"#,
    );
    let config =
        good(&LEAST.replace("name = \"main\"", "name = \"main\"\ndedupe_window = \"500h\""), &[]);
    assert_eq!(config.lanes[0].retention_age, config.lanes[0].dedupe_window);
    for (line, key, what) in [
        ("retention.size = \"200MiB\"", "lane.retention.size", "holds fewer than two segments"),
        ("segment_size = \"1MiB\"", "lane.segment_size", "is too small for the bodies"),
    ] {
        let report = bad_line("name = \"main\"", &format!("name = \"main\"\n{line}"));
        assert!(report.contains(&format!("`{key}` {what}")), "{report}");
    }
}

#[test]
fn a_mistake_inside_a_scheme_is_underlined_there() {
    let text = LEAST.replace("preset = \"github\"\n", "");
    reads(
        &bad(&format!("{text}[source.scheme]\nalgorithm = \"hmac-sha256\"\nhaeder = \"x\""), &[]),
        r#"
error: `source.scheme` does not fit: unknown field `haeder`
  --> etc/forebay.toml:10:1
   |
10 | haeder = "x"
   | ^^^^^^
   |
   = help: did you mean `header`?
"#,
    );
    let scheme = "[source.scheme]\nalgorithm = \"hmac-sha256\"\nheader = \"x\"\nsigned = [\"bdy\"]\n\
                  signature_encoding = \"hex\"";
    let report = bad(&format!("{text}{scheme}"), &[]);
    assert!(report.contains("`source.scheme.signed"), "{report}");
    assert!(report.contains("etc/forebay.toml:11:"), "{report}");
    let report = bad(LEAST, &[("FOREBAY_SOURCE__HUB_EU__EVENT_ID", "jsn:id")]);
    assert!(report.contains("`source.event_id`: \"jsn:id\" is not a rule"), "{report}");
}

#[test]
fn a_tolerance_stays_below_half_of_the_window() {
    let report = bad_line("preset = \"github\"", "preset = \"stripe\"\ntolerance = \"40h\"");
    assert!(report.contains("is more than half of the lane's `dedupe_window`"), "{report}");
    assert!(report.contains("raise dedupe_window of lane \"main\" to \"80h\""), "{report}");
}

#[test]
fn colours_are_only_for_terminals() {
    let error = load_with("", &[]).unwrap_err();
    assert!(!error.render(false).contains('\u{1b}'));
    assert!(error.render(true).contains('\u{1b}'));
    assert_eq!(error.count(), 3);
}

#[test]
fn a_program_is_told_the_same_as_a_person() {
    let error = load_with(LEAST, &[("FOREBAY_RECEIVE__LISTEN", "x")]).unwrap_err();
    let told: Vec<ToldProblem<'_>> = error.problems().collect();
    assert_eq!(told[0].origin, "FOREBAY_RECEIVE__LISTEN");
    assert_eq!((told[0].line, told[0].column), (None, None));
    let error = load_with(&LEAST.replace("/hub", "hub"), &[]).unwrap_err();
    let told: Vec<ToldProblem<'_>> = error.problems().collect();
    assert_eq!((told[0].origin, told[0].line), ("etc/forebay.toml", Some(6)));
    assert_eq!(told[0].column, Some(8));
}

#[test]
fn a_secret_is_in_nothing_that_is_printed() {
    let config = good(LEAST, &[("FOREBAY_RECEIVE__RECEIVERS", "1")]);
    assert!(!format!("{config:?}{config:#?}").contains("canary"));
    // Each of these is wrong somewhere near the secret.
    for (from, to) in [
        ("value =", "valeu ="),
        ("secrets =", "secret ="),
        ("secrets = [{ name = \"a\", value = \"", "password = [{ a = \""),
        ("}]", ", x = 1 }]"),
        ("}]", "}"),
        ("\" }]", " }]"),
        ("[{ name = \"a\", value = ", ""),
        ("name = \"a\"", "name = \"A\""),
        ("value = \"", "value = \"x\ny"),
        ("value = \"", "value = \"\"\"x\ny\"\"\" canary \"\"\""),
        ("value = \"canary-canary-canary-canary\"", "value = \"\"\"\ncanary\ncanary\"\"\", y = 1"),
        ("value = \"canary-canary-canary-canary\"", "value = [\"canary\"]"),
        ("value = \"canary-canary-canary-canary\"", "value = { of = \"canary\" }"),
        ("value = \"canary-canary-canary-canary\"", "value.canary.x = 'canary'"),
    ] {
        if to.contains("value.canary") {
            // A key is no secret; only its value is.
            let report = load_with(&LEAST.replace(from, to), &[]).unwrap_err().to_string();
            assert!(!report.contains("'canary'"), "{report}");
        } else {
            bad(&LEAST.replace(from, to), &[]);
        }
    }
}

#[test]
fn what_confirms_by_itself_is_of_sns_and_its_way_out_is_one() {
    reads(
        &bad_line("preset = \"github\"", "preset = \"github\"\nconfirm = \"auto\""),
        r#"
error: `source.confirm`: "auto" follows what Amazon SNS signs and nothing else
 --> etc/forebay.toml:8:11
  |
8 | confirm = "auto"
  |           ^^^^^^
  |
  = help: remove it
"#,
    );
    for proxy in ["10.0.0.1:3128", "https://a.b", "http://u:canary@a.b", "http://a.b/c", "http:"] {
        let report = bad(&format!("{LEAST}[outgoing]\nproxy = \"{proxy}\""), &[]);
        assert!(report.contains("`outgoing.proxy` is no proxy"), "{report}");
    }
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys");
    for (file, what) in [
        ("/none.pem", "cannot be read"),
        ("/rsa-public.pem", "holds no certificates"),
        ("/families.toml", "holds no certificates"),
    ] {
        let report = bad(&format!("{LEAST}[outgoing]\nca_file = \"{keys}{file}\""), &[]);
        assert!(report.contains("`outgoing.ca_file`") && report.contains(what), "{report}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_load_panic(text in "\\PC{0,200}|[a-z.=\\[\\]{}\"', \n0-9#\\\\]{0,200}") {
        _ = load_with(&text, &[]).map_err(|error| error.render(true));
    }

    #[test]
    fn no_change_of_a_good_text_makes_load_panic(
        place in 0..LEAST.len(),
        cut in 0..40_usize,
        insert in "\\PC{0,6}|[=\\[\\]{}\"'\n.,]{0,6}",
        name in "(RECEIVE__|LANE__MAIN__|SOURCE__HUB_EU__|SOURCE__HUB_EU__SECRETS__|SOURCE__HUB_EU__SCHEME__)[A-Z_]{0,9}",
        value in "\\PC{0,20}",
    ) {
        let mut text = LEAST.to_owned();
        text.replace_range(place..(place + cut).min(LEAST.len()), &insert);
        let name = format!("FOREBAY_{name}");
        _ = load_with(&text, &[(&name, &value)]).map_err(|error| {
            error.problems().count() + error.render(false).len()
        });
    }
}
