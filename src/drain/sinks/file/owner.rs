//! Whose files these are. Positions of a lane that begins anew begin anew, under the same name:
//! held against the files of the lane that was, its events would pass for written.
//!
//! So `LANE.lane` names the lane's random id. Files of another are set aside, to
//! `LANE.ID.ndjson` and `LANE.ID.EPOCH-OFFSET.ndjson` with the first digits of its id: nothing of
//! a sink is ever removed by it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use forebay_log::{Key, Position};

use super::lane_file::{END, sync_folder};

/// Digits of an id in a name.
const ID_DIGITS: usize = 8;

/// Makes the files of this name those of this lane. True if files of another were set aside. The
/// caller holds the lock of the file that is written to.
pub(super) fn claim(folder: &Path, name: &str, lane_id: [u8; 16]) -> io::Result<bool> {
    let note = folder.join(format!("{name}.lane"));
    let own = Key(lane_id).to_string();
    let moved = match fs::read_to_string(&note) {
        Ok(text) if text.trim_end() == own => return Ok(false),
        Ok(text) => set_aside(folder, name, &text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    // Behind the moves: a crash between the two does the rest of them again.
    let new = folder.join(format!("{name}.lane.new"));
    fs::write(&new, own + "\n")?;
    fs::File::open(&new)?.sync_all()?;
    fs::rename(&new, &note)?;
    sync_folder(folder)?;
    Ok(moved)
}

fn set_aside(folder: &Path, name: &str, id: &str) -> io::Result<bool> {
    // The text is a file's, and becomes part of a name.
    let id: String = id.chars().take_while(char::is_ascii_hexdigit).take(ID_DIGITS).collect();
    let mut moved = false;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let rest = file_name.to_str().and_then(|text| text.strip_prefix(name)?.strip_suffix(END));
        let last = match rest {
            Some("") if entry.metadata()?.len() > 0 => "",
            Some(rest) if is_position(rest) => rest,
            _ => continue,
        };
        fs::rename(entry.path(), free(folder, &format!("{name}.{id}"), last))?;
        moved = true;
    }
    Ok(moved)
}

/// Whether it is what stands between the name and the end of a complete file.
fn is_position(rest: &str) -> bool {
    rest.strip_prefix('.').is_some_and(|text| text.parse::<Position>().is_ok())
}

/// A name that no file has: a lane may have come and gone more than once.
fn free(folder: &Path, name: &str, last: &str) -> PathBuf {
    let mut path = folder.join(format!("{name}{last}{END}"));
    let mut number = 1;
    while path.exists() {
        path = folder.join(format!("{name}.{number}{last}{END}"));
        number += 1;
    }
    path
}
