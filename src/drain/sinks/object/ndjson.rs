//! Events as lines of JSON, compressed by zstd or not; and the last position of what is there.

use std::io::{self, BufRead, BufReader, Read as _};

use forebay_log::Position;

use crate::drain::sink::Event;
use crate::drain::sinks::line::{self, LINE_BYTES_MAX};

/// The object of these events; a level of 0 does not compress.
pub(super) fn encode(events: &[Event], level: i32) -> io::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for event in events {
        line::write(&mut lines, event);
    }
    if level == 0 { Ok(lines) } else { zstd::bulk::compress(&lines, level) }
}

/// The position of the last line; none: not every line is one of this sink's.
pub(super) fn last(object: &[u8], level: i32) -> io::Result<Option<Position>> {
    if level == 0 {
        last_line(object)
    } else {
        last_line(BufReader::new(zstd::Decoder::new(object)?))
    }
}

fn last_line(mut lines: impl BufRead) -> io::Result<Option<Position>> {
    let (mut last, mut text) = (None, Vec::new());
    loop {
        text.clear();
        if lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text)? == 0 {
            return Ok(last);
        }
        last = text.strip_suffix(b"\n").and_then(line::position_of);
        if last.is_none() {
            return Ok(None);
        }
    }
}
