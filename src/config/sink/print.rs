//! What a sink was made of, so that a reload knows whether it has changed.
//!
//! The settings of a sink show no secret, and so cannot be compared for one. A digest is taken of
//! what stands in its table instead, of what the variables hold that it names, and of what stands
//! in the files: whatever its kind, and also of keys that a later kind brings.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use ring::digest::{Context, SHA256};
use toml::de::DeValue;

use super::super::document::{Table, Value};
use super::super::section::{Reading, Section};

/// No file of a secret or a certificate is larger; of one that is, the rest does not count.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The same for sinks that are made of the same.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Print([u8; 32]);

/// Says nothing: it is a digest of secrets too.
impl fmt::Debug for Print {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Print")
    }
}

impl Print {
    /// Of a sink's table.
    pub(super) fn of(section: &Section<'_>) -> Self {
        let mut context = Context::new(&SHA256);
        add_table(&mut context, section.table(), section.reading);
        let mut print = Self::default();
        print.0.copy_from_slice(context.finish().as_ref());
        print
    }
}

/// One word, so that no two rows of words are alike.
fn add(context: &mut Context, word: &[u8]) {
    context.update(&(word.len() as u64).to_le_bytes());
    context.update(word);
}

fn add_table(context: &mut Context, table: &Table<'_>, reading: &Reading<'_>) {
    add(context, b"{");
    for (key, value) in table {
        let key: &str = key.get_ref();
        add(context, key.as_bytes());
        add_value(context, value, reading);
        let Some(text) = value.get_ref().as_str() else { continue };
        if key == "env" {
            let held = reading.environment.get(text).map(String::as_bytes);
            add(context, held.unwrap_or_default());
        } else if key == "file" || key.ends_with("_file") {
            add(context, &held(&reading.path(text, &value.span())));
        }
    }
    add(context, b"}");
}

fn add_value(context: &mut Context, value: &Value<'_>, reading: &Reading<'_>) {
    match value.get_ref() {
        DeValue::Table(table) => add_table(context, table, reading),
        DeValue::Array(list) => {
            add(context, b"[");
            list.iter().for_each(|value| add_value(context, value, reading));
            add(context, b"]");
        }
        DeValue::String(text) => add(context, text.as_bytes()),
        other => add(context, format!("{other:?}").as_bytes()),
    }
}

/// What stands in a file; nothing if it cannot be read, which is told where it is needed.
fn held(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    if read.is_ok() { bytes } else { Vec::new() }
}
