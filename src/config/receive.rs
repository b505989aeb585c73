//! `[receive]` and `[admin]`: where the receivers listen, and every deadline and bound of theirs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::section::Section;
use super::source::Source;
use super::units;
use crate::receive::{Proxies, ProxyKind};

/// How sockets are driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// What the machine allows and a measurement prefers.
    Auto,
    /// `io_uring`, or no start.
    IoUring,
    /// epoll.
    Epoll,
}

impl Driver {
    /// As the configuration spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// The receivers.
#[derive(Clone, Debug)]
pub struct ReceiveConfig {
    /// Where senders connect.
    pub listen: SocketAddr,
    /// How many threads receive.
    pub receivers: usize,
    /// How sockets are driven.
    pub driver: Driver,
    /// The largest body, where the source does not say otherwise.
    pub body_bytes_max: u64,
    /// Body bytes that have come and are held at once in one receiver.
    pub body_budget_bytes: u64,
    /// From a request's first byte to the end of its head.
    pub head_timeout: Duration,
    /// From the end of the head to the end of the body.
    pub body_timeout: Duration,
    /// Bytes a second below which a body is too slow.
    pub body_rate_min: u64,
    /// How long a connection may wait between requests.
    pub idle_timeout: Duration,
    /// How long an answer may take to be written.
    pub write_timeout: Duration,
    /// How long open requests may take after SIGTERM.
    pub drain_timeout: Duration,
    /// Connections that one address may have open in one receiver.
    pub connections_per_address: Option<u64>,
    /// Refused requests of one address in one receiver within a minute.
    pub failures_per_address: Option<u64>,
    /// The proxies in front.
    pub proxies: Arc<Proxies>,
}

/// The listener for operators.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// Where metrics and health are asked.
    pub listen: SocketAddr,
}

pub(super) fn read(section: &Section<'_>) -> Option<ReceiveConfig> {
    let listen = section.address("listen");
    let receivers = if section.has("receivers") {
        section.count("receivers").and_then(|count| usize::try_from(count).ok())
    } else {
        Some(thread::available_parallelism().map_or(1, usize::from))
    };
    let driver = section.choice("driver");
    let body_bytes_max = section.size("body_max");
    let body_budget_bytes = section.size("body_budget");
    let head_timeout = section.duration("head_timeout");
    let body_timeout = section.duration("body_timeout");
    let body_rate_min = section.size("body_rate_min");
    let idle_timeout = section.duration("idle_timeout");
    let write_timeout = section.duration("write_timeout");
    let drain_timeout = section.duration("drain_timeout");
    let trusted = section.networks("trusted_proxies");
    let kind = section.choice("proxy_header");
    if section.has("proxy_header") && !section.has("trusted_proxies") {
        section.missing("trusted_proxies", "name the proxies: trusted_proxies = [\"10.0.0.0/8\"]");
    }
    Some(ReceiveConfig {
        listen: listen?,
        receivers: receivers?,
        driver: match driver? {
            "io_uring" => Driver::IoUring,
            "epoll" => Driver::Epoll,
            _ => Driver::Auto,
        },
        body_bytes_max: body_bytes_max?,
        body_budget_bytes: body_budget_bytes?,
        head_timeout: head_timeout?,
        body_timeout: body_timeout?,
        body_rate_min: body_rate_min?,
        idle_timeout: idle_timeout?,
        write_timeout: write_timeout?,
        drain_timeout: drain_timeout?,
        connections_per_address: section.count("connections_per_address"),
        failures_per_address: section.count("failures_per_address"),
        proxies: Arc::new(Proxies {
            trusted: trusted?,
            kind: match kind? {
                "proxy-protocol" => ProxyKind::ProxyProtocol,
                _ => ProxyKind::ForwardedFor,
            },
        }),
    })
}

/// A body that is larger than the budget could never be taken.
pub(super) fn check_budget(section: &Section<'_>, config: &ReceiveConfig, sources: &[Source]) {
    let largest_body = sources.iter().map(|source| source.body_bytes_max).max().unwrap_or(0);
    if config.body_budget_bytes < largest_body {
        section.refuse(
            "body_budget",
            "is smaller than the largest body",
            format!(
                "raise body_budget to at least \"{}\", or lower body_max",
                units::size_text(largest_body)
            ),
        );
    }
}

pub(super) fn read_admin(
    section: &Section<'_>,
    receive: Option<&ReceiveConfig>,
) -> Option<AdminConfig> {
    let listen = section.address("listen")?;
    // Port 0 asks the system for a free one, so two of them are no clash.
    if receive.is_some_and(|receive| receive.listen == listen) && listen.port() != 0 {
        section.refuse(
            "listen",
            "is the address that senders reach",
            "give it a port of its own, such as \"127.0.0.1:9464\"",
        );
    }
    Some(AdminConfig { listen })
}
