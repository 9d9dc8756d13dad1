//! `[server]`

use std::{net::SocketAddr, path::PathBuf};

use super::{
    number::{Bytes, Count, Span},
    section::section,
    setting::Flag,
};

section! {
    /// The API port, with gRPC and calls over HTTP (docs/http.md), and its limits.
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
        /// Number of threads that serve the connections of the API port; 0 means one for each core. A
        /// connection stays on its thread, and a new one goes to the thread that has the fewest. Look-ups are
        /// answered on these threads, all other calls on others.
        threads: Count<0, 256> = "0",
        /// Maximum number of open connections. Each costs about 100 KiB and a file descriptor, and one with
        /// many small calls that wait for their refusal up to 1 MiB. At startup the limit is lowered if the
        /// process may not open that many files. When it is reached, a new connection replaces an open one:
        /// the oldest on which no caller was authenticated, of the peer with the most such connections. If
        /// there is none, it replaces one of a caller that has more than a quarter of all connections. A new
        /// connection of the peer that has the most waits instead.
        connections_max: Count<1, 1_000_000> = "10000",
        /// Maximum number of open connections of one peer; a further one is closed at once. A peer is an IPv4
        /// address or an IPv6 network (/64). A load balancer is one peer. A 64th more may be open for a short
        /// time, for health checks: the oldest of them is closed for the next one after 1 s.
        connections_per_peer_max: Count<1, 1_000_000> = "1000",
        /// Time within which a new connection must have sent the HTTP/2 connection preface, and within which
        /// each request of HTTP/1.1 must have sent its head; otherwise the connection is closed.
        first_byte_timeout: Span<100, 600_000> = "10s",
        /// Time limit of a TLS handshake.
        tls_handshake_timeout: Span<100, 600_000> = "10s",
        /// Age at which the server sends GOAWAY on a connection, plus or minus 10 % at random, so that load
        /// spreads over new instances. A connection of HTTP/1.1 is closed after its current request, or after
        /// one more.
        connection_age: Span<1_000, 604_800_000> = "30m",
        /// Time without a call after which the server sends GOAWAY on a connection; it may take up to twice
        /// as long. A client that needs the connection again reconnects. Unused connections thus do not count
        /// towards `server.connections-max`. A connection of HTTP/1.1 is closed after this time.
        connection_idle: Span<1_000, 604_800_000> = "5m",
        /// Time that calls in flight may still take after the GOAWAY of `server.connection-age` or
        /// `server.connection-idle`; then the connection is closed.
        connection_age_grace: Span<0, 3_600_000> = "30s",
        /// Interval of the HTTP/2 PINGs that check whether the peer still answers. Over HTTP/1.1, a
        /// connection is closed if its peer reads nothing of a response for this interval and
        /// `server.keepalive-timeout` together.
        keepalive_interval: Span<1_000, 3_600_000> = "20s",
        /// Time within which the peer must answer a PING; otherwise the connection is closed.
        keepalive_timeout: Span<100, 600_000> = "10s",
        /// Maximum number of calls in flight on one connection. The HTTP/2 library's protection against
        /// floods of small frames closes a connection on which more than 1,000 calls begin at the same
        /// moment.
        streams_per_connection_max: Count<1, 1_000> = "256",
        /// Maximum size of the headers of one call; over HTTP/1.1 at least 8 KiB. A longer list gets status
        /// 431. One of more than four times this size ends its connection of HTTP/2, with the calls of others
        /// on it: let a proxy in front of the service refuse what is longer.
        header_list_bytes_max: Bytes<1_024, 1_048_576> = "16KiB",
        /// Maximum size of a request message, also of one in JSON. The largest legitimate one,
        /// `ResolveTokens` with 1,000 tokens, has 38 KB.
        message_bytes_max: Bytes<1_024, 4_194_304> = "64KiB",
        /// Maximum size of a request message of the health service, which needs no token.
        health_message_bytes_max: Bytes<64, 65_536> = "1KiB",
        /// Time limit of a call of the health service. `Watch` must send its first response within it.
        health_timeout: Span<10, 600_000> = "2s",
        /// Maximum number of calls in flight of one peer, on all its connections. A further call is refused
        /// with `OVERLOADED`. Each costs about 2 KiB, even if its response waits because the peer does not
        /// read it; a refusal beyond the limit has no body over HTTP/2, so that it waits for nothing.
        /// Connections on which a caller was authenticated are counted apart from the others, here and in the
        /// three limits below, so that clients at the address of a caller that do not authenticate take
        /// nothing from it. A connection with at most 4 calls in flight may check the health also beyond this
        /// limit.
        calls_per_peer_max: Count<1, 1_000_000> = "2048",
        /// Maximum number of streaming calls in flight of one peer: `Watch` of the health service, and
        /// reflection. A client that watches the health has one such call for each connection. When it is
        /// reached, a new `Watch` gets the place of the oldest call of the connection with the most of them,
        /// which ends with `OVERLOADED`, so that strangers at the address of a monitor cannot lock it out. A
        /// monitor that sends a service token with its `Watch` is counted with the callers.
        streaming_calls_per_peer_max: Count<1, 100_000> = "64",
        /// Maximum memory of the unfinished requests of one peer: requests whose message has not arrived
        /// completely. Each counts as 16 KiB for its buffers (a look-up by one token as 3,600 bytes, one by
        /// several tokens as 12 KiB, a call of health as 32 KiB), 256 bytes for each header, and the larger
        /// of its announced length and twice the received bytes. A request that would exceed the limit is
        /// refused with `OVERLOADED`; a request that arrives at once is not affected.
        unfinished_bytes_per_peer_max: Bytes<65_536, 1_073_741_824> = "4MiB",
        /// Maximum memory of the unfinished requests of all callers together, and as much again of all
        /// clients that did not authenticate. One caller may take a quarter of it, from however many
        /// addresses, so that the others go on. One call of the health service on each connection is not
        /// counted.
        unfinished_bytes_max: Bytes<65_536, 4_194_304_000> = "128MiB",
        /// Maximum memory of the requests of all callers that have arrived and wait for their answers, for
        /// example because the database does not answer. Requests of at most 4 KiB are not counted; the
        /// number of calls is limited. One caller may take a quarter of it, from however many addresses: at
        /// the default, 800 calls of `ResolveTokens` with 1,000 tokens. A request that would exceed it is
        /// refused with `OVERLOADED`.
        waiting_bytes_max: Bytes<65_536, 4_194_304_000> = "128MiB",
        /// Maximum number of bytes that the server reads and discards of a request that it has answered
        /// before the request was complete. After that it resets the call.
        late_bytes_max: Bytes<0, 1_073_741_824> = "8MiB",
        /// Time for which the server reads such bytes.
        late_bytes_timeout: Span<0, 600_000> = "10s",
        /// Number of calls per second of a connection that may be reset: by the client as soon as they
        /// begin, or by the server because of an error in the client's frames. A burst may be as large
        /// as `server.streams-per-connection-max`. A connection that exceeds it gets GOAWAY, and its calls in
        /// flight may finish; after another burst it is closed.
        resets_per_second_max: Count<1, 100_000> = "100",
        /// Maximum part of one response that waits in memory for a peer that reads slowly. The largest
        /// response, of `ResolveTokens`, is sent in parts.
        send_buffer_bytes_max: Bytes<16_384, 4_194_304> = "64KiB",
        /// Time limit of a call whose caller set no deadline, and of a request to the HTTP port.
        request_timeout_default: Span<10, 3_600_000> = "10s",
        /// Longest time that a call may take, whatever deadline its caller set.
        request_timeout_max: Span<10, 3_600_000> = "60s",
        /// Time that calls in flight may take at shutdown; after it their connections are closed. Within this
        /// time, a peer has 5 s to read the answer of its last call.
        drain_deadline: Span<0, 3_600_000> = "30s",
        /// Time at shutdown in which new connections are still accepted although the health status is already
        /// `NOT_SERVING`, for load balancers that check it rarely.
        drain_notice: Span<0, 600_000> = "0s",
        /// Enables gRPC server reflection, from which grpcurl and similar tools read the description of the
        /// API.
        reflection: bool = "true",
    }
}
