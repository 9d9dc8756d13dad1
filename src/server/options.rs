//! The limits of the gRPC port.

use std::time::Duration;

/// The limits of the gRPC port. Each is a setting, documented in docs/CONFIG.md.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The most open connections; further connections wait to be accepted.
    pub connections_max: usize,
    /// The most open connections of one IP address; a further connection is closed immediately.
    pub connections_per_peer_max: usize,
    /// The time in which a connection must send the HTTP/2 preface.
    pub first_byte_timeout: Duration,
    /// The time limit of a TLS handshake.
    pub tls_handshake_timeout: Duration,
    /// The age at which a connection gets GOAWAY, randomly varied by up to 10 %.
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
    /// The time limit of a shutdown.
    pub drain_deadline: Duration,
}
