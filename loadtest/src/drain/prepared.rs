//! A lane as receivers would have left it, and a drain over it in this process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use forebay::config::{self, Drained};
use forebay::drain::{Drain, Ground, LaneOf};
use forebay_log::{
    AckLevel, Appender, Clock, Key, Kind, Lane, LaneOptions, MetaWriter, NewRecord, Tag,
};
use tempfile::TempDir;

/// The lane's name.
pub(super) const LANE: &str = "main";
pub(super) const SOURCE: &str = "shop";
pub(super) const ENVIRONMENT: &str = "production";
pub(super) const EVENT_TYPE: &str = "invoice.paid";
pub(super) const CONTENT_TYPE: &str = "application/json";

/// Larger than any record here.
const RECORD_BYTES_MAX: u64 = 1 << 20;
/// How long the log may take to have room for one more record.
const ROOM_WAIT: Duration = Duration::from_secs(30);

/// A lane that events are appended to.
pub(super) struct Prepared {
    pub(super) dir: PathBuf,
    appended: u64,
    appender: Appender,
    meta: MetaWriter,
    lane: Lane,
}

impl Prepared {
    /// An empty lane in this folder.
    pub(super) fn at(dir: PathBuf) -> io::Result<Self> {
        let options = LaneOptions {
            ack: AckLevel::Written,
            // A lane of a few minutes, wherever there is room for it.
            disk_reserve_bytes: Some(0),
            ..LaneOptions::default()
        };
        let (lane, _) = Lane::open(&dir, options).map_err(io::Error::other)?;
        let appender = lane.appender();
        Ok(Self { dir, appended: 0, appender, meta: MetaWriter::default(), lane })
    }

    /// The id of an event.
    pub(super) fn event_id(number: u64) -> String {
        format!("evt_{number:012}")
    }

    /// One more event, whose payload is JSON of so many bytes, or a few more.
    pub(super) fn append(&mut self, bytes: usize) -> io::Result<()> {
        let number = self.appended;
        let id = Self::event_id(number);
        self.meta.clear();
        let fields = [
            (Tag::Source, SOURCE),
            (Tag::Environment, ENVIRONMENT),
            (Tag::EventId, &id),
            (Tag::EventType, EVENT_TYPE),
        ];
        for (tag, text) in fields {
            self.meta.field(tag, text.as_bytes()).map_err(io::Error::other)?;
        }
        let header = self.meta.header(b"content-type", CONTENT_TYPE.as_bytes());
        header.map_err(io::Error::other)?;
        let fill = bytes.saturating_sub(r#"{"id":"evt_000000000000","fill":""}"#.len());
        let body = format!(r#"{{"id":"{id}","fill":"{:x<fill$}"}}"#, "");
        let mut key = [0; 16];
        key[..8].copy_from_slice(&number.to_le_bytes());
        let record = NewRecord {
            kind: Kind::Event,
            key: Key(key),
            received_ns: Clock::System.wall_ns(),
            meta: self.meta.as_bytes(),
            body: body.as_bytes(),
        };
        let until = Clock::System.monotonic() + ROOM_WAIT;
        while let Err(error) = self.appender.append(&record) {
            if Clock::System.monotonic() > until {
                return Err(io::Error::other(error));
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.appended += 1;
        Ok(())
    }

    /// Events that were appended.
    pub(super) const fn appended(&self) -> u64 {
        self.appended
    }

    /// How far the lane reaches.
    pub(super) fn end(&self) -> u64 {
        self.lane.acked()
    }
}

/// A folder for lanes, and what drains them.
pub(super) struct Place {
    folder: TempDir,
}

impl Place {
    /// A new folder under this one.
    pub(super) fn new(under: Option<&Path>) -> io::Result<Self> {
        let under = under.map_or_else(std::env::temp_dir, Path::to_owned);
        Ok(Self { folder: tempfile::tempdir_in(under)? })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Its one lane.
    pub(super) fn lane(&self) -> PathBuf {
        self.path().join("lanes").join(LANE)
    }

    /// Starts a drain of what a configuration says under `[[sink]]`.
    pub(super) fn drain(&self, sink: &str) -> io::Result<Drain> {
        let file = self.path().join("forebay.toml");
        let text = format!(
            "data_dir = \"{}\"\n[[lane]]\nname = \"{LANE}\"\n[[sink]]\n{sink}",
            self.path().display()
        );
        fs::write(&file, text)?;
        drain_of(&file)
    }
}

/// Starts the drain of a configuration, without receivers.
pub(crate) fn drain_of(config: &Path) -> io::Result<Drain> {
    let loaded = config::load_sinks(config, std::iter::empty()).map_err(io::Error::other)?;
    let Drained { kept, sinks } = loaded;
    let lane = |lane: &config::LaneConfig| LaneOf {
        name: lane.name.as_str().into(),
        dir: kept.data_dir.join("lanes").join(&lane.name),
        priority: lane.priority,
        replica: None,
    };
    let ground = Ground {
        data_dir: kept.data_dir.clone(),
        lanes: kept.lanes.iter().map(lane).collect(),
        record_bytes_max: RECORD_BYTES_MAX,
        clock: Clock::System,
    };
    Drain::start(&sinks, &ground).map_err(io::Error::other)
}
