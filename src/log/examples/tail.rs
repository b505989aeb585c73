//! Follows a lane and prints one line for each record: `tail DIR [POSITION]`.
//!
//! Needs nothing from the server but the right to read its files.

use std::io::Write;
use std::time::Duration;

use forebay_log::{From, Reader, Tag};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("usage: tail DIR [POSITION]")?;
    let mut reader = Reader::open(dir)?;
    if let Some(position) = arguments.next() {
        reader.seek(From::Position(position.parse()?))?;
    }
    let mut out = std::io::stdout().lock();
    loop {
        while let Some(record) = reader.next()? {
            let meta = record.meta();
            let text = |tag| String::from_utf8_lossy(meta.get(tag).unwrap_or(b"-")).into_owned();
            let (source, id) = (text(Tag::Source), text(Tag::EventId));
            let (position, kind, bytes) = (record.position(), record.kind(), record.body().len());
            writeln!(out, "{position} {kind:?} {source} {id} {bytes} bytes")?;
        }
        out.flush()?;
        reader.wait(Duration::from_secs(60))?;
    }
}
