//! Real file systems on loop devices, made, mounted and taken away again.
//!
//! Everything here happens in a mount namespace of this process alone (see `machine`), so that
//! nothing stays mounted even if the process is killed: the kernel takes the mounts away with the
//! namespace, and the loop devices, which clear themselves, with the mounts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};

/// A file system that a lane may live on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub(crate) enum FileSystem {
    /// Journal of blocks.
    Ext4,
    /// Journal of changes.
    Xfs,
    /// Copy on write.
    Btrfs,
}

impl FileSystem {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// The program that makes one.
    pub(crate) fn maker(self) -> &'static str {
        match self {
            Self::Ext4 => "mkfs.ext4",
            Self::Xfs => "mkfs.xfs",
            Self::Btrfs => "mkfs.btrfs",
        }
    }

    /// The Debian package that has the program.
    pub(crate) fn package(self) -> &'static str {
        match self {
            Self::Ext4 => "e2fsprogs",
            Self::Xfs => "xfsprogs",
            Self::Btrfs => "btrfs-progs",
        }
    }

    /// The smallest disk that holds one and a lane of some segments.
    pub(crate) fn disk_bytes(self) -> u64 {
        match self {
            // Two block groups: with one alone there would be no second superblock to repair from.
            Self::Ext4 => 144 << 20,
            Self::Xfs => 320 << 20,
            Self::Btrfs => 160 << 20,
        }
    }

    /// What a power cut leaves whole at least: more than a disk's sector only where the file
    /// system itself does not survive less.
    pub(crate) fn tear_bytes(self) -> usize {
        match self {
            Self::Ext4 | Self::Xfs => 512,
            // Its superblocks are of 4096 bytes, in place; it takes the disk to write those whole.
            Self::Btrfs => 4096,
        }
    }

    fn maker_options(self) -> &'static [&'static str] {
        match self {
            // Nothing is left to be written later by the kernel: the trace is the lane's alone.
            Self::Ext4 => &[
                "-q",
                "-F",
                "-b",
                "4096",
                "-E",
                "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
            ],
            Self::Xfs | Self::Btrfs => &["-q", "-f", "-K"],
        }
    }

    fn mount_options(self) -> &'static str {
        match self {
            Self::Ext4 | Self::Btrfs => "loop,noatime,nodiscard",
            Self::Xfs => "loop,noatime,nouuid,nodiscard",
        }
    }

    /// Repairs one that a power cut has left past mounting, as the start of a machine does; false
    /// if there is no such thing. ext4 writes its superblock of two sectors in place, outside of
    /// the journal, so that a tear between the two needs its checker.
    pub(crate) fn repair(self, file: &Path) -> io::Result<bool> {
        if self != Self::Ext4 {
            return Ok(false);
        }
        let mut check = Command::new("e2fsck");
        let status = check.args(["-f", "-y"]).arg(file).stdin(Stdio::null()).output()?.status;
        // 1 says that errors were corrected.
        Ok(matches!(status.code(), Some(0 | 1)))
    }

    /// Makes an empty one in a new file of `bytes`.
    pub(crate) fn make(self, file: &Path, bytes: u64) -> io::Result<()> {
        fs::File::create(file)?.set_len(bytes)?;
        run(Command::new(self.maker()).args(self.maker_options()).arg(file))
    }
}

/// Something mounted, until this is dropped.
#[derive(Debug)]
pub(crate) struct Mounted {
    at: Option<PathBuf>,
}

impl Mounted {
    /// Mounts the file system in `image` at the folder `at`, which is made.
    pub(crate) fn image(kind: FileSystem, image: &Path, at: &Path) -> io::Result<Self> {
        fs::create_dir_all(at)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", kind.name(), "-o", kind.mount_options()]);
        run(mount.arg(image).arg(at))?;
        Ok(Self { at: Some(at.to_owned()) })
    }

    /// Mounts a file system in memory, of this size, at the folder `at`, which is made.
    pub(crate) fn memory(bytes: Option<u64>, at: &Path) -> io::Result<Self> {
        fs::create_dir_all(at)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs"]);
        if let Some(bytes) = bytes {
            mount.arg("-o").arg(format!("size={bytes}"));
        }
        run(mount.arg("forebay-torture").arg(at))?;
        Ok(Self { at: Some(at.to_owned()) })
    }

    /// Unmounts, and tells if it could not.
    pub(crate) fn unmount(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        let Some(at) = self.at.take() else { return Ok(()) };
        // A process that was just killed lets go of its files a moment after it was waited for.
        for _ in 0..500 {
            match unmount(&at, UnmountFlags::empty()) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::BUSY) => thread::sleep(Duration::from_millis(10)),
                Err(errno) => return Err(errno.into()),
            }
        }
        unmount(&at, UnmountFlags::DETACH)?;
        Err(io::Error::other(format!("{} is still in use", at.display())))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Nobody is left to tell: `unmount` is the way to hear of a failure.
        let _ = self.end();
    }
}

/// Runs a program to its end; what it wrote to its standard error becomes the error.
fn run(command: &mut Command) -> io::Result<()> {
    let done = command.stdin(Stdio::null()).stdout(Stdio::null()).output()?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let program = command.get_program().to_string_lossy();
    Err(io::Error::other(format!("{program} failed ({}): {}", done.status, said.trim())))
}
