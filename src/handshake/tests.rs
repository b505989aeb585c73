//! What does not load, and what an attacker would try at the answers.

use http::Request;

use super::*;
use crate::verify::preset;

fn specs(text: &str) -> Vec<HandshakeSpec> {
    #[derive(serde::Deserialize)]
    struct File {
        handshake: Vec<HandshakeSpec>,
    }
    toml::from_str::<File>(text).expect("a handshake").handshake
}

fn scheme(name: &str) -> &'static SchemeSpec {
    &preset(name).expect("a preset").scheme
}

fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request").into_parts().0
}

fn text(answer: Answer) -> String {
    String::from_utf8(answer.into_body().to_vec()).expect("text")
}

const META: &str = r#"
[[handshake]]
name = "verify"
method = "GET"
signed = false
when = { "query:hub.mode" = "subscribe" }
guard = { is = "token", at = "query:hub.verify_token" }
answer = { kind = "echo", from = "query:hub.challenge" }
"#;

const TOKEN: &str = "a-token-of-the-operator";

fn meta(token: Option<&str>) -> Handshakes {
    let terms = Terms::new(token, Vec::new(), Vec::new());
    Handshakes::new(&specs(META), scheme("github"), terms).expect("loads")
}

fn ask(handshakes: &Handshakes, target: &str) -> Option<Result<String, Reject>> {
    Some(handshakes.at_head(&head("GET", target, &[]))?.map(text))
}

#[test]
fn a_challenge_is_given_back_to_who_shows_the_token() {
    let good = format!("/h?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token={TOKEN}");
    assert_eq!(ask(&meta(Some(TOKEN)), &good), Some(Ok("1158201444".to_owned())));
    let refused = Some(Err(Reject::HandshakeRefused));
    assert_eq!(ask(&meta(None), &good), refused, "a source without a token agrees to none");
    for token in ["", "a", "a-token-of-the-operato", "a-token-of-the-operatorr", "%00"] {
        let target = format!("/h?hub.mode=subscribe&hub.challenge=1&hub.verify_token={token}");
        assert_eq!(ask(&meta(Some(TOKEN)), &target), refused, "{token}");
    }
    let twice = format!("{good}&hub.verify_token={TOKEN}");
    assert_eq!(ask(&meta(Some(TOKEN)), &twice), refused, "which of two is nobody's guess");
}

#[test]
fn a_challenge_that_could_be_a_page_is_not_given_back() {
    let long = "a".repeat(513);
    for challenge in ["", "%3Cscript%3E", "a%0D%0Ab", "%22", "%C3%A9", &long] {
        let query = format!("hub.challenge={challenge}&hub.verify_token={TOKEN}");
        let target = format!("/h?hub.mode=subscribe&{query}");
        let answer = ask(&meta(Some(TOKEN)), &target);
        assert_eq!(answer, Some(Err(Reject::HandshakeMalformed)), "{challenge}");
    }
}

#[test]
fn another_request_is_no_handshake() {
    let meta = meta(Some(TOKEN));
    assert!(meta.at_head(&head("GET", "/h", &[])).is_none());
    assert!(meta.at_head(&head("GET", "/h?hub.mode=unsubscribe", &[])).is_none());
    assert!(meta.at_head(&head("GET", "/h?hub.mode=subscribe&hub.mode=x", &[])).is_none());
    assert!(meta.at_head(&head("POST", "/h?hub.mode=subscribe", &[])).is_none());
}

#[test]
fn what_would_be_an_oracle_does_not_load() {
    let mac = |signed: bool| {
        format!(
            "[[handshake]]\nname = \"crc\"\nsigned = {signed}\nanswer = {{ kind = \"mac\", \
             from = \"json:token\", token_field = \"t\", mac_field = \"m\", encoding = \"hex\" }}"
        )
    };
    let load = |text: &str, name: &str| {
        Handshakes::new(&specs(text), scheme(name), Terms::default()).map_err(|e| e.message)
    };
    assert!(load(&mac(true), "zoom").is_ok());
    let error = load(&mac(false), "zoom").expect_err("unsigned");
    assert!(error.contains("strangers"), "{error}");
    // GitHub signs the body alone: a token's MAC would sign the body that is this token.
    let error = load(&mac(true), "github").expect_err("not separated");
    assert!(error.contains("could be signatures"), "{error}");
    let follow = "[[handshake]]\nname = \"sns\"\nsigned = false\n\
                  answer = { kind = \"confirm\", url = \"json:SubscribeURL\" }";
    assert!(load(follow, "github").expect_err("unsigned").contains("stranger"));
}

#[test]
fn what_cannot_be_a_handshake_does_not_load() {
    let answer = "answer = { kind = \"echo\", from = \"query:c\" }";
    for (text, what) in [
        (format!("method = \"GET\"\n{answer}"), "signed = false"),
        (
            format!("signed = false\nmethod = \"GET\"\nwhen = {{ \"json:a\" = \"*\" }}\n{answer}"),
            "json:",
        ),
        ("answer = { kind = \"echo\", from = \"body:c\" }".to_owned(), "no place"),
        ("answer = { kind = \"echo\", from = \"header:a b\" }".to_owned(), "no header"),
        ("answer = { kind = \"echo\", from = \"json:\" }".to_owned(), "not a path"),
        ("answer = { kind = \"echo\", from = \"json:c\", into = \"xml\" }".to_owned(), "no form"),
        ("answer = { kind = \"fixed\", status = 302 }".to_owned(), "status of success"),
    ] {
        let specs = specs(&format!("[[handshake]]\nname = \"x\"\n{text}"));
        let error = Handshakes::new(&specs, scheme("github"), Terms::default()).expect_err(&text);
        assert!(error.message.contains(what), "{text}: {error}");
        assert!(error.message.starts_with("`x` "), "{error}");
    }
}

#[test]
fn every_preset_s_handshakes_load() {
    for profile in crate::verify::presets() {
        let loaded = Handshakes::new(&profile.handshakes, &profile.scheme, Terms::default());
        assert_eq!(loaded.map(|some| some.names().count()), Ok(profile.handshakes.len()));
    }
}

/// Whoever can ask for a subscription of ours to be ended is refused while we want it.
#[test]
fn a_wanted_topic_is_agreed_to_and_not_given_up() {
    let text = r#"
[[handshake]]
name = "subscribe"
method = "GET"
signed = false
when = { "query:hub.mode" = "subscribe" }
guard = { is = "topic", at = "query:hub.topic" }
answer = { kind = "echo", from = "query:hub.challenge" }
[[handshake]]
name = "unsubscribe"
method = "GET"
signed = false
when = { "query:hub.mode" = "unsubscribe" }
guard = { is = "other-topic", at = "query:hub.topic" }
answer = { kind = "echo", from = "query:hub.challenge" }
"#;
    let wanted = vec!["https://feeds.test/a?b=c".to_owned()];
    let terms = Terms::new(None, wanted, Vec::new());
    let hub = Handshakes::new(&specs(text), scheme("github"), terms).expect("loads");
    let agreed = Some(Ok("c1".to_owned()));
    let refused = Some(Err(Reject::HandshakeTopic));
    let of = |mode: &str, topic: &str| {
        ask(&hub, &format!("/h?hub.mode={mode}&hub.topic={topic}&hub.challenge=c1"))
    };
    let (ours, other) = ("https%3A%2F%2Ffeeds.test%2Fa%3Fb%3Dc", "https%3A%2F%2Fevil.test");
    assert_eq!(of("subscribe", ours), agreed);
    assert_eq!(of("subscribe", other), refused);
    assert_eq!(of("unsubscribe", ours), refused);
    assert_eq!(of("unsubscribe", other), agreed);
}
