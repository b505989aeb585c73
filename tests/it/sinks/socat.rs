//! TLS before a server that has none: socat, which every distribution has.

use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;

use super::process::{Process, START_WAIT};
use crate::support::eventually;

/// Waits until a server takes connections.
pub(super) fn listening(process: &Process) {
    eventually("a server takes connections", START_WAIT, || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, process.port)).is_ok()
    });
}

/// Has socat do the TLS before this port.
pub(super) fn stand_before(outer: &mut Process, inner: u16, certificate: &Path, key: &Path) {
    let listen = format!(
        "OPENSSL-LISTEN:{},bind=127.0.0.1,cert={},key={},verify=0,fork,reuseaddr",
        outer.port,
        certificate.display(),
        key.display()
    );
    outer.spawn(Command::new("socat").arg(listen).arg(format!("TCP:127.0.0.1:{inner}")));
    listening(outer);
}
