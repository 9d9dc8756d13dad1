//! `[server]`

use std::{net::SocketAddr, path::PathBuf};

use super::{
    number::{Bytes, Count, Span},
    section::section,
    setting::Flag,
};

section! {
    /// The gRPC port and its limits.
    ServerSettings in "server" {
        /// The address to listen on. An address that is not loopback needs TLS or
        /// `server.insecure-plaintext`.
        #[flag(Flag::of_serve(
            "listen", "ADDR",
            "The gRPC address; other than loopback it needs TLS or --insecure-plaintext",
        ))]
        listen: SocketAddr = "127.0.0.1:50051",
        /// The server's certificate chain, a PEM file. Together with `server.tls-key` it enables TLS.
        #[flag(Flag::of_serve(
            "tls-cert", "FILE",
            "The certificate chain, a PEM file; enables TLS together with --tls-key",
        ))]
        tls_cert: Option<PathBuf> = "",
        /// The private key of the certificate, a PEM file.
        #[flag(Flag::of_serve("tls-key", "FILE", "The private key of the certificate, a PEM file"))]
        tls_key: Option<PathBuf> = "",
        /// The CA certificates that verify the certificates of callers, a PEM file. If it is set, a caller
        /// may authenticate with a client certificate (docs/CALLERS.md). Certificate, key and CA certificates
        /// are reloaded within 2 s of a change, and at once on SIGHUP.
        #[flag(Flag::of_serve(
            "tls-client-ca", "FILE",
            "The CA certificates that verify the certificates of callers, a PEM file",
        ))]
        tls_client_ca: Option<PathBuf> = "",
        /// Allows `server.listen` and `http.listen` to be addresses that are not loopback without TLS, and
        /// `mail.public-base-url` to be an http URL of another machine. Passwords and links then cross the
        /// network unencrypted.
        #[flag(Flag::switch_of_serve(
            "insecure-plaintext",
            "Allow addresses that are not loopback without TLS: passwords then cross the network \
             unencrypted",
        ))]
        insecure_plaintext: bool = "false",
        /// Maximum number of open connections; further ones wait to be accepted. Each costs about 100 KiB and
        /// a file descriptor. At startup the limit is lowered if the process may not open that many files.
        connections_max: Count<1, 1_000_000> = "10000",
        /// Maximum number of open connections from one address; a further one is closed at once. A load
        /// balancer is one address.
        connections_per_peer_max: Count<1, 1_000_000> = "1000",
        /// Time within which a new connection must have sent the HTTP/2 connection preface; otherwise it is
        /// closed.
        first_byte_timeout: Span<100, 600_000> = "10s",
        /// Time limit of a TLS handshake.
        tls_handshake_timeout: Span<100, 600_000> = "10s",
        /// Age at which the server sends GOAWAY on a connection, plus or minus 10 % at random, so that load
        /// spreads over new instances.
        connection_age: Span<1_000, 604_800_000> = "30m",
        /// Time without a call after which the server sends GOAWAY on a connection; it may take up to twice
        /// as long. A client that needs the connection again reconnects. Unused connections thus do not count
        /// towards `server.connections-max`.
        connection_idle: Span<1_000, 604_800_000> = "5m",
        /// Time that calls in flight may still take after the GOAWAY of `server.connection-age` or
        /// `server.connection-idle`; then the connection is closed.
        connection_age_grace: Span<0, 3_600_000> = "30s",
        /// Interval of the HTTP/2 PINGs that check whether the peer still answers.
        keepalive_interval: Span<1_000, 3_600_000> = "20s",
        /// Time within which the peer must answer a PING; otherwise the connection is closed.
        keepalive_timeout: Span<100, 600_000> = "10s",
        /// Maximum number of calls in flight on one connection. The HTTP/2 library's protection against
        /// floods of small frames closes a connection on which more than 1,000 calls begin at the same
        /// moment.
        streams_per_connection_max: Count<1, 1_000> = "256",
        /// Maximum size of the headers of one call.
        header_list_bytes_max: Bytes<1_024, 1_048_576> = "16KiB",
        /// Maximum size of a request message. The largest legitimate one, `ResolveTokens` with 1,000 tokens,
        /// has 38 KB.
        message_bytes_max: Bytes<1_024, 4_194_304> = "64KiB",
        /// Maximum part of one response that waits in memory for a peer that reads slowly. The largest
        /// response, of `ResolveTokens`, is sent in parts.
        send_buffer_bytes_max: Bytes<16_384, 4_194_304> = "64KiB",
        /// Time limit of a call whose caller set no deadline, and of a request to the HTTP port.
        request_timeout_default: Span<10, 3_600_000> = "10s",
        /// Longest time that a call may take, whatever deadline its caller set.
        request_timeout_max: Span<10, 3_600_000> = "60s",
        /// Time that calls in flight may take at shutdown; after it their connections are closed.
        drain_deadline: Span<0, 3_600_000> = "30s",
        /// Time at shutdown in which new connections are still accepted although the health status is already
        /// `NOT_SERVING`, for load balancers that check it rarely.
        drain_notice: Span<0, 600_000> = "0s",
        /// Enables gRPC server reflection, from which grpcurl and similar tools read the description of the
        /// API.
        reflection: bool = "true",
    }
}
