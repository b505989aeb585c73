//! The documents lead to where they say, every relative link of each and the heading behind its `#`, and
//! every configuration that they show is one.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::server::forebay;

/// Every document of the repository; what was installed or built is none.
fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && !["target", "node_modules"].contains(&name.as_str()) {
                documents(&path, found);
            }
        } else if path.extension().is_some_and(|is| is == "md") {
            found.push(path);
        }
    }
}

/// The lines outside of fenced code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// Where the links lead; code between backticks is none.
fn links(text: &str) -> Vec<String> {
    let lines: Vec<&str> = prose(text).collect();
    let plain: String = lines.join("\n").split('`').step_by(2).collect();
    let ends = plain.split("](").skip(1);
    ends.filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

/// What stands behind the `#` for each heading, as GitHub makes it.
fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| -> String {
        let text = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        text.chars().filter(|is| is.is_alphanumeric() || "-_".contains(*is)).collect()
    };
    headings.map(anchor).collect()
}

/// Why a link of a document leads nowhere.
fn wrong(document: &Path, link: &str) -> Option<String> {
    if link.contains(':') {
        return None;
    }
    let (name, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = match name {
        "" => document.to_owned(),
        _ => document.parent().unwrap().join(name),
    };
    let told = |what| Some(format!("{}: {link}: {what}", document.display()));
    if !target.exists() {
        return told("there is no such file");
    }
    let known = || anchors(&fs::read_to_string(&target).unwrap()).contains(&anchor.to_owned());
    if anchor.is_empty() || known() { None } else { told("there is no such heading") }
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    documents(root, &mut found);
    let links_of = |document: &PathBuf| -> Vec<(PathBuf, String)> {
        let links = links(&fs::read_to_string(document).unwrap());
        links.into_iter().map(|link| (document.clone(), link)).collect()
    };
    let all: Vec<(PathBuf, String)> = found.iter().flat_map(links_of).collect();
    let wrong: Vec<String> =
        all.iter().filter_map(|(document, link)| wrong(document, link)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(found.len() > 5 && all.len() > 20, "{found:?} {all:?}");
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    assert_eq!(links("a [b](c.md#d) `[e](f)`\n```\n[g](h)\n```\n[i](#j)"), ["c.md#d", "#j"]);
    assert!(wrong(&readme, "no-such-file.md").is_some());
    assert!(wrong(&readme, "#no-such-heading").is_some());
    assert_eq!(wrong(&readme, "#quick-start"), None);
    assert_eq!(anchors("## A scheme of one's own"), ["a-scheme-of-ones-own"]);
}

/// The blocks of TOML in a document.
fn examples(text: &str) -> Vec<&str> {
    let blocks = text.split("```toml\n").skip(1);
    blocks.filter_map(|rest| Some(rest.split_once("```")?.0)).collect()
}

/// An example with what it leaves out: those that begin inside a source, and those without one.
fn whole(example: &str) -> String {
    const SOURCE: &str = "[[source]]\nname = \"other\"\npath = \"/other\"\n\
                          secrets = [{ name = \"a\", value = \"A-LONG-SECRET-0123456789\" }]\n";
    const LANE: &str = "[[lane]]\nname = \"main\"\n";
    const PRESET: &str = "preset = \"github\"\n";
    let unless = |has: &str, text: &str| if example.contains(has) { "" } else { text }.to_owned();
    let data = unless("data_dir", "data_dir = \"data\"\n");
    if !example.contains("[[source]]") && example.contains("[source.") {
        let preset = unless("[source.scheme]", PRESET);
        return format!("{data}{LANE}{SOURCE}{preset}{example}");
    }
    let replica = if example.contains("replicate_to") {
        "[[sink]]\nname = \"stream\"\n[sink.nats]\nservers = [\"nats://127.0.0.1:4222\"]\n"
    } else {
        ""
    };
    let (lane, source) =
        (unless("[[lane]]", LANE), unless("[[source]]", &format!("{SOURCE}{PRESET}")));
    format!("{data}{example}\n{lane}{source}{replica}")
}

/// The folder that stands in for `/run/secrets` and `/etc/forebay`, with what examples take from there.
fn secrets() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    for name in ["stripe", "stripe-old", "redis", "kafka", "rabbitmq", "sqs", "s3"] {
        write(name, "whsec_abcdefghijklmnopqrstuvwxyz012345");
    }
    let key = |name| fs::read_to_string(keys.join(name)).unwrap();
    write("kick.pem", &key("rsa-public.pem"));
    write("sns.pem", &key("rsa-certificate.pem"));
    let account = serde_json::json!({
        "type": "service_account", "client_email": "a@b.iam.gserviceaccount.com", "private_key_id": "x",
        "private_key": key("rsa.pem"), "token_uri": "https://oauth2.googleapis.com/token",
    });
    write("service-account.json", &account.to_string());
    write(
        "forebay.creds",
        "-----BEGIN NATS USER JWT-----\neyJ0eXAiOiJKV1QifQ.eyJqdGkiOiJYIn0.AAAA\n\
         ------END NATS USER JWT------\n-----BEGIN USER NKEY SEED-----\n\
         SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY\n------END USER NKEY SEED------\n",
    );
    folder
}

/// What `forebay check` has against an example. That this build lacks a sink is no mistake of it.
fn against(example: &str, secrets: &Path) -> Vec<String> {
    const VARIABLES: [&str; 6] = [
        "LIVEKIT_API_SECRET",
        "BILLING_SECRET",
        "GITHUB_WEBHOOK_SECRET",
        "STRIPE_WEBHOOK_SECRET",
        "TWILIO_AUTH_TOKEN",
        "PGPASSWORD",
    ];
    let place = secrets.display().to_string();
    let text = whole(example).replace("/run/secrets", &place).replace("/etc/forebay", &place);
    let file = secrets.join("forebay.toml");
    fs::write(&file, text).unwrap();
    let mut check = forebay(&["check", "--json", "--config"]);
    check.arg(file).envs(VARIABLES.map(|name| (name, "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")));
    let told: serde_json::Value = serde_json::from_slice(&check.output().unwrap().stdout).unwrap();
    let problems = told["problems"].as_array().into_iter().flatten();
    let said = problems.map(|problem| problem["problem"].as_str().unwrap().to_owned());
    said.filter(|said| !said.ends_with("is a kind of sink that this forebay was built without"))
        .collect()
}

#[test]
fn every_configuration_that_a_document_shows_is_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut found, mut seen) = (Vec::new(), 0);
    documents(root, &mut found);
    let secrets = secrets();
    for document in &found {
        let text = fs::read_to_string(document).unwrap();
        for example in examples(&text) {
            let against = against(example, secrets.path());
            assert!(against.is_empty(), "{}: {against:?} in\n{example}", document.display());
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen} examples");
}

#[test]
fn a_configuration_that_is_none_is_found() {
    let secrets = secrets();
    let text = "[[sink]]\nname = \"out\"\n[sink.stdout]\nfolder = \"x\"\n";
    assert!(against(text, secrets.path())[0].contains("folder"));
    assert!(!against("[[lane]]\nname = \"Main\"\n", secrets.path()).is_empty());
    assert_eq!(against("[[lane]]\nname = \"main\"\n", secrets.path()), [""; 0]);
}
