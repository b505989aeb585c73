//! Payloads erased for good, records and their keys kept: the key of signed bytes too, which begins
//! a meta section.
//!
//! A sealed segment is copied without the payloads that go, and the copy takes the segment's name
//! in one step; the old file is unlinked. So every reader sees each byte as it was or not at all:
//! one that has the old file mapped ends with it, and bytes that a reader holds never change.
//! That costs a copy of every segment touched, in time and, while it lasts, in space. Overwriting
//! in place would cost the payloads alone, and would change records under the eyes of readers.
//!
//! A segment that a running writer still stores into is sealed first, on request: see `roll`.
//! Without a writer the purge takes the writer's lock and seals as a recovery does.
//!
//! A crash at any point leaves each segment as it was or purged, and perhaps a copy with the
//! extension `purge`, which the next purge or the next start of a writer removes. What is told of
//! a purge stands in the file `purges` of the lane, one line each.

mod copy;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;

use self::copy::{Victims, copy_without, same_but, take_place};
use crate::clock::Clock;
use crate::lane::{self, OpenError};
use crate::marks;
use crate::meta::Meta;
use crate::position::{Key, Kind, Position};
use crate::recover;
use crate::roll;
use crate::scan::{Found, Framed, Scanned};
use crate::segment::{self, Identity, Inspected};

/// The extension of a copy that has not taken its segment's place yet, or of a segment whose place
/// was taken.
pub(crate) const COPY_EXTENSION: &str = "purge";
/// The name of the journal, whose lock keeps a second purge of the lane away.
const JOURNAL_FILE: &str = "purges";
/// How long a writer is waited for that should seal a segment, and how often it is looked at.
const SEAL_WAIT: Duration = Duration::from_secs(30);
const SEAL_LOOK: Duration = Duration::from_millis(20);
/// How often it is asked: an earlier request may have taken this one along when it was removed.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Why a purge did not come to its end. What is erased stays erased; purge again for the rest.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// Another purge of the lane is at work.
    #[error("another purge is at work in {}", path.display())]
    Busy {
        /// The lane.
        path: PathBuf,
    },
    /// The lane cannot be sealed without its writer.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The writer of the lane did not seal a segment that holds what should go.
    #[error(
        "the writer of {} did not seal it within {} s; stop the server and purge again",
        path.display(),
        SEAL_WAIT.as_secs()
    )]
    NotSealed {
        /// The segment.
        path: PathBuf,
    },
    /// A copy does not hold what the segment held.
    #[error("the copy of {} does not hold what it should; the segment is as it was", path.display())]
    Copy {
        /// The segment.
        path: PathBuf,
    },
    /// The operating system refused something.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> PurgeError {
    let path = path.to_owned();
    move |error| PurgeError::Io { path, error }
}

/// A record that may be purged.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Where it is.
    pub position: Position,
    /// What it is, if this version knows.
    pub kind: Option<Kind>,
    /// The fingerprint of its event key.
    pub key: Key,
    /// The fingerprint of its signed bytes, of an event whose id is not among them.
    pub signed_key: Option<Key>,
    /// When the request arrived, unix time in nanoseconds.
    pub received_ns: u64,
    /// Its meta section; nothing if its payload does not hold, so that nobody knows whose it is.
    pub meta: Option<Meta<'a>>,
    /// Its body; nothing if its payload does not hold.
    pub body: Option<&'a [u8]>,
}

/// What a purge has found, or done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Records that were chosen.
    pub records: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Segments in which they lie; each is copied once.
    pub segments: u64,
    /// Bytes of these segments.
    pub segment_bytes: u64,
    /// Records that had been purged before.
    pub purged_before: u64,
    /// Damaged records that were not chosen, and stretches that are no record: what they hold
    /// cannot be told.
    pub unreadable: u64,
}

/// The right to purge a lane; held by one at a time.
#[derive(Debug)]
pub struct Purger {
    dir: PathBuf,
    journal: File,
    /// Held where nobody writes the lane, so that nobody begins to.
    writer_lock: Option<[File; 2]>,
    clock: Clock,
}

impl Purger {
    /// Takes the right to purge the lane in `dir`.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, PurgeError> {
        let dir = dir.as_ref().to_owned();
        let path = dir.join(JOURNAL_FILE);
        let journal = segment::writing().append(true).create(true).open(&path);
        let journal = journal.map_err(io_error(&path))?;
        match rustix::fs::flock(&journal, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(PurgeError::Busy { path: dir }),
            Err(error) => return Err(io_error(&path)(error.into())),
        }
        let writer_lock = match lane::lock(&dir) {
            Ok(lock) => Some(lock),
            Err(OpenError::Locked { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self { dir, journal, writer_lock, clock: Clock::System })
    }

    /// Adds a line to the lane's journal of purges and waits until it is on the medium.
    pub fn note(&mut self, line: &str) -> Result<(), PurgeError> {
        let written = writeln!(self.journal, "{line}").and_then(|()| self.journal.sync_all());
        written
            .and_then(|()| segment::sync_dir(&self.dir))
            .map_err(io_error(&self.dir.join(JOURNAL_FILE)))
    }

    /// Looks at every acknowledged record, and changes nothing.
    pub fn look(
        &self,
        mut choose: impl FnMut(&Candidate<'_>) -> bool,
    ) -> Result<Erased, PurgeError> {
        let mut erased = Erased::default();
        for base in self.list()? {
            let Some((_, scanned, limit)) = self.open_segment(base)? else { continue };
            victims(&scanned, limit, &mut choose, &mut erased);
        }
        Ok(erased)
    }

    /// Tells the keys of every acknowledged record that has two, whether it was purged or not: that of
    /// its event and that of its signed bytes.
    pub fn each_pair(&self, mut take: impl FnMut(Key, Key)) -> Result<(), PurgeError> {
        for base in self.list()? {
            let Some((_, scanned, limit)) = self.open_segment(base)? else { continue };
            let mut offset = scanned.extent().first();
            while let Found::Record(framed) | Found::Gap(framed) = scanned.find(offset, limit) {
                offset = framed.end;
                if let Some(signed) = scanned.signed_key(&framed) {
                    take(Key(framed.header.key), signed);
                }
            }
        }
        Ok(())
    }

    /// Erases the payload of every record that is acknowledged now and that `choose` chooses.
    pub fn erase(
        &mut self,
        mut choose: impl FnMut(&Candidate<'_>) -> bool,
    ) -> Result<Erased, PurgeError> {
        self.remove_copies()?;
        if self.writer_lock.is_some() {
            recover::seal(&self.dir)?;
        }
        let mut erased = Erased::default();
        for base in self.list()? {
            let path = self.dir.join(segment::file_name(base));
            let mut with_this = erased;
            // Once more where the writer has put another file in the segment's place meanwhile.
            while let Some((file, scanned, limit)) = self.open_segment(base)? {
                with_this = erased;
                let victims = victims(&scanned, limit, &mut choose, &mut with_this);
                if victims.records.is_empty() && victims.pads.is_empty() {
                    break;
                }
                if self.wait_until_sealed(&path, &file, &scanned.identity, limit)?
                    && self.rewrite(&path, &file, &scanned, &victims)?
                {
                    break;
                }
            }
            erased = with_this;
        }
        Ok(erased)
    }

    fn list(&self) -> Result<Vec<u64>, PurgeError> {
        segment::list(&self.dir).map_err(io_error(&self.dir))
    }

    /// A segment, mapped, and how far it may be looked at; nothing if it holds nothing that is
    /// acknowledged, or cannot be read.
    fn open_segment(&self, base: u64) -> Result<Option<(File, Scanned, u64)>, PurgeError> {
        let path = self.dir.join(segment::file_name(base));
        let open = || -> io::Result<Option<(File, Scanned, u64)>> {
            let (file, Inspected::Segment(identity)) = segment::inspect(&path, base)? else {
                return Ok(None);
            };
            let footer = segment::footer(&file, &identity)?;
            let limit = match footer {
                Some(footer) => footer.sealed_end.to_native(),
                None => self.unsealed_end(&identity)?,
            };
            let scanned = Scanned::new(&file, identity)?;
            Ok((limit > identity.extent.first()).then_some((file, scanned, limit)))
        };
        match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map_err(io_error(&path)),
        }
    }

    /// How far a segment without a footer may be read: to its end if nobody writes it.
    fn unsealed_end(&self, identity: &Identity) -> io::Result<u64> {
        if self.writer_lock.is_some() {
            return Ok(identity.extent.record_end());
        }
        let told = marks::open_for_reading(&self.dir)?.map(|marks| marks::acked(&marks));
        Ok(match told {
            Some((epoch, acked)) if epoch == u64::from(identity.epoch) => {
                acked.min(identity.extent.record_end())
            }
            _ => 0,
        })
    }

    /// False if another file has taken the place of this one, so that it never will be.
    fn wait_until_sealed(
        &self,
        path: &Path,
        file: &File,
        identity: &Identity,
        limit: u64,
    ) -> Result<bool, PurgeError> {
        let deadline = self.clock.monotonic() + SEAL_WAIT;
        let sealed = || segment::footer(file, identity).map(|footer| footer.is_some());
        let mut ask_at = self.clock.monotonic();
        while !sealed().map_err(io_error(path))? {
            if segment::was_replaced(file, path) {
                return Ok(false);
            }
            let now = self.clock.monotonic();
            if now >= ask_at {
                roll::ask(&self.dir, limit).map_err(io_error(&self.dir))?;
                ask_at = now + ASK_AGAIN;
            }
            if now > deadline {
                roll::withdraw(&self.dir);
                return Err(PurgeError::NotSealed { path: path.to_owned() });
            }
            std::thread::sleep(SEAL_LOOK);
        }
        Ok(true)
    }

    /// Puts a copy without the victims' payloads in the place of a sealed segment; false, and
    /// nothing is changed, if the writer has put another file there meanwhile.
    fn rewrite(
        &self,
        path: &Path,
        file: &File,
        scanned: &Scanned,
        victims: &Victims,
    ) -> Result<bool, PurgeError> {
        let copy_path = path.with_extension(COPY_EXTENSION);
        let copied = copy_without(file, &copy_path, scanned, victims);
        let copied = copied.map_err(io_error(&copy_path))?;
        if !same_but(scanned, &copied, victims) {
            fs::remove_file(&copy_path).map_err(io_error(&copy_path))?;
            return Err(PurgeError::Copy { path: path.to_owned() });
        }
        let exchanged = take_place(&copy_path, path).map_err(io_error(path))?;
        let right = !exchanged || !segment::was_replaced(file, &copy_path);
        if !right {
            take_place(&copy_path, path).map_err(io_error(path))?;
        }
        // The name first: a crash behind this leaves the old file to the next purge at the most.
        segment::sync_dir(&self.dir).map_err(io_error(&self.dir))?;
        match fs::remove_file(&copy_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error(&copy_path)(error));
            }
            _ => {}
        }
        segment::sync_dir(&self.dir).map_err(io_error(&self.dir))?;
        Ok(right)
    }

    /// Removes what a purge has left that was broken off.
    fn remove_copies(&self) -> Result<(), PurgeError> {
        for entry in fs::read_dir(&self.dir).map_err(io_error(&self.dir))? {
            let path = entry.map_err(io_error(&self.dir))?.path();
            if path.extension().is_some_and(|extension| extension == COPY_EXTENSION) {
                fs::remove_file(&path).map_err(io_error(&path))?;
            }
        }
        Ok(())
    }
}

/// What goes in a segment up to `limit`.
fn victims(
    scanned: &Scanned,
    limit: u64,
    choose: &mut dyn FnMut(&Candidate<'_>) -> bool,
    erased: &mut Erased,
) -> Victims {
    let mut victims = Victims { records: Vec::new(), pads: Vec::new() };
    let mut offset = scanned.extent().first();
    loop {
        let framed = match scanned.find(offset, limit) {
            Found::Record(framed) => framed,
            Found::Gap(framed) => {
                erased.unreadable += 1;
                framed
            }
            Found::Nothing => break,
        };
        offset = framed.end;
        if framed.is_pad() {
            let (_, inside) = scanned.sections(&framed);
            if inside.iter().any(|byte| *byte != 0) {
                victims.pads.push(framed);
            }
        } else if framed.is_purged() {
            erased.purged_before += 1;
        } else {
            let holds = scanned.payload_holds(&framed);
            let (meta, body) = scanned.sections(&framed);
            if choose(&candidate(scanned, &framed, holds.then_some((meta, body)))) {
                erased.bytes += (meta.len() + body.len()) as u64;
                victims.records.push(framed);
            } else if !holds {
                erased.unreadable += 1;
            }
        }
    }
    if !victims.records.is_empty() {
        erased.records += victims.records.len() as u64;
        erased.segments += 1;
        erased.segment_bytes += scanned.extent().bytes;
    }
    victims
}

fn candidate<'a>(
    scanned: &Scanned,
    framed: &Framed,
    payload: Option<(&'a [u8], &'a [u8])>,
) -> Candidate<'a> {
    Candidate {
        position: Position::new(scanned.identity.epoch, framed.start),
        kind: Kind::from_number(framed.header.kind),
        key: Key(framed.header.key),
        signed_key: scanned.signed_key(framed),
        received_ns: framed.header.received_ns.to_native(),
        meta: payload.map(|(meta, _)| Meta::new(meta)),
        body: payload.map(|(_, body)| body),
    }
}
