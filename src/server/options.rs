//! The limits of the API port.

use std::time::Duration;

use super::{metrics::PortMetrics, peer_account::PeerLimits, workers::Workers};
use crate::entropy::Entropy;

/// The threads and the limits of the API port. Each is a setting, documented in docs/CONFIG.md.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The threads that serve the connections.
    pub workers: Workers,
    /// The most open connections. A further one replaces the oldest one of the peer that has the most, or
    /// waits if it is of that peer.
    pub connections_max: usize,
    /// The limits of one peer.
    pub peer_limits: PeerLimits,
    /// The time in which a connection must send the HTTP/2 preface, or the head of a request of HTTP/1.1.
    pub first_byte_timeout: Duration,
    /// The time limit of a TLS handshake.
    pub tls_handshake_timeout: Duration,
    /// The age at which a connection gets GOAWAY, or `connection: close` over HTTP/1.1, randomly varied by up
    /// to 10 %.
    pub connection_age: Duration,
    /// The idle time after which a connection gets GOAWAY; it is detected after at most twice this time.
    pub connection_idle: Duration,
    /// The time for which calls in flight may continue after GOAWAY.
    pub connection_age_grace: Duration,
    /// The interval of HTTP/2 keepalive pings.
    pub keepalive_interval: Duration,
    /// The time in which a peer must answer a keepalive ping.
    pub keepalive_timeout: Duration,
    /// The most calls in flight on a connection.
    pub streams_per_connection_max: u32,
    /// The most bytes of headers of a call.
    pub header_list_bytes_max: u32,
    /// The most bytes of one response that are buffered for a peer that does not read it.
    pub send_buffer_bytes_max: usize,
    /// The most bytes that are read and discarded of a request that was answered before it was complete.
    pub late_bytes_max: usize,
    /// The time for which such bytes are read.
    pub late_bytes_timeout: Duration,
    /// The most streams per second that the peer of a connection may reset as soon as they begin, or make the
    /// server reset; a burst may be as large as `streams_per_connection_max`. A connection that exceeds it
    /// gets GOAWAY, and is closed after another burst.
    pub resets_per_second_max: u32,
    /// The time limit of a shutdown.
    pub drain_deadline: Duration,
    /// Counts the connections.
    pub metrics: PortMetrics,
}

impl ServerOptions {
    /// Returns the maximum age of one connection: the setting, randomly varied by up to 10 % (gRFC A9), so
    /// that connections that were opened together are not all reopened together.
    pub(super) fn varied_age(&self, entropy: &Entropy) -> Duration {
        self.connection_age.mul_f64(0.9 + 0.2 * entropy.fraction())
    }
}
