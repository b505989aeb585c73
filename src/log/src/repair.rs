//! Makes a lane openable again and keeps everything in it that can be read.
//!
//! Only where nobody writes: the writer's lock is held. Nothing is destroyed: whatever is replaced
//! goes to the folder `aside` of the lane first, whole or as a copy of the page that changes.
//! What remains when this has done its part is what a recovery does, and that is done as well.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

use crate::format::{
    HEADER_COPY_AT, PAGE_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SegmentHeader,
};
use crate::lane::{self, OpenError};
use crate::recover::{self, Recovery};
use crate::restore::{self, Known};
use crate::segment::{self, Identity, Inspected, Wear};

/// The folder of a lane that takes what a repair replaces.
const ASIDE_DIR: &str = "aside";
/// So often a free name in it is looked for.
const NAMES_MAX: u32 = 10_000;

/// What a repair does to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cure {
    /// Moved to `aside`: it keeps a writer from opening the lane.
    Aside,
    /// Given the name that its header says.
    Renamed,
    /// Replaced by a copy of full length; the short one is moved to `aside`.
    Lengthened,
    /// Its header is made again; the page that was there is copied to `aside`.
    Header,
    /// The copy of its header is made again; the page that was there is copied to `aside`.
    HeaderCopy,
    /// Its footer is made again; the page that was there is copied to `aside`.
    Footer,
    /// Left as it is: nothing can be read from it, and a writer steps over it.
    Left,
}

/// One file that is not as it should be, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
    /// What is done.
    pub cure: Cure,
    /// Where the file, or the page of it that was replaced, is kept.
    pub kept: Option<PathBuf>,
}

/// What a repair has done, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// The files, in the order in which they were taken.
    pub steps: Vec<Step>,
    /// What the lane holds now; nothing if nothing was done.
    pub recovery: Option<Recovery>,
}

/// A step, and the bytes that it needs.
struct Planned {
    step: Step,
    bytes: Option<[u8; 128]>,
}

/// Repairs the lane in `dir`, or with `dry` only says what that would be.
pub fn repair(dir: impl AsRef<Path>, dry: bool) -> Result<Repaired, OpenError> {
    let dir = dir.as_ref();
    if !dir.is_dir() {
        let error = io::Error::from(io::ErrorKind::NotFound);
        return Err(OpenError::io(dir)(error));
    }
    let _lock = lane::lock(dir)?;
    let mut repaired = Repaired::default();
    // A name that is set right may reveal what another file is, and a length what a header says.
    for _ in 0..3 {
        let planned = plan(dir)?;
        let again = planned.iter().any(|planned| planned.step.cure != Cure::Left);
        for Planned { mut step, bytes } in planned {
            if repaired.steps.iter().any(|done| done.path == step.path && done.cure == step.cure) {
                continue;
            }
            if !dry {
                let done = perform(dir, &mut step, bytes.as_ref());
                done.map_err(OpenError::io(&step.path))?;
            }
            repaired.steps.push(step);
        }
        if dry || !again {
            break;
        }
    }
    if !dry {
        repaired.recovery = Some(recover::seal(dir)?);
    }
    Ok(repaired)
}

/// What a file is, as far as a repair has to know.
enum Found {
    Sound(Identity),
    Wrong(&'static str),
    Version(u32),
}

fn plan(dir: &Path) -> Result<Vec<Planned>, OpenError> {
    let mut found = Vec::new();
    for base in segment::list(dir).map_err(OpenError::io(dir))? {
        let path = dir.join(segment::file_name(base));
        let (file, inspected) = segment::inspect(&path, base).map_err(OpenError::io(&path))?;
        let is = match inspected {
            Inspected::Segment(identity) => Found::Sound(identity),
            Inspected::Version(version) => Found::Version(version),
            Inspected::Damaged(what) => Found::Wrong(what),
        };
        found.push((path, file, base, is));
    }
    let sound: Vec<Identity> = found
        .iter()
        .filter_map(|(.., is)| if let Found::Sound(identity) = is { Some(*identity) } else { None })
        .collect();
    let lane_id = lane_id_of(&sound);
    let mut planned = Vec::new();
    for (path, file, base, is) in &found {
        let one = match is {
            Found::Version(version) => {
                Some((Cure::Aside, format!("has format version {version}"), None))
            }
            Found::Sound(identity) if Some(identity.lane_id) != lane_id => {
                Some((Cure::Aside, "belongs to another lane".to_owned(), None))
            }
            Found::Sound(identity) => cure_of_sound(file, identity).map_err(OpenError::io(path))?,
            Found::Wrong(what) => {
                let known = lane_id.map(|lane_id| known_of(&sound, lane_id, *base));
                let (cure, bytes) =
                    cure(dir, file, *base, known.as_ref()).map_err(OpenError::io(path))?;
                Some((cure, (*what).to_owned(), bytes))
            }
        };
        planned.extend(one.map(|(cure, what, bytes)| {
            let step = Step { path: path.clone(), what, cure, kept: None };
            Planned { step, bytes }
        }));
    }
    Ok(planned)
}

/// What is done to a file, why, and with which header.
type Diagnosis = (Cure, String, Option<[u8; 128]>);

/// What can be done about a segment that can be read.
fn cure_of_sound(file: &File, identity: &Identity) -> io::Result<Option<Diagnosis>> {
    let header = identity.header().sealed_bytes();
    if let Some(wear) = segment::wear(file, identity)? {
        let cure = match wear {
            Wear::Cut { .. } => Cure::Lengthened,
            Wear::Header => Cure::Header,
            Wear::Copy => Cure::HeaderCopy,
        };
        return Ok(Some((cure, wear.to_string(), Some(header))));
    }
    let lost = footer_is_lost(file, identity)?;
    Ok(lost.then(|| (Cure::Footer, "has a footer that does not hold".to_owned(), None)))
}

/// The id that most segments have.
fn lane_id_of(sound: &[Identity]) -> Option<[u8; 16]> {
    let votes = |id: &[u8; 16]| sound.iter().filter(|other| other.lane_id == *id).count();
    sound.iter().map(|identity| identity.lane_id).max_by_key(votes)
}

/// What the neighbours of a segment tell of it.
fn known_of(sound: &[Identity], lane_id: [u8; 16], base: u64) -> Known {
    let own = || sound.iter().filter(|identity| identity.lane_id == lane_id);
    let before = own().rfind(|identity| identity.extent.base < base);
    let after = own().find(|identity| identity.extent.base > base);
    let near = before.or(after);
    let sequence = before
        .map(|before| before.sequence.saturating_add(1))
        .or(after.map(|after| after.sequence.saturating_sub(1)));
    Known {
        lane_id,
        base,
        epoch: near.map_or(1, |near| near.epoch),
        sequence: sequence.unwrap_or(0),
        ack: near.map_or(1, |near| near.ack),
    }
}

/// Whether something stands where the footer goes, and is none.
fn footer_is_lost(file: &File, identity: &Identity) -> io::Result<bool> {
    let mut bytes = [0; 128];
    file.read_exact_at(&mut bytes, identity.extent.bytes - PAGE_BYTES)?;
    Ok(segment::footer(file, identity)?.is_none() && bytes.iter().any(|byte| *byte != 0))
}

/// What can be done about a file that is no segment of its name.
fn cure(
    dir: &Path,
    file: &File,
    base: u64,
    known: Option<&Known>,
) -> io::Result<(Cure, Option<[u8; 128]>)> {
    let mut bytes = [0; 128];
    if file.metadata()?.len() < 128 {
        return Ok((Cure::Left, None));
    }
    file.read_exact_at(&mut bytes, 0)?;
    if let Some(header) = SegmentHeader::read(bytes) {
        let (own_base, own_bytes) = (header.base.to_native(), header.segment_bytes.to_native());
        let bounded = (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&own_bytes);
        if !bounded || !own_bytes.is_multiple_of(PAGE_BYTES) {
            return Ok((Cure::Left, None));
        }
        if own_base == base {
            return Ok((Cure::Lengthened, Some(bytes)));
        }
        let free = !dir.join(segment::file_name(own_base)).exists();
        return Ok((if free { Cure::Renamed } else { Cure::Left }, Some(bytes)));
    }
    let Some(known) = known else { return Ok((Cure::Left, None)) };
    let made = restore::header(file, known)?;
    Ok((if made.is_some() { Cure::Header } else { Cure::Left }, made))
}

fn perform(dir: &Path, step: &mut Step, bytes: Option<&[u8; 128]>) -> io::Result<()> {
    let header = bytes.and_then(|bytes| SegmentHeader::read(*bytes));
    match (step.cure, header) {
        (Cure::Aside, _) => step.kept = Some(move_aside(dir, &step.path)?),
        (Cure::Footer, _) => {
            // Recovery writes over it, once it has scanned the segment.
            let at = fs::metadata(&step.path)?.len() - PAGE_BYTES;
            step.kept = Some(copy_page_aside(dir, &step.path, at, "footer")?);
        }
        (Cure::Header, Some(header)) => {
            step.kept = Some(copy_page_aside(dir, &step.path, 0, "header")?);
            write_headers(&step.path, &header)?;
        }
        (Cure::HeaderCopy, Some(header)) => {
            let at = fs::metadata(&step.path)?.len() - PAGE_BYTES;
            step.kept = Some(copy_page_aside(dir, &step.path, at, "copy")?);
            write_headers(&step.path, &header)?;
        }
        (Cure::Renamed, Some(header)) => {
            fs::rename(&step.path, dir.join(segment::file_name(header.base.to_native())))?;
        }
        (Cure::Lengthened, Some(header)) => {
            let long = lengthened(&step.path, header.segment_bytes.to_native())?;
            write_headers(&long, &header)?;
            step.kept = Some(move_aside(dir, &step.path)?);
            fs::rename(long, &step.path)?;
        }
        (Cure::Left | Cure::Header | Cure::HeaderCopy | Cure::Renamed | Cure::Lengthened, _) => {}
    }
    segment::sync_dir(dir)
}

/// Writes the header of a segment of full length, and the copy of it.
fn write_headers(path: &Path, header: &SegmentHeader) -> io::Result<()> {
    let file = segment::writing().open(path)?;
    let bytes = header.sealed_bytes();
    let last_page = header.segment_bytes.to_native().saturating_sub(PAGE_BYTES);
    file.write_all_at(&bytes, 0)?;
    file.write_all_at(&bytes, last_page + HEADER_COPY_AT)?;
    file.sync_all()
}

/// A durable copy of a file that was cut short, zeros behind what there is.
fn lengthened(path: &Path, bytes: u64) -> io::Result<PathBuf> {
    // A leftover of this name is removed by the next start.
    let long_path = path.with_extension("new");
    let mut long = segment::writing().create(true).truncate(true).open(&long_path)?;
    rustix::fs::fallocate(&long, FallocateFlags::empty(), 0, bytes)?;
    io::copy(&mut File::open(path)?.take(bytes), &mut long)?;
    long.sync_all()?;
    Ok(long_path)
}

fn move_aside(dir: &Path, path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let kept = free_name(dir, &name)?;
    fs::rename(path, &kept)?;
    segment::sync_dir(&dir.join(ASIDE_DIR))?;
    Ok(kept)
}

fn copy_page_aside(dir: &Path, path: &Path, at: u64, what: &str) -> io::Result<PathBuf> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let kept = free_name(dir, &format!("{name}.{what}"))?;
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(at))?;
    let mut page = Vec::new();
    file.take(PAGE_BYTES).read_to_end(&mut page)?;
    let mut copy = segment::writing().create_new(true).open(&kept)?;
    copy.write_all(&page)?;
    copy.sync_all()?;
    segment::sync_dir(&dir.join(ASIDE_DIR))?;
    Ok(kept)
}

/// A name in the folder for what is replaced that nothing has yet.
fn free_name(dir: &Path, name: &str) -> io::Result<PathBuf> {
    let aside = dir.join(ASIDE_DIR);
    DirBuilder::new().recursive(true).mode(0o750).create(&aside)?;
    (0..NAMES_MAX)
        .map(|count| match count {
            0 => aside.join(name),
            count => aside.join(format!("{name}.{count}")),
        })
        .find(|path| !path.exists())
        .ok_or_else(|| io::Error::other("the folder `aside` is full of files of this name"))
}
