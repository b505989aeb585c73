//! The file system that a lane lies on: what it is and how much room it has.

use std::fs::File;
use std::io;
use std::path::Path;

const BTRFS: u64 = 0x9123_683e;
const EXT4: u64 = 0xef53;
const XFS: u64 = 0x5846_5342;
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;

/// The file system of a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Volume {
    kind: u64,
}

/// Room on a file system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) available_bytes: u64,
    pub(crate) all_bytes: u64,
}

impl Volume {
    pub(crate) fn of(dir: &Path) -> io::Result<Self> {
        let read = rustix::fs::fstatfs(File::open(dir)?)?;
        // The kernel's number is 32 bits wide, whatever the sign of the word that carries it.
        Ok(Self { kind: read.f_type.cast_unsigned() & 0xffff_ffff })
    }

    /// Whether a file must be exempt from copy-on-write, so that a store never needs new blocks.
    pub(crate) fn copies_on_write(self) -> bool {
        self.kind == BTRFS
    }

    /// The name of a file system that lives in memory.
    pub(crate) fn volatile(self) -> Option<&'static str> {
        match self.kind {
            TMPFS => Some("tmpfs"),
            RAMFS => Some("ramfs"),
            _ => None,
        }
    }

    /// The name of the file system, or the number of its type.
    pub(crate) fn name(self) -> String {
        match self.kind {
            BTRFS => "btrfs".to_owned(),
            EXT4 => "ext4".to_owned(),
            XFS => "xfs".to_owned(),
            TMPFS => "tmpfs".to_owned(),
            RAMFS => "ramfs".to_owned(),
            kind => format!("file system type {kind:#x}"),
        }
    }

    /// What an operator should know about the file system.
    pub(crate) fn warning(self) -> Option<String> {
        let known = [BTRFS, EXT4, XFS, TMPFS, RAMFS].contains(&self.kind);
        (!known).then(|| {
            format!(
                "file system type {:#x} is not among those that the log is tested on \
                 (ext4, XFS, btrfs): it may not keep what was synced",
                self.kind
            )
        })
    }
}

/// How much room the file system of `dir` has for this user.
pub(crate) fn room(dir: &Path) -> io::Result<Room> {
    let read = rustix::fs::fstatvfs(File::open(dir)?)?;
    Ok(Room {
        available_bytes: read.f_bavail.saturating_mul(read.f_frsize),
        all_bytes: read.f_blocks.saturating_mul(read.f_frsize),
    })
}

/// Whether an error says that the medium is broken, which does not pass by itself.
pub(crate) fn is_broken(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error();
    [Errno::IO, Errno::ROFS, Errno::NODEV].iter().any(|errno| code == Some(errno.raw_os_error()))
}

/// What an operator can do about an error, as the end of a sentence that tells it.
pub(crate) fn cure(error: &io::Error) -> &'static str {
    use rustix::io::Errno;
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::IO | Errno::NODEV) => {
            "; the disk fails: see the log of the kernel, and move the directory to one that works"
        }
        Some(Errno::ROFS) => {
            "; the file system is read-only, often after an error of its disk: see the log of the \
             kernel, check it, and mount it again"
        }
        Some(Errno::FAULT) => "; its disk has failed or is full, or the file was cut short",
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => {
            "; free some space, or raise the quota or the limit on file sizes"
        }
        Some(Errno::ACCESS | Errno::PERM) => "; give it to the user that runs this",
        _ => "",
    }
}

/// Whether an error says that there is no room, which passes by itself.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error();
    // EFAULT is what MADV_POPULATE_WRITE says of a page that the file system cannot back.
    [Errno::NOSPC, Errno::DQUOT, Errno::FBIG, Errno::FAULT]
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}
