//! File and environment to a checked configuration, or to everything that is wrong with them.
//!
//! ```text
//! file, FOREBAY_...  ->  document  ->  section, by schema  ->  Config
//!                        one text,     typed reads, every
//!                        one table     mistake with its place
//! ```
//!
//! What is read is checked once and does not change: nothing behind this module asks whether a
//! value makes sense. There is one plain struct for each part of the program that takes one, and
//! no default that does not stand in the schema. Reloading is reading again.
//!
//! Precedence: environment, then file, then default. A secret is read here, from wherever the
//! file says, and is never shown again.

mod document;
mod schema;
mod units;
mod near;
mod env;
mod section;
mod receive;
mod quarantine;
mod outgoing;
mod lane;
mod secret;
mod recipe;
mod source;
mod replicate;
mod sink;
mod staging;
mod error;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

pub use self::error::{ConfigError, ToldProblem};
pub use self::lane::LaneConfig;
pub(crate) use self::near::nearest;
pub use self::outgoing::OutgoingConfig;
pub use self::quarantine::QuarantineConfig;
pub use self::receive::{AdminConfig, Driver, ReceiveConfig};
pub use self::secret::{Origin, SecretConfig};
pub use self::sink::{BatchConfig, Print, RedriveConfig, RetryConfig, SinkConfig};
pub use self::source::{Source, SourceKeys};
pub use self::staging::{Sender, SinkHost, Staging, plain_host};
pub use self::units::{duration_text, parse_duration, size_text};

use self::document::{Shown, Texts};
use self::env::Overrides;
use self::error::{Problem, Problems};
use self::section::{Reading, Section};
use self::source::Around;

/// Where packages put the file.
const PATH: &str = "/etc/forebay/forebay.toml";
/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Everything that an operator decides, checked.
#[derive(Debug)]
pub struct Config {
    /// The folder that holds everything kept.
    pub data_dir: PathBuf,
    /// The receivers.
    pub receive: ReceiveConfig,
    /// The listener for operators.
    pub admin: AdminConfig,
    /// Where refused requests go.
    pub quarantine: QuarantineConfig,
    /// How others are reached.
    pub outgoing: OutgoingConfig,
    /// The lanes, in the order of the file; at least one.
    pub lanes: Vec<LaneConfig>,
    /// The sources, in the order of the file; at least one.
    pub sources: Vec<Source>,
    /// The sinks, in the order of the file; there may be none.
    pub sinks: Vec<SinkConfig>,
}

impl Config {
    /// The folder of a lane.
    pub fn lane_dir(&self, lane: &LaneConfig) -> PathBuf {
        self.data_dir.join("lanes").join(&lane.name)
    }
}

/// The file to read: that of the flag, else of `FOREBAY_CONFIG`, else the usual place.
pub fn path(flag: Option<&Path>) -> PathBuf {
    let named = flag.map(Path::to_path_buf);
    let variable = || std::env::var_os("FOREBAY_CONFIG").filter(|path| !path.is_empty());
    named.or_else(|| variable().map(PathBuf::from)).unwrap_or_else(|| PATH.into())
}

/// The environment of this process, without what is not text.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// What is kept and where: all that a reader of the log needs.
#[derive(Debug)]
pub struct Kept {
    /// The folder that holds everything kept.
    pub data_dir: PathBuf,
    /// The lanes, in the order of the file.
    pub lanes: Vec<LaneConfig>,
}

/// What is kept, and what it is brought to.
#[derive(Debug)]
pub struct Drained {
    /// What is kept and where.
    pub kept: Kept,
    /// The sinks, in the order of the file.
    pub sinks: Vec<SinkConfig>,
}

/// What of a configuration depends on the machine.
#[derive(Debug)]
pub struct Site {
    /// What is kept and where.
    pub kept: Kept,
    /// The receivers.
    pub receive: ReceiveConfig,
    /// The listener for operators.
    pub admin: AdminConfig,
}

/// Reads a configuration.
pub fn load(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    from_file(path, environment, read)
}

/// Reads of a configuration only what is kept and where. Secrets are not asked for: who reads the
/// log from a shell seldom has the server's environment.
pub fn load_kept(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Kept, ConfigError> {
    from_file(path, environment, read_kept)
}

/// Reads of a configuration only what is brought where. The secrets of sources are not asked for.
pub fn load_sinks(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Drained, ConfigError> {
    from_file(path, environment, read_sinks)
}

/// Reads of a configuration only where a running server is asked. Secrets are not asked for.
pub fn load_admin(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<AdminConfig, ConfigError> {
    from_file(path, environment, read_admin)
}

/// Reads of a configuration only what depends on the machine. Secrets are not asked for.
pub fn load_site(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Site, ConfigError> {
    from_file(path, environment, read_site)
}

/// Reads of a configuration only what its sources verify by, secrets included, for tools that
/// verify without a server.
pub fn load_keys(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<SourceKeys>, ConfigError> {
    from_file(path, environment, source::read_keys)
}

/// Reads of a configuration only what a replay to another receiver has to know. Secrets are not
/// asked for.
pub fn load_staging(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Staging, ConfigError> {
    from_file(path, environment, staging::read)
}

/// Reads the parts of a configuration that a caller wants.
type Wanted<T> = for<'t> fn(&'t Reading<'t>, &Section<'t>) -> Option<T>;

fn from_file<T>(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
    wanted: Wanted<T>,
) -> Result<T, ConfigError> {
    let unreadable =
        |problem| ConfigError::new(Shown::nothing(path.display().to_string()), vec![problem]);
    let text = read_file(path).map_err(unreadable)?;
    parse(path, &text, &environment.into_iter().collect(), wanted)
}

fn read_file(path: &Path) -> Result<String, Problem> {
    let failed = |error: &std::io::Error, cure: &str| {
        Problem::new(format!("cannot read `{}`: {error}", path.display()), cure)
    };
    let bytes = fs::metadata(path)
        .map_err(|error| failed(&error, "give the path of the file with --config"))?
        .len();
    if bytes > FILE_BYTES_MAX {
        return Err(Problem::new(
            format!("`{}` has {bytes} bytes, more than any configuration", path.display()),
            "give the path of a configuration with --config",
        ));
    }
    fs::read_to_string(path)
        .map_err(|error| failed(&error, "let this user read the file, and write it in UTF-8"))
}

/// Reads a configuration from its text; `path` names it and anchors its relative paths.
fn parse<T>(
    path: &Path,
    text: &str,
    environment: &BTreeMap<String, String>,
    wanted: Wanted<T>,
) -> Result<T, ConfigError> {
    let name = path.display().to_string();
    // Every text ends its last line, so that the environment begins on one of its own.
    let file_text = format!("{text}\n");
    let mut file = document::parse(&file_text).map_err(|problem| {
        ConfigError::new(Shown::unparsed(name.clone(), &file_text), vec![problem])
    })?;
    let overrides = Overrides::find(environment, file.get_ref());
    // Blank lines stand for the file, so that places continue where it ends.
    let padded = format!("{}{}", "\n".repeat(file_text.len()), overrides.lines);
    let values = document::parse(&padded)
        .map_err(|problem| ConfigError::new(Shown::nothing(name.clone()), vec![problem]))?;
    let texts = Texts { file: &file_text, environment: &overrides.lines };
    let shown = Shown::parsed(name, texts, [file.get_ref(), values.get_ref()]);

    let problems = Problems::default();
    overrides.apply(values.get_ref(), &mut file, &problems);
    let config = {
        let folder = path.parent().unwrap_or(Path::new(""));
        let file_bytes = file_text.len();
        let overrides = overrides.lines.as_str();
        let reading = Reading { problems: &problems, environment, folder, file_bytes, overrides };
        wanted(&reading, &Section::root(&reading, &file))
    };
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(ConfigError::new(shown, problems.into_vec())),
    }
}

/// Reads every section; `None` or a reported problem means that the configuration is unusable.
fn read<'t>(reading: &'t Reading<'t>, root: &Section<'t>) -> Option<Config> {
    let data_dir = data_dir(reading, root);
    let nothing = section::empty();
    let of = |key| root.value(key).unwrap_or(&nothing);
    let receive_section = Section::open(reading, "receive", of("receive"));
    let receive = receive_section.as_ref().and_then(receive::read);
    let admin = Section::open(reading, "admin", of("admin"))
        .and_then(|section| receive::read_admin(&section, receive.as_ref()));
    let quarantine = Section::open(reading, "quarantine", of("quarantine"))
        .and_then(|section| quarantine::read(&section));
    let outgoing = Section::open(reading, "outgoing", of("outgoing"))
        .and_then(|section| outgoing::read(&section));
    let lanes = lane::read_all(reading, root);
    let sinks = sink::read_all(reading, root, &lanes);
    let around = Around { lanes: &lanes, receive: receive.as_ref() };
    let sources = source::read_all(reading, root, around);
    if let (Some(section), Some(receive)) = (&receive_section, &receive) {
        receive::check_budget(section, receive, &sources);
    }
    Some(Config {
        data_dir: data_dir?,
        receive: receive?,
        admin: admin?,
        quarantine: quarantine?,
        outgoing: outgoing?,
        lanes: lanes.into_iter().map(|lane| lane.config).collect(),
        sources,
        sinks,
    })
}

fn read_admin<'t>(reading: &'t Reading<'t>, root: &Section<'t>) -> Option<AdminConfig> {
    let nothing = section::empty();
    let section = Section::open(reading, "admin", root.value("admin").unwrap_or(&nothing))?;
    receive::read_admin(&section, None)
}

fn read_site<'t>(reading: &'t Reading<'t>, root: &Section<'t>) -> Option<Site> {
    let kept = read_kept(reading, root);
    let nothing = section::empty();
    let of = |key| root.value(key).unwrap_or(&nothing);
    let receive = Section::open(reading, "receive", of("receive"))
        .and_then(|section| receive::read(&section));
    let admin = Section::open(reading, "admin", of("admin"))
        .and_then(|section| receive::read_admin(&section, receive.as_ref()));
    Some(Site { kept: kept?, receive: receive?, admin: admin? })
}

fn read_kept<'t>(reading: &'t Reading<'t>, root: &Section<'t>) -> Option<Kept> {
    let data_dir = data_dir(reading, root);
    let lanes = lane::read_all(reading, root);
    Some(Kept { data_dir: data_dir?, lanes: lanes.into_iter().map(|lane| lane.config).collect() })
}

fn read_sinks<'t>(reading: &'t Reading<'t>, root: &Section<'t>) -> Option<Drained> {
    let data_dir = data_dir(reading, root);
    let lanes = lane::read_all(reading, root);
    let sinks = sink::read_all(reading, root, &lanes);
    let lanes = lanes.into_iter().map(|lane| lane.config).collect();
    Some(Drained { kept: Kept { data_dir: data_dir?, lanes }, sinks })
}

fn data_dir<'t>(reading: &'t Reading<'t>, root: &Section<'t>) -> Option<PathBuf> {
    const CURE: &str = "add data_dir = \"/var/lib/forebay\", or set FOREBAY_DATA_DIR";
    let text = root.required("data_dir", CURE)?;
    if text.is_empty() {
        root.refuse("data_dir", "is empty", CURE);
    }
    Some(reading.path(text, &root.place("data_dir")))
}

#[cfg(test)]
mod tests;
