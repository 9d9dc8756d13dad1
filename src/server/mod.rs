//! The accept loop: connections in, each with its limits, and a stop that ends.
//!
//! tonic's own loop is not used: in 0.14.9 it removes hyper's limits on streams and resets, kills calls at the age of a
//! connection instead of saying GOAWAY, waits for ever for silent peers at the stop, and spins when file descriptors run
//! out. This module knows sockets, TLS and HTTP; it does not know what is served. Start at [`serve`]; the pages have
//! [`serve_http1`].

mod connection;
mod http1;
mod http2;
mod listener;
mod preface;
mod streams;
mod tls;

use std::time::Duration;

use http::{Request, Response};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
pub use tonic::body::Body;

pub use self::{
    connection::Peer,
    http1::Http1Options,
    listener::bind,
    tls::{Alpn, CurrentTls, TlsError, certificate_names, load_tls},
};
use self::{
    connection::{Connections, Protocol, Tls},
    http1::Http1,
    http2::Http2,
    listener::{Acceptor, Share},
};
use crate::entropy::Entropy;

/// The limits of the server; each is a setting, which says why.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// How many connections may be open; more wait to be accepted.
    pub connections_max: usize,
    /// How many of them one address may have; another is closed at once.
    pub connections_per_peer_max: usize,
    /// How long a connection may take to say that it speaks HTTP/2.
    pub first_byte_timeout: Duration,
    /// How long a TLS handshake may take.
    pub tls_handshake_timeout: Duration,
    /// After how long a connection is told to go; ±10 % by chance.
    pub connection_age: Duration,
    /// After how long without a call it is told to go; at most twice that.
    pub connection_idle: Duration,
    /// How long its calls in flight may go on after it was told to go.
    pub connection_age_grace: Duration,
    /// How often a peer is asked whether it is there.
    pub keepalive_interval: Duration,
    /// How long it may take to answer.
    pub keepalive_timeout: Duration,
    /// How many calls may be in flight on a connection.
    pub streams_per_connection_max: u32,
    /// How long the headers of a call may be.
    pub header_list_bytes_max: u32,
    /// How much of one answer may wait in memory for a peer that does not read it.
    pub send_buffer_bytes_max: usize,
    /// How long a stop may take.
    pub drain_deadline: Duration,
}

/// How a stop went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainReport {
    /// Connections that were cut off at the deadline.
    pub connections_aborted: usize,
}

/// What can be served: it answers whatever it is asked.
pub trait Served: Send + Sync + 'static {
    /// Answers one call of a peer.
    fn answer(&self, request: Request<Body>, peer: &Peer) -> impl Future<Output = Response<Body>> + Send;
}

/// Serves until `stop`; then takes no more connections, says GOAWAY on those that are open, waits for their calls, and cuts
/// off what is left at the deadline: long calls, and streams such as health's `Watch` that nobody ended. It returns once
/// every connection is closed.
pub async fn serve(
    listener: TcpListener,
    service: impl Served,
    options: ServerOptions,
    tls: Option<CurrentTls>,
    entropy: Entropy,
    stop: CancellationToken,
) -> DrainReport {
    let drain_deadline = options.drain_deadline;
    let acceptor =
        Acceptor::new(listener, options.connections_max, options.connections_per_peer_max, Share::Calls);
    let handshake_timeout = options.tls_handshake_timeout;
    let tls = tls.map(|current| Tls { current, handshake_timeout });
    let connections = Connections::new(Http2::new(service, options, entropy), tls, stop.clone());
    accept_until(stop, acceptor, connections, drain_deadline).await
}

/// The same for HTTP/1.1: at the stop connections finish the request that they are at.
pub async fn serve_http1(
    listener: TcpListener,
    service: impl Served,
    options: Http1Options,
    tls: Option<CurrentTls>,
    stop: CancellationToken,
) -> DrainReport {
    let drain_deadline = options.drain_deadline;
    let acceptor =
        Acceptor::new(listener, options.connections_max, options.connections_per_peer_max, Share::Pages);
    let handshake_timeout = options.tls_handshake_timeout;
    let tls = tls.map(|current| Tls { current, handshake_timeout });
    let connections = Connections::new(Http1::new(service, options), tls, stop.clone());
    accept_until(stop, acceptor, connections, drain_deadline).await
}

async fn accept_until(
    stop: CancellationToken,
    mut acceptor: Acceptor,
    connections: Connections<impl Protocol>,
    drain_deadline: Duration,
) -> DrainReport {
    let mut open = JoinSet::new();
    while let Some(Some((socket, peer, slot))) = stop.run_until_cancelled(acceptor.accept()).await {
        open.spawn(connections.clone().run(socket, peer, slot));
        while open.try_join_next().is_some() {}
    }

    // From here on the port is closed: a load balancer sees at once that this instance is gone.
    drop(acceptor);
    let all_closed = async { while open.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(drain_deadline, all_closed).await;
    while open.try_join_next().is_some() {}
    let connections_aborted = open.len();
    open.shutdown().await;
    DrainReport { connections_aborted }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "these tests measure real sockets")]
mod tests;
