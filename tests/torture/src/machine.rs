//! Whether this machine can do what a campaign needs, and a place that leaves nothing behind.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::mount::{FileSystem, Mounted};

/// Set in the environment once the process lives in a mount namespace of its own.
const PRIVATE: &str = "FOREBAY_TORTURE_PRIVATE_MOUNTS";

/// Why this machine cannot run a campaign.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unable {
    #[error("{program} is not installed: apt-get install {package}")]
    Program { program: &'static str, package: &'static str },
    #[error("this process may not mount: {said} (run as root, in a container with SYS_ADMIN)")]
    Mounts { said: String },
    #[error("{path} cannot be opened: {cause} (the kernel or the container lacks it)")]
    Device { path: &'static str, cause: io::Error },
    #[error("the kernel does not know {0}")]
    FileSystem(&'static str),
}

/// A folder in memory that vanishes with the process, in a mount namespace of its own.
#[derive(Debug)]
pub(crate) struct Scratch {
    // Dropped in this order: first what is mounted, then the folder it was mounted on.
    _memory: Option<Mounted>,
    folder: tempfile::TempDir,
}

impl Scratch {
    /// A scratch folder in memory; the process must be private (see `go_private`).
    pub(crate) fn mounted() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("forebay-torture-").tempdir()?;
        let memory = Mounted::memory(None, folder.path())?;
        Ok(Self { _memory: Some(memory), folder })
    }

    /// A scratch folder for campaigns that mount nothing: in memory where there is such a place.
    pub(crate) fn plain() -> io::Result<Self> {
        let shared_memory = Path::new("/dev/shm");
        let mut builder = tempfile::Builder::new();
        builder.prefix("forebay-torture-");
        let folder = match builder.tempdir_in(shared_memory) {
            Ok(folder) => folder,
            Err(_) => builder.tempdir()?,
        };
        Ok(Self { _memory: None, folder })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A path below the folder.
    pub(crate) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Starts this program over in a mount namespace of its own, unless it is in one already.
///
/// What it mounts there is seen by nobody else and goes away with it, however it ends.
pub(crate) fn go_private() -> Result<(), Unable> {
    if std::env::var_os(PRIVATE).is_some() {
        return Ok(());
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--"]);
        command
    };
    let probe = unshare().arg("true").stdin(Stdio::null()).output();
    let probe = probe.map_err(|_| Unable::Program { program: "unshare", package: "util-linux" })?;
    if !probe.status.success() {
        let said = String::from_utf8_lossy(&probe.stderr).trim().to_owned();
        return Err(Unable::Mounts { said });
    }
    let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    let mut again = unshare();
    again.arg(program).args(std::env::args_os().skip(1)).env(PRIVATE, "1").env("PATH", path());
    // Returns only if it fails.
    Err(Unable::Mounts { said: again.exec().to_string() })
}

/// What loop devices and these file systems need.
pub(crate) fn needs_file_systems(kinds: &[FileSystem]) -> Result<(), Unable> {
    needs_device("/dev/loop-control")?;
    needs_program("mount", "mount")?;
    for kind in kinds {
        needs_program(kind.maker(), kind.package())?;
        let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        // A file system may still come as a module; only where there is no loader is it missing.
        let listed = known.lines().any(|line| line.trim() == kind.name());
        if !listed && !Path::new("/proc/modules").exists() {
            return Err(Unable::FileSystem(kind.name()));
        }
    }
    Ok(())
}

/// What the block recorder needs.
pub(crate) fn needs_recorder() -> Result<(), Unable> {
    needs_device("/dev/fuse")
}

fn needs_device(path: &'static str) -> Result<(), Unable> {
    let opened = std::fs::File::options().read(true).write(true).open(path);
    opened.map(drop).map_err(|cause| Unable::Device { path, cause })
}

fn needs_program(program: &'static str, package: &'static str) -> Result<(), Unable> {
    let found = std::env::split_paths(&path()).any(|folder| folder.join(program).is_file());
    if found { Ok(()) } else { Err(Unable::Program { program, package }) }
}

/// Where programs are looked for: what makes file systems is not on every user's path.
fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}
