//! Expressions do what jq does, and stop where they must.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use super::*;

fn run(text: &str, input: &str) -> Result<Vec<String>, RunError> {
    let program = Program::compile(text).unwrap_or_else(|what| panic!("{text}: {what}"));
    let outputs = program.run(value_of(input.as_bytes()).unwrap(), 1000)?;
    Ok(outputs.iter().map(ToString::to_string).collect())
}

#[track_caller]
fn yields(text: &str, input: &str, expected: &[&str]) {
    assert_eq!(run(text, input).unwrap(), expected, "{text}");
}

#[test]
fn the_language_is_what_its_users_know() {
    yields(".a.b", r#"{"a":{"b":7}}"#, &["7"]);
    yields(".[] | select(.x > 1) | .x * 100", r#"[{"x":1},{"x":2}]"#, &["200"]);
    yields("{a, b: .c.d, \"e\\(.a)\": 1}", r#"{"a":1,"c":{"d":2}}"#, &[r#"{"a":1,"b":2,"e1":1}"#]);
    yields("to_entries | map(.key) | join(\"-\")", r#"{"x":1,"y":2}"#, &["\"x-y\""]);
    yields("reduce .[] as $n (0; . + $n)", "[1,2,3]", &["6"]);
    yields("[foreach .[] as $n (0; . + $n)]", "[1,2,3]", &["[1,3,6]"]);
    yields("def f($n): if $n < 2 then 1 else $n * f($n - 1) end; f(5)", "null", &["120"]);
    yields("del(.a) | .b *= 2 | .c += 1", r#"{"a":1,"b":2}"#, &[r#"{"b":4,"c":1}"#]);
    yields("[.. | numbers]", r#"{"a":[1,{"b":2}]}"#, &["[1,2]"]);
    yields("(.a, .b) |= ascii_upcase", r#"{"a":"x","b":"y"}"#, &[r#"{"a":"X","b":"Y"}"#]);
    yields(".. |= (if type == \"number\" then . + 1 else . end)", "[1,[2]]", &["[2,[3]]"]);
    yields("walk(if type == \"string\" then length else . end)", r#"["ab"]"#, &["[2]"]);
    yields("test(\"^a+$\"), sub(\"a\"; \"b\")", "\"aa\"", &["true", "\"ba\""]);
    yields("try error(\"x\") catch .", "null", &["\"x\""]);
    yields(".a? // \"none\"", "[]", &["\"none\""]);
    yields("fromjson | .a", r#""{\"a\":1}""#, &["1"]);
    yields("[limit(3; repeat(1))]", "null", &["[1,1,1]"]);
    yields("label $out | .[] | if . > 1 then ., break $out else . end", "[1,2,3]", &["1", "2"]);
    yields("\"ab\" * 3", "null", &["\"ababab\""]);
    yields(". as {a: $x, b: [$y]} | [$x, $y]", r#"{"a":1,"b":[2]}"#, &["[1,2]"]);
    yields("@base64, @uri \"x=\\(.)\"", "\"a b\"", &["\"YSBi\"", "\"x=a%20b\""]);
    yields("[paths]", r#"{"a":[1]}"#, &[r#"[["a"],["a",0]]"#]);
    yields("path(.a[] | select(. > 1))", r#"{"a":[1,2]}"#, &[r#"["a",1]"#]);
    // A number keeps its digits.
    yields(".", "12345678901234567890123.10", &["12345678901234567890123.10"]);
}

#[test]
fn a_call_that_stands_last_takes_no_stack() {
    yields("[range(20000)] | length", "null", &["20000"]);
    yields("def f: if . < 20000 then . + 1 | f else . end; 0 | f", "null", &["20000"]);
    yields("0 | until(. >= 20000; . + 1)", "null", &["20000"]);
}

#[test]
fn what_does_not_end_is_stopped_and_cannot_catch_that() {
    for text in [
        "def f: f; f",
        "repeat(1) | empty",
        "[repeat(1)]",
        "[range(1e15)] | length",
        "range(1e15) | select(. < 0)",
        "reduce range(1e15) as $i (0; . + 1)",
        "last(range(1e15))",
        "[.[] as $a | .[] as $b | .[] as $c | .[] as $d | $a + $b + $c + $d]",
        "[.[] + .[] + .[] + .[] + .[]] | length",
        "until(false; .)",
        "[recurse([.])] | length",
        "(1,1)|(1,1)|(1,1)|(1,1)|(1,1)|(1,1)|(1,1)|(1,1)|(1,1)|(1,1)|(1,1)|(1,1)|(1,1)|(1,1)|(1,1)|(1,1)|(1,1)|(1,1)|(1,1)|(1,1)|(1,1)|(1,1)|(1,1)|empty",
        "def f: try f catch f; f, f",
        "def f: (f)?, f; [f]",
        "[range(1e15)?]",
        "limit(1e15; repeat(1)) | empty",
        "combinations(9) | empty",
        "[range(5000) | tostring | test(\"a{1,100}\")] | length",
    ] {
        let input = format!("[{}1]", "1,".repeat(99));
        let stopped = run(text, &input).expect_err(text);
        assert!(matches!(stopped, RunError::Fuel | RunError::Stack), "{text}: {stopped:?}");
    }
}

#[test]
fn what_grows_without_bound_is_stopped() {
    for text in [
        "reduce range(100) as $i (\"x\"; . + .)",
        "reduce range(100) as $i ([1]; . + .)",
        "reduce range(100) as $i (1; [., .])",
        "reduce range(100) as $i (1; {a: ., b: .})",
        "reduce range(900000) as $i (1; [.])",
        "reduce range(900000) as $i ([0]; . as $x | .[0] = $x)",
        "reduce range(100) as $i (\"\\\"\"; tojson)",
        "def f: 1 + f; f",
        "def f: [f]; f",
        "def f: {a: f}; f",
        "def f($n): f($n) | f($n); f(1)",
        "\"x\" * 1e12",
        ".[0] = \"x\" | .[0] *= 1e12",
        "reduce range(20) as $i (\"ab\"; . * 1000)",
        "reduce range(100) as $i (\"a\"; gsub(\"a\"; \"aa\"))",
        "reduce range(100) as $i (\"a\"; . as $x | \"\\($x)\\($x)\")",
        "reduce range(40) as $i (12345678901234567890; . * .)",
        "reduce range(40) as $i (12345678901234567890; . *= .)",
        "reduce range(1e6) as $i (3; . * 3)",
        "(\"9\" * 100000 | tonumber)",
    ] {
        run(text, "[1]").expect_err(text);
    }
}

#[test]
fn what_comes_close_to_the_bounds_is_dropped_without_harm() {
    yields("reduce range(900) as $i (1; [.]) | [..] | length", "null", &["901"]);
}

#[test]
fn what_looks_outside_of_the_event_does_not_compile() {
    for text in [
        "env",
        "$ENV",
        "$ENV.PATH",
        "input",
        "[inputs]",
        "now",
        "localtime",
        "strflocaltime(\"%H\")",
        "halt",
        "debug",
        "import \"a\" as a; .",
        "include \"a\"; .",
        "halt_error",
        "stderr",
        "input_filename",
    ] {
        assert!(Program::compile(text).is_err(), "{text}");
    }
}

#[test]
fn a_mistake_is_told_with_its_place() {
    let told = |text: &str| Program::compile(text).expect_err(text);
    assert_eq!(told(".a | nosuch(1)"), "knows no filter `nosuch` with these arguments");
    assert_eq!(told(".a | $x"), "knows no variable `$x` with these arguments");
    assert_eq!(told(".a | | .b"), "needs term at `|` (character 6)");
    assert_eq!(told("[.a"), "needs a closing bracket at the end (character 4)");
    assert_eq!(told(""), "needs term at the end (character 1)");
}

#[test]
fn what_is_nested_too_deeply_is_told_as_such() {
    // Each at a depth that it may have, and at one that has overflowed the stack of the parser.
    let texts: [fn(usize) -> String; 14] = [
        |deep| format!("1{}", "|1".repeat(deep)),
        |deep| format!("{}1", "-".repeat(2 * deep)),
        |deep| format!("1{}", "+1".repeat(deep)),
        |deep| format!("1{}", ",1".repeat(deep)),
        |deep| format!("1{}", "=1".repeat(deep)),
        |deep| format!("1{}", " and 1".repeat(deep / 3)),
        |deep| format!("1{}", "//1".repeat(deep / 2)),
        |deep| format!("{}1{}", "[".repeat(deep), "]".repeat(deep)),
        |deep| format!("{}1", "try ".repeat(deep / 2)),
        |deep| format!("{}1", "if 1 then ".repeat(deep / 6)),
        |deep| format!("{}1", "def f: ".repeat(deep / 4)),
        |deep| format!("{}1", "label $x|".repeat(deep / 5)),
        |deep| format!("1{}", " as $x|1".repeat(deep / 4)),
        |deep| format!("{}1{}", "\"\\(".repeat(deep / 3), ")\"".repeat(deep / 3)),
    ];
    for text in texts {
        // Some of them are no jq without what would end them; none may end the process.
        if let Ok(program) = Program::compile(&text(100)) {
            _ = program.run(Val::Null, 1000);
        }
        Program::compile(&text(8_000)).expect_err(&text(3));
    }
    yields(&format!("[1{}] | length", ",1".repeat(20)), "null", &["21"]);
    yields(&format!("0{}", " + 1".repeat(20)), "null", &["20"]);
    yields(&format!("0{}", " | . + 1".repeat(20)), "null", &["20"]);
}

#[test]
fn json_that_is_nested_too_deeply_is_not_read() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(value_of(nested(DEPTH_MAX).as_bytes()).is_ok());
    assert!(value_of(nested(DEPTH_MAX + 1).as_bytes()).is_err());
    // Brackets in a text are none.
    let text = format!("\"\\\"{}\"", "[".repeat(1000));
    assert!(value_of(text.as_bytes()).is_ok());
    run("fromjson", &format!("\"{}\"", nested(100_000))).expect_err("too deep");
}

#[test]
fn a_number_that_is_too_long_is_not_read() {
    let digits = |count: usize| "7".repeat(count);
    yields(".[0]", &format!("[{}]", digits(DIGITS_MAX)), &[&digits(DIGITS_MAX)]);
    assert!(value_of(format!("[{}]", digits(DIGITS_MAX + 1)).as_bytes()).is_err());
    assert!(value_of(format!("\"{}\"", digits(100_000)).as_bytes()).is_ok(), "a text is none");
    yields(". * . | tostring | length", "123456789012345678901234567890", &["59"]);
}
