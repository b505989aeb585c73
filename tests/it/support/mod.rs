//! What every test needs: a server on a free address, a client that may misbehave, a signer that
//! shares no code with the server, and the log as a consumer sees it.

pub(crate) mod http;
pub(crate) mod load;
pub(crate) mod log;
pub(crate) mod random;
pub(crate) mod server;
pub(crate) mod sign;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use forebay_log::Clock;

/// How a receiver waits for its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    Epoll,
    IoUring,
}

impl Driver {
    /// The name in configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Epoll => "epoll",
            Self::IoUring => "io_uring",
        }
    }

    /// Whether this kernel lets this process use the driver. Says so where it does not.
    pub(crate) fn usable(self) -> bool {
        if self == Self::Epoll {
            return true;
        }
        let Err(error) = io_uring::IoUring::new(8) else { return true };
        assert!(
            std::env::var_os("IT_REQUIRE_IO_URING").is_none(),
            "io_uring is required here and the kernel refuses it: {error}"
        );
        eprintln!("SKIPPED: the kernel refuses io_uring ({error}); only epoll is tested");
        false
    }
}

/// Declares each test once for every driver, as `epoll::NAME` and `io_uring::NAME`.
macro_rules! for_each_driver {
    ($($name:ident),+ $(,)?) => {
        for_each_driver!(@one epoll, Epoll, $($name),+);
        for_each_driver!(@one io_uring, IoUring, $($name),+);
    };
    (@one $module:ident, $driver:ident, $($name:ident),+) => {
        mod $module {
            use crate::support::Driver;
            $(
                #[test]
                fn $name() {
                    if Driver::$driver.usable() {
                        super::$name(Driver::$driver);
                    }
                }
            )+
        }
    };
}

/// A number from the environment, or its default.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

/// The port of a destination that knows nobody: it answers everything with 401.
pub(crate) fn stranger() -> u16 {
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = stranger.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in stranger.incoming().flatten() {
            let answer =
                "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            // Whoever has gone needs no answer. What is still unread when a socket is closed resets the
            // connection, and the answer may be lost with it; so until the peer has closed it.
            _ = stream
                .set_read_timeout(Some(Duration::from_secs(1)))
                .and_then(|()| stream.read(&mut [0; 4096]))
                .and_then(|_| stream.write_all(answer.as_bytes()))
                .and_then(|()| std::io::copy(&mut stream, &mut std::io::sink()));
        }
    });
    port
}

/// Asks until the answer is yes, and fails with `what` when it stays no.
pub(crate) fn eventually(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Clock::System.monotonic() + within;
    while !holds() {
        assert!(Clock::System.monotonic() < deadline, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
