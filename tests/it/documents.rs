//! The documents lead to where they say: every relative link of each, and the heading behind its `#`.

use std::fs;
use std::path::{Path, PathBuf};

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
