//! `[server]`

use std::{net::SocketAddr, path::PathBuf};

use super::{
    setting::section,
    value::{Bytes, Count, Span},
};

section! {
    /// The gRPC port and its limits.
    ServerSettings in "server" {
        /// Where to listen. An address that is not loopback needs TLS, or `server.insecure-plaintext`.
        listen: SocketAddr = "127.0.0.1:50051",
        /// The certificate chain, a PEM file; together with `server.tls-key` it turns TLS on.
        tls_cert: Option<PathBuf> = "",
        /// The private key of the certificate, a PEM file.
        tls_key: Option<PathBuf> = "",
        /// The authorities that vouch for callers' certificates, a PEM file: a caller may then prove itself by its certificate
        /// (docs/CALLERS.md). Certificate, key and authorities are read again within 2 s of a change, and on SIGHUP.
        tls_client_ca: Option<PathBuf> = "",
        /// Allows an address that is not loopback without TLS: passwords then cross the network in the clear.
        insecure_plaintext: bool = "false",
        /// How many connections may be open; more wait to be accepted. Each costs some 100 KiB and a file descriptor; the
        /// start lowers it when the process may not open as many files.
        connections_max: Count<1, 1_000_000> = "10000",
        /// How many of them one address may have open; another is closed at once. A load balancer is one address.
        connections_per_peer_max: Count<1, 1_000_000> = "1000",
        /// How long a new connection may be silent before it is closed.
        first_byte_timeout: Span<100, 600_000> = "10s",
        /// How long a TLS handshake may take.
        tls_handshake_timeout: Span<100, 600_000> = "10s",
        /// After how long a connection is told to go (GOAWAY), so that load spreads over new instances; ±10 % by chance.
        connection_age: Span<1_000, 604_800_000> = "30m",
        /// After how long without a call a connection is told to go; at most twice that. Who needs it again connects again, and nobody
        /// holds a place that they do not use.
        connection_idle: Span<1_000, 604_800_000> = "5m",
        /// How long calls in flight may go on after a connection was told to go.
        connection_age_grace: Span<0, 3_600_000> = "30s",
        /// How often a peer is asked whether it is still there.
        keepalive_interval: Span<1_000, 3_600_000> = "20s",
        /// How long it may take to answer before it is dropped.
        keepalive_timeout: Span<100, 600_000> = "10s",
        /// How many calls may be in flight on one connection. HTTP/2's guard against floods of small frames closes a connection
        /// on which more than 1,000 begin at the same moment.
        streams_per_connection_max: Count<1, 1_000> = "256",
        /// How long the headers of one call may be.
        header_list_bytes_max: Bytes<1_024, 1_048_576> = "16KiB",
        /// How long a request message may be; the longest real one, `ResolveTokens` of 1,000, has 38 KB.
        message_bytes_max: Bytes<1_024, 4_194_304> = "64KiB",
        /// How much of one answer may wait in memory for a peer that reads slowly; the longest, of `ResolveTokens`, is sent in parts.
        send_buffer_bytes_max: Bytes<16_384, 4_194_304> = "64KiB",
        /// How long a call may take whose caller set no deadline.
        request_timeout_default: Span<10, 3_600_000> = "10s",
        /// How long a call may take whatever deadline its caller set.
        request_timeout_max: Span<10, 3_600_000> = "60s",
        /// How long a stop may take: after it, calls still in flight are cut off.
        drain_deadline: Span<0, 3_600_000> = "30s",
        /// How long new connections are still taken after health says `NOT_SERVING`, for load balancers that look seldom.
        drain_notice: Span<0, 600_000> = "0s",
        /// Whether grpcurl and its like may ask for the API's description.
        reflection: bool = "true",
    }
}
