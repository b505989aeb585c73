//! What the segments of a lane say of themselves ([`segments()`]), and whether it is true
//! ([`verify()`]). Reads only, takes no lock, and works beside a running writer: what is not
//! acknowledged yet is not looked at.

mod verify;

use std::io;
use std::path::{Path, PathBuf};

use crate::format::{FOOTER_RECOVERED, Footer};
use crate::lane::AckLevel;
use crate::segment::{self, Identity, Inspected};
use crate::tail::{ReadError, find};
pub use verify::verify;

/// How far a segment has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentState {
    /// It has a footer, from the writer.
    Sealed,
    /// It has a footer, from a recovery after a crash.
    Recovered,
    /// It has no footer that holds: it is written, or its writer was killed.
    Open,
    /// Its header does not hold; the text says what is wrong.
    Unreadable(&'static str),
    /// It has a version of the format that this build does not know.
    Version(u32),
}

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderFacts {
    /// The id of its lane.
    pub lane_id: [u8; 16],
    /// The start of the writer that made it.
    pub epoch: u32,
    /// Its number among the segments of the lane that hold something.
    pub sequence: u64,
    /// Its size, which is that of the file.
    pub segment_bytes: u64,
    /// When it was made, unix time in nanoseconds.
    pub created_ns: u64,
    /// The ack level of the lane at that time, if it is one.
    pub ack: Option<AckLevel>,
}

/// What a segment's footer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FooterFacts {
    /// The offset behind its last record.
    pub sealed_end: u64,
    /// Records that it holds, fillers not among them.
    pub records: u64,
    /// When the oldest of them arrived, unix time in nanoseconds.
    pub first_ns: u64,
    /// When the newest of them arrived.
    pub last_ns: u64,
    /// Records whose payload a crash has torn.
    pub damaged: u64,
    /// Holes that a crash has left between records.
    pub gaps: u64,
}

/// One segment as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFacts {
    /// The file.
    pub path: PathBuf,
    /// The offset at which it starts, by its name.
    pub base: u64,
    /// The size of the file.
    pub file_bytes: u64,
    /// How far it has come.
    pub state: SegmentState,
    /// What is wrong with the file although its records can be read.
    pub harm: Option<String>,
    /// Its header, or the copy of it, if one of them holds.
    pub header: Option<HeaderFacts>,
    /// Its footer, if it has one that holds.
    pub footer: Option<FooterFacts>,
}

/// How bad a finding is, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// What a crash or a change of version leaves; nothing acknowledged is touched by it.
    Remains,
    /// Something that was acknowledged cannot be read, or not be trusted.
    Damage,
    /// A writer would refuse to open the lane.
    Blocking,
}

/// One thing that is not as the format says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The file.
    pub path: PathBuf,
    /// The offset in the lane, where there is one.
    pub offset: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// What a verification has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Segments whose header holds.
    pub segments: u64,
    /// Records that hold, those that were purged included.
    pub records: u64,
    /// Records whose payload was erased.
    pub purged: u64,
    /// Fillers.
    pub pads: u64,
    /// Records whose payload does not hold.
    pub damaged: u64,
    /// Stretches between records that are none.
    pub gaps: u64,
    /// What is wrong, in the order of the lane; at most a thousand.
    pub findings: Vec<Finding>,
    /// Findings that were counted only.
    pub findings_left_out: u64,
    /// The worst of all findings.
    pub worst: Option<Severity>,
}

/// The segments of the lane in `dir`, oldest first.
pub fn segments(dir: impl AsRef<Path>) -> Result<Vec<SegmentFacts>, ReadError> {
    let dir = dir.as_ref();
    let mut facts = Vec::new();
    for base in list(dir)? {
        let path = dir.join(segment::file_name(base));
        match facts_of(&path, base) {
            Ok(found) => facts.push(found),
            // Retired since the directory was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(ReadError::Io { path, error }),
        }
    }
    Ok(facts)
}

fn list(dir: &Path) -> Result<Vec<u64>, ReadError> {
    find(dir)?;
    segment::list(dir).map_err(|error| ReadError::Io { path: dir.to_owned(), error })
}

fn facts_of(path: &Path, base: u64) -> io::Result<SegmentFacts> {
    let (file, inspected) = segment::inspect(path, base)?;
    let file_bytes = file.metadata()?.len();
    let mut harm = None;
    let (state, header, footer) = match inspected {
        Inspected::Damaged(what) => (SegmentState::Unreadable(what), None, None),
        Inspected::Version(found) => (SegmentState::Version(found), None, None),
        Inspected::Segment(identity) => {
            let footer = segment::footer(&file, &identity)?;
            harm = segment::wear(&file, &identity)?.map(|wear| wear.to_string());
            (state_of(footer.as_ref()), Some(header_facts(&identity)), footer)
        }
    };
    let footer = footer.as_ref().map(footer_facts);
    Ok(SegmentFacts { path: path.to_owned(), base, file_bytes, state, harm, header, footer })
}

fn state_of(footer: Option<&Footer>) -> SegmentState {
    match footer {
        None => SegmentState::Open,
        Some(footer) if footer.flags.to_native() & FOOTER_RECOVERED != 0 => SegmentState::Recovered,
        Some(_) => SegmentState::Sealed,
    }
}

fn header_facts(identity: &Identity) -> HeaderFacts {
    HeaderFacts {
        lane_id: identity.lane_id,
        epoch: identity.epoch,
        sequence: identity.sequence,
        segment_bytes: identity.extent.bytes,
        created_ns: identity.created_ns,
        ack: [AckLevel::Written, AckLevel::Synced]
            .into_iter()
            .find(|ack| *ack as u8 == identity.ack),
    }
}

fn footer_facts(footer: &Footer) -> FooterFacts {
    FooterFacts {
        sealed_end: footer.sealed_end.to_native(),
        records: footer.records.to_native(),
        first_ns: footer.first_ns.to_native(),
        last_ns: footer.last_ns.to_native(),
        damaged: footer.damaged.to_native().into(),
        gaps: footer.gaps.to_native().into(),
    }
}
