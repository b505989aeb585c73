//! Every bound in the program that no configuration key changes, tied to one another.

use std::time::Duration;

/// The largest request head: request line and headers.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// What one read of a connection takes: most webhooks, head and body.
pub const READ_BYTES: usize = 8 * 1024;
/// The most header lines in one request.
pub const HEADERS_MAX: usize = 64;
/// The largest body that any source may be configured to take.
pub const BODY_BYTES_LIMIT: u64 = 32 * 1024 * 1024;
/// The most bytes of a refused body that are read away so that the peer sees the refusal.
pub const LINGER_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// How often a receiver looks for connections and waits that are late.
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(100);
/// The most of the time between two sweeps that counts for deadlines.
pub const BEAT_MAX: Duration = Duration::from_millis(200);
/// How long a connection is idle before it gives back what only hyper needs: two buffers of 8 KiB.
pub const REST_AFTER: Duration = Duration::from_secs(1);
/// The most connections of one receiver that go to rest in one sweep: a crowd would keep those that are
/// busy waiting, and an allocator gives pages back while others are freed, not behind the last.
pub const RESTS_MAX: usize = 128;
/// The most signatures of one request that are compared.
pub const SIGNATURES_MAX: usize = 8;
/// The most secrets that one source may hold.
pub const SECRETS_MAX: usize = 8;
/// The shortest secret that is not refused at load, unless the preset says otherwise.
pub const SECRET_BYTES_MIN: usize = 16;
/// The longest event id, event type, event time or tenant that a rule may extract; longer is
/// treated as absent.
pub const IDENTITY_BYTES_MAX: usize = 512;
/// The most events in one request; a longer list is kept as one event.
pub const ITEMS_MAX: usize = 16_384;
/// The most addresses whose failures one receiver remembers.
pub const ADDRESSES_MAX: usize = 4096;
/// The longest header of the PROXY protocol, its extensions included.
pub const PROXY_HEADER_BYTES_MAX: usize = 2048;
/// The shortest token in a path: 128 bits in base64url.
pub const PATH_TOKEN_BYTES_MIN: usize = 22;
/// The largest body that may be a handshake; such a one is taken whatever the load.
pub const HANDSHAKE_BYTES_MAX: u64 = 4096;
/// The longest challenge that is given back.
pub const CHALLENGE_BYTES_MAX: usize = 512;
/// The longest token of which a handshake's MAC is made.
pub const MAC_TOKEN_BYTES_MAX: usize = 128;
/// Invitations to confirm a subscription that wait to be followed; what is more is left to the
/// operator.
pub const CONFIRMATIONS_MAX: usize = 16;
/// How long a request that forebay makes itself may take in all.
pub const OUTGOING_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer to such a request.
pub const OUTGOING_BODY_BYTES_MAX: usize = 64 * 1024;
/// The most sources in one configuration.
pub const SOURCES_MAX: usize = 4096;
/// The most lanes in one configuration.
pub const LANES_MAX: usize = 64;
/// The most sinks in one configuration.
pub const SINKS_MAX: usize = 64;
/// The longest name of a sink: with a word before it, it names a cursor.
pub const SINK_NAME_BYTES_MAX: usize = 48;
/// How long a delivery waits for the outcome of its twin, and a record for its watermark.
pub const ACK_WAIT_MAX: Duration = Duration::from_secs(5);
/// The wait that a `Retry-After` asks for; the most impatient senders give up after 15 s.
pub const RETRY_AFTER: Duration = Duration::from_secs(2);

const _: () = assert!(HEAD_BYTES_MAX >= 8192, "hyper's buffer cannot be smaller");
const _: () = assert!(CHALLENGE_BYTES_MAX <= IDENTITY_BYTES_MAX, "no longer text is read");
const _: () = assert!(IDENTITY_BYTES_MAX < HEAD_BYTES_MAX);
const _: () = assert!(
    HANDSHAKE_BYTES_MAX <= READ_BYTES as u64,
    "a handshake has its room before its body comes"
);
