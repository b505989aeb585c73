//! Nothing that a sender or an operator holds secret ever shows in logs, metrics or problems,
//! however much is logged.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::support::server::{Server, Setup, forebay};
use crate::support::{Driver, sign};

for_each_driver![no_secret_body_or_header_value_is_ever_shown];

const BODY_CANARY: &str = "canary-in-the-body-4711";
const HEADER_CANARY: &str = "canary-in-a-header-4712";
const QUERY_CANARY: &str = "canary-in-the-query-4713";

fn no_secret_body_or_header_value_is_ever_shown(driver: Driver) {
    let setup =
        Setup::new(driver).environment("FOREBAY_LOG", "trace").environment("RUST_LOG", "trace");
    let mut server = Server::start(setup);
    let body = format!("{{\"type\":\"canary\",\"data\":\"{BODY_CANARY}\"}}");
    let request = sign::standard("msg_canary", body.as_bytes())
        .header("x-canary", HEADER_CANARY)
        .header("cookie", HEADER_CANARY);
    let signature = String::from_utf8(request.value("webhook-signature").to_vec()).unwrap();
    let mut shown = Vec::new();
    let mut send = |request: &crate::support::http::Request, status: u16| {
        let response = server.send(request);
        assert_eq!(response.status, status, "{}", response.text());
        shown.push(response.text().to_owned());
    };
    send(&request, 200);
    send(&request, 200);
    send(&request.clone().to(&format!("/std?token={QUERY_CANARY}")), 200);
    send(&request.clone().to(&format!("/nowhere/{QUERY_CANARY}")), 404);
    send(&request.clone().without("webhook-timestamp").header("webhook-timestamp", "soon"), 400);
    let mut altered = request.clone();
    altered.body.push(b' ');
    send(&altered, 401);
    send(&sign::livekit(body.as_bytes(), sign::Token::NoneButSigned), 401);
    let mut broken = server.connect();
    let half = request.bytes();
    broken.write(&half[..half.len() - 3]).unwrap();
    drop(broken);

    shown.push(server.admin("/metrics").text().to_owned());
    server.reload();
    let check = forebay(&["check", "--config"]).arg(server.config()).output().unwrap();
    shown.push(String::from_utf8_lossy(&check.stdout).into_owned());
    shown.push(String::from_utf8_lossy(&check.stderr).into_owned());
    assert!(server.end().success());
    let log = server.log();
    assert!(!log.is_empty(), "at this level something must have been logged");
    shown.push(log);

    let decoded = BASE64.decode(sign::STANDARD_SECRET.strip_prefix("whsec_").unwrap()).unwrap();
    let decoded = String::from_utf8(decoded).unwrap();
    let canaries = [
        BODY_CANARY,
        HEADER_CANARY,
        QUERY_CANARY,
        sign::STANDARD_SECRET,
        sign::GITHUB_SECRET,
        sign::LIVEKIT_SECRET,
        &decoded,
        signature.trim_start_matches("v1,"),
    ];
    for text in &shown {
        for canary in canaries {
            let line = text.lines().find(|line| line.contains(canary));
            assert!(line.is_none(), "{canary} stands in: {}", line.unwrap_or_default());
        }
    }
    // The canaries are real: what was stored does hold them.
    let rows = server.rows();
    assert!(rows.iter().any(|row| row.headers.to_string().contains(HEADER_CANARY)), "{rows:?}");
}
