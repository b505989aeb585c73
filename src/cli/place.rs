//! Which lanes a verb works on: those of a configuration, of a data folder, or the one whose
//! folder was given.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{EXIT_TEMPORARY, EXIT_USAGE, terminal};
use crate::config::{self, ConfigError};
use crate::quarantine;

/// The folder of the lanes in a data folder.
const LANES: &str = "lanes";
/// What the log of the quarantine is called where it stands beside lanes.
const QUARANTINE: &str = "quarantine";
/// The folder of the dead letters in a data folder.
const DEAD_LETTERS: &str = "dead-letters";
/// How the names of their logs begin, and that of no lane.
const DEAD_LETTERS_BEGIN: &str = "dead-letters/";

/// Where the lanes are.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Place {
    /// The configuration that names the lanes; else `FOREBAY_CONFIG`, else the usual place
    #[arg(short, long, value_name = "FILE", conflicts_with = "dir")]
    pub config: Option<PathBuf>,
    /// The data folder, or the folder of one lane, in place of a configuration
    #[arg(long, value_name = "DATA")]
    pub dir: Option<PathBuf>,
    /// The lane; not needed where there is only one. Verbs that work on files, `segments` and
    /// `purge`, also know `quarantine` and `dead-letters/SINK`
    #[arg(long, value_name = "NAME")]
    pub lane: Option<String>,
}

/// A lane by its name and its folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub name: String,
    pub folder: PathBuf,
}

/// Why there is no lane to work on.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlaceError {
    #[error("{0}")]
    Config(ConfigError),
    /// The lane or the folder is wrong.
    #[error("{0}")]
    Usage(String),
    /// The folder is there, and this user may not look into it, or the disk does not let him.
    #[error("{}: {error}; run this as the user of `forebay serve`, or as one of its group", .folder.display())]
    Unreadable { folder: PathBuf, error: io::Error },
}

impl PlaceError {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => ConfigError::EXIT_CODE,
            Self::Usage(_) => EXIT_USAGE,
            Self::Unreadable { .. } => EXIT_TEMPORARY,
        }
    }

    /// Tells it on standard error, a mistake in the configuration with its place underlined.
    pub(super) fn report(&self) {
        match self {
            Self::Config(error) => terminal::report(error),
            Self::Usage(_) | Self::Unreadable { .. } => terminal::complain(self),
        }
    }
}

impl Place {
    /// The one lane that is meant.
    pub(super) fn one(&self) -> Result<Named, PlaceError> {
        let mut lanes = self.all()?;
        if lanes.len() == 1 {
            return Ok(lanes.remove(0));
        }
        Err(PlaceError::Usage(format!("say which lane, with --lane: {}", listed(&lanes))))
    }

    /// The lane that was named, or else every lane; at least one.
    pub(super) fn all(&self) -> Result<Vec<Named>, PlaceError> {
        let (folder, mut lanes) = self.find()?;
        let known = listed(&lanes);
        if let Some(name) = &self.lane {
            lanes.retain(|lane| lane.name == *name);
            if lanes.is_empty() {
                return Err(PlaceError::Usage(format!(
                    "there is no lane {name}; there is {known}"
                )));
            }
        }
        if lanes.is_empty() {
            return Err(PlaceError::Usage(format!("there is no lane in {}", folder.display())));
        }
        Ok(lanes)
    }

    /// As [`Place::all`], with the logs beside the lanes before them, where there are any: that of
    /// the quarantine, and the dead letters of each sink.
    pub(super) fn logs(&self) -> Result<Vec<Named>, PlaceError> {
        let (folder, lanes) = self.find()?;
        // The folder of one lane is not asked what lies beside it.
        let data = folder.parent().filter(|_| folder.ends_with(LANES));
        let mut logs = data.map(beside).unwrap_or_default();
        logs.retain(|log| self.lane.as_ref().is_none_or(|name| log.name == *name));
        let is_lane = |name: &String| lanes.iter().any(|lane| lane.name == *name);
        let beside_alone = self.lane.as_ref().is_some_and(|name| !is_lane(name));
        if logs.is_empty() || !beside_alone {
            logs.extend(self.all()?);
        }
        // A lane that was added and not served yet holds nothing; where none has a folder, all are
        // looked for in the wrong place.
        if self.lane.is_none() && logs.iter().any(|log| log.folder.is_dir()) {
            logs.retain(|log| log.folder.exists());
        }
        Ok(logs)
    }

    /// As [`Place::logs`], but dead letters only if they were named: each is of an event that its
    /// lane has, or had.
    pub(super) fn originals(&self) -> Result<Vec<Named>, PlaceError> {
        let mut logs = self.logs()?;
        logs.retain(|log| self.lane.is_some() || !log.name.starts_with(DEAD_LETTERS_BEGIN));
        Ok(logs)
    }

    /// All lanes, and where they were looked for.
    fn find(&self) -> Result<(PathBuf, Vec<Named>), PlaceError> {
        let Some(dir) = &self.dir else {
            let path = config::path(self.config.as_deref());
            let kept =
                config::load_kept(&path, config::environment()).map_err(PlaceError::Config)?;
            let folder = kept.data_dir.join(LANES);
            let named = |name: String| Named { folder: folder.join(&name), name };
            let lanes = kept.lanes.into_iter().map(|lane| named(lane.name)).collect();
            return Ok((folder, lanes));
        };
        let folder = dir.join(LANES);
        if !folder.is_dir() && is_lane(dir) {
            let whole = fs::canonicalize(dir).unwrap_or_else(|_| dir.clone());
            let name = whole.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Ok((dir.clone(), vec![Named { name, folder: dir.clone() }]));
        }
        let lanes = lanes_in(&folder)?;
        Ok((folder, lanes))
    }
}

/// The logs of a data folder that are no lanes.
fn beside(data: &Path) -> Vec<Named> {
    let held = Named { name: QUARANTINE.to_owned(), folder: quarantine::log_dir(data) };
    let letters = lanes_in(&data.join(DEAD_LETTERS)).unwrap_or_default().into_iter();
    let letters = letters
        .map(|of| Named { name: format!("{DEAD_LETTERS_BEGIN}{}", of.name), folder: of.folder });
    std::iter::once(held).chain(letters).filter(|log| is_lane(&log.folder)).collect()
}

fn listed(lanes: &[Named]) -> String {
    lanes.iter().map(|lane| lane.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Whether a folder holds segments itself.
fn is_lane(dir: &Path) -> bool {
    let segment = |entry: io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.path().extension().is_some_and(|is| is == "seg"))
    };
    fs::read_dir(dir).is_ok_and(|mut entries| entries.any(segment))
}

/// The lanes of a folder, by name.
fn lanes_in(folder: &Path) -> Result<Vec<Named>, PlaceError> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            let folder = folder.display();
            PlaceError::Usage(format!("{folder}: {error}; give the folder that data_dir names"))
        }
        _ => PlaceError::Unreadable { folder: folder.to_owned(), error },
    };
    let mut lanes = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.path().is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            lanes.push(Named { folder: entry.path(), name });
        }
    }
    lanes.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(lanes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_is_wrong_usage_and_one_that_cannot_be_read_is_not() {
        let data = tempfile::tempdir().expect("a folder");
        let place = Place { config: None, dir: Some(data.path().to_owned()), lane: None };
        let refused = || place.all().expect_err("no lanes");
        let missing = refused();
        assert_eq!(missing.exit_code(), EXIT_USAGE);
        assert!(missing.to_string().contains("data_dir"), "{missing}");
        // Root may read whatever has a mode; a link to itself nobody can follow.
        let lanes = data.path().join(LANES);
        std::os::unix::fs::symlink(&lanes, &lanes).expect("a link");
        let unreadable = refused();
        assert_eq!(unreadable.exit_code(), EXIT_TEMPORARY);
        assert!(unreadable.to_string().contains("run this as the user"), "{unreadable}");
    }
}
