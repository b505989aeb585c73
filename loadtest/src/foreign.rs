//! Servers of others, as Debian packages them: started on a core of their own, in a folder of their
//! own, and ended with it.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use forebay_log::Clock;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::processor::{self, Cores};
use crate::wire::Answer;

/// How long a server may take until it listens.
const START_MAX: Duration = Duration::from_secs(10);

/// Which server, doing what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// nginx answers 200 and keeps nothing.
    NginxReturn,
    /// nginx writes the body into its access log. It reads bodies only for an upstream, so that
    /// each request goes on to a second server of the same worker, over a Unix socket.
    NginxLog,
    /// Redis adds the body to a stream, its append-only file synced every second.
    Redis,
    /// NATS with a `JetStream` on disk.
    Nats,
    /// PostgreSQL as it is set up by default.
    Postgres,
}

/// Who PostgreSQL lets in, without a password.
pub(crate) const POSTGRES_USER: &str = "forebay";

/// Where `tests/run sinks` puts a nats-server that is newer than Debian's.
const NATS_FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/sinks/.venv/bin");

impl Foreign {
    /// The program, if this machine has it.
    pub(crate) fn program(self) -> Option<PathBuf> {
        let name = match self {
            Self::NginxReturn | Self::NginxLog => "nginx",
            Self::Redis => "redis-server",
            Self::Nats => "nats-server",
            Self::Postgres => "postgres",
        };
        // Debian has one folder for each version.
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let newest = versions.map(|version| version.path().join("bin")).max();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let others = [PathBuf::from("/usr/sbin"), PathBuf::from(NATS_FOLDER)];
        let folders = newest.into_iter().chain(std::env::split_paths(&path)).chain(others);
        folders.map(|folder| folder.join(name)).find(|program| program.is_file())
    }

    /// Where the answer at the start of `bytes` ends.
    pub(crate) fn answer(self) -> fn(&[u8]) -> Option<(Answer, usize)> {
        match self {
            Self::Redis => resp,
            // The last two have clients of their own.
            Self::NginxReturn | Self::NginxLog | Self::Nats | Self::Postgres => crate::wire::answer,
        }
    }

    fn arguments(self, folder: &Path, port: u16) -> io::Result<Vec<String>> {
        let here = folder.display();
        if self == Self::Redis {
            let line = format!(
                "--bind 127.0.0.1 --port {port} --dir {here} --save \"\" --appendonly yes \
                 --appendfsync everysec --auto-aof-rewrite-percentage 0 --loglevel warning"
            );
            return Ok(line.split(' ').map(|word| word.trim_matches('"').to_owned()).collect());
        }
        if self == Self::Nats {
            let line =
                format!("--addr 127.0.0.1 --port {port} --jetstream --store_dir {here}/store");
            return Ok(line.split(' ').map(str::to_owned).collect());
        }
        if self == Self::Postgres {
            let line = format!(
                "-D {here}/data -p {port} -c listen_addresses=127.0.0.1 \
                 -c unix_socket_directories="
            );
            return Ok(line.split(' ').map(str::to_owned).collect());
        }
        let config = folder.join("nginx.conf");
        fs::write(&config, nginx(self == Self::NginxLog, folder, port))?;
        let log = folder.join("error.log");
        Ok(["-c".into(), config.display().to_string(), "-e".into(), log.display().to_string()]
            .into())
    }
}

/// A configuration with one worker. Everything that it could write lies in `folder`.
fn nginx(logs: bool, folder: &Path, port: u16) -> String {
    let here = folder.display();
    let location = if logs {
        format!(
            "access_log {here}/access.log body buffer=64k flush=1s; proxy_pass http://itself; \
             proxy_http_version 1.1; proxy_set_header Connection \"\";"
        )
    } else {
        "return 200;".to_owned()
    };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {here}/{what}; "))
        .concat();
    format!(
        "daemon off; worker_processes 1; pid {here}/pid; error_log {here}/error.log;\n\
         events {{ worker_connections 16384; }}\n\
         http {{\n{temporary}\n\
         keepalive_requests 1000000000; keepalive_timeout 300s; client_body_buffer_size 1m;\n\
         log_format body escape=json '$request_body'; access_log off;\n\
         upstream itself {{ server unix:{here}/socket; keepalive 1024; }}\n\
         server {{ listen unix:{here}/socket; location / {{ return 200; }} }}\n\
         server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ {location} }} }}\n}}\n"
    )
}

/// The answer to XADD: an id as a bulk string, or an error.
fn resp(bytes: &[u8]) -> Option<(Answer, usize)> {
    let line = bytes.windows(2).position(|window| window == b"\r\n")?;
    let text = std::str::from_utf8(&bytes[..line]).ok()?;
    let of = |status| Answer { status, closes: false };
    let Some(length) = text.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok())
    else {
        return Some((of(500), line + 2));
    };
    let end = line + 2 + length + 2;
    (bytes.len() >= end).then_some((of(200), end))
}

/// A request that adds a body to a stream.
pub(crate) fn xadd(body: &[u8], into: &mut Vec<u8>) {
    into.extend_from_slice(b"*5\r\n$4\r\nXADD\r\n$6\r\nevents\r\n$1\r\n*\r\n$4\r\nbody\r\n$");
    into.extend_from_slice(body.len().to_string().as_bytes());
    into.extend_from_slice(b"\r\n");
    into.extend_from_slice(body);
    into.extend_from_slice(b"\r\n");
}

/// One of them, running.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    child: Child,
    which: Foreign,
    /// Goes last.
    _folder: TempDir,
}

impl Running {
    /// Starts it on the server's core and waits until it listens.
    pub(crate) fn start(which: Foreign, cores: Cores, under: &Path) -> io::Result<Self> {
        // Freed before the server binds it; nobody else asks for ports in between.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        Self::start_at(which, address, cores, under)
    }

    /// The same on this address.
    pub(crate) fn start_at(
        which: Foreign,
        address: SocketAddr,
        cores: Cores,
        under: &Path,
    ) -> io::Result<Self> {
        let program = which.program().ok_or(io::ErrorKind::NotFound)?;
        let folder = tempfile::tempdir_in(under)?;
        // The worker of an nginx that root starts is somebody else.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let mut command = Command::new(&program);
        command.args(which.arguments(folder.path(), address.port())?);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        if which == Foreign::Postgres {
            prepare_postgres(&program, &mut command, folder.path())?;
        } else if which == Foreign::Nats {
            command.stderr(Stdio::null());
        }
        // A child stays on the cores of the thread that starts it.
        processor::stay_on(&[cores.server])?;
        let child = command.spawn();
        processor::stay_on(&[cores.generator])?;
        let child = child?;
        let mut running = Self { address, child, which, _folder: folder };
        running.listening().map_err(|error| {
            io::Error::other(format!("{} did not start: {error}", program.display()))
        })?;
        Ok(running)
    }

    /// It and what it has started.
    pub(crate) fn processes(&self) -> io::Result<Vec<u32>> {
        let process = self.child.id();
        let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"))?;
        let children = children.split_ascii_whitespace().filter_map(|digits| digits.parse().ok());
        Ok(std::iter::once(process).chain(children).collect())
    }

    /// Sends a signal to it and to what it has started.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        for process in self.processes()? {
            if let Some(process) = Pid::from_raw(process.cast_signed()) {
                kill_process(process, signal)?;
            }
        }
        Ok(())
    }

    fn listening(&mut self) -> io::Result<()> {
        let until = Clock::System.monotonic() + START_MAX;
        loop {
            match TcpStream::connect(self.address) {
                Ok(_) => return Ok(()),
                Err(error) if Clock::System.monotonic() > until => return Err(error),
                Err(_) => {}
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(status.to_string()));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Makes a cluster, and has it run as somebody who is not root, which PostgreSQL refuses to be.
fn prepare_postgres(program: &Path, command: &mut Command, folder: &Path) -> io::Result<()> {
    let mut initdb = Command::new(program.with_file_name("initdb"));
    initdb.args([
        "--no-sync",
        "--auth",
        "trust",
        "--username",
        POSTGRES_USER,
        "--encoding",
        "UTF8",
    ]);
    initdb.args(["--locale", "C", "--pgdata"]).arg(folder.join("data")).current_dir(folder);
    command.current_dir(folder).stderr(Stdio::null());
    if rustix::process::geteuid().is_root() {
        let users = fs::read_to_string("/etc/passwd")?;
        let line = users.lines().find_map(|line| line.strip_prefix("postgres:"));
        let mut fields = line.into_iter().flat_map(|line| line.split(':').skip(1));
        let mut next = || fields.next().and_then(|field| field.parse::<u32>().ok());
        let (Some(user), Some(group)) = (next(), next()) else {
            return Err(io::Error::other("there is no user postgres to run it as"));
        };
        std::os::unix::fs::chown(folder, Some(user), Some(group))?;
        initdb.uid(user).gid(group);
        command.uid(user).gid(group);
    }
    let made = initdb.output()?;
    if made.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("initdb: {}", String::from_utf8_lossy(&made.stderr))))
}

impl Drop for Running {
    fn drop(&mut self) {
        // A server that was stopped takes no other signal. One that is gone needs none.
        let _ = self.signal(Signal::CONT);
        // nginx ends its worker at SIGTERM and not at SIGKILL; PostgreSQL would wait for its clients.
        let how = if self.which == Foreign::Postgres { Signal::INT } else { Signal::TERM };
        if let Some(process) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process(process, how);
        }
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_redis_ends_where_its_length_says() {
        let added = b"$15\r\n1526919030474-0\r\n";
        let of = |status| Answer { status, closes: false };
        assert_eq!(resp(added), Some((of(200), added.len())));
        assert_eq!(resp(&added[..added.len() - 1]), None);
        assert_eq!(resp(b"$15"), None);
        assert_eq!(resp(b"-OOM no room\r\n"), Some((of(500), 14)));
    }

    #[test]
    fn a_body_is_one_field_of_an_entry() {
        let mut bytes = Vec::new();
        xadd(b"{\"a\":1}", &mut bytes);
        assert!(bytes.starts_with(b"*5\r\n$4\r\nXADD\r\n$6\r\nevents\r\n"));
        assert!(bytes.ends_with(b"\r\n$4\r\nbody\r\n$7\r\n{\"a\":1}\r\n"));
    }
}
