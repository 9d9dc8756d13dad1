//! The accept loop, with limits on connections and a shutdown with a deadline.
//!
//! tonic's own loop is not used. In version 0.14.9 it removes hyper's limits on streams and resets, aborts
//! calls at the maximum age of a connection instead of sending GOAWAY, waits without limit for silent peers
//! at shutdown, and spins when file descriptors are exhausted. This module handles sockets, TLS and HTTP, but
//! not the content of calls. Start at [`serve`]; the HTTP port uses [`serve_http1`].

mod answering;
mod api_port;
mod budget;
mod caller_share;
mod connection;
mod frames;
mod handler;
mod held_bytes;
mod http1;
mod http1_calls;
mod http1_framing;
mod http1_io;
mod http2;
mod listener;
mod malformed_calls;
mod metrics;
pub mod open_files;
mod options;
mod peer_account;
mod peer_log;
mod peers;
mod preface;
mod request_body;
mod resets;
mod streaming_calls;
mod streams;
mod tls;
mod waiting_bytes;
mod wakes;
mod watched;
mod when_woken;
mod workers;

use std::time::Duration;

use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
pub use tonic::body::Body;

use self::{
    api_port::ApiPort,
    connection::{Connections, Protocol, Tls},
    http1::Http1,
    listener::{Acceptor, Share},
    metrics::CloseReason,
};
pub use self::{
    connection::Peer,
    handler::{HttpHandler, Refusal},
    http1::Http1Options,
    listener::{bind, check_bind, open_files_needed},
    metrics::{ConnectionMetrics, PortMetrics},
    options::ServerOptions,
    peer_account::{ConnectionAccount, PeerLimits},
    peer_log::PeerLog,
    request_body::{BodyLimit, BodyLimits, BodyRefusal},
    streaming_calls::StreamingSlot,
    tls::{Alpn, CurrentTls, LoadedTls, TlsError, certificate_names, certificate_warning, load_tls},
    workers::{EVENT_INTERVAL, WorkerThreads, Workers, worker_count},
};
use crate::entropy::Entropy;

/// The result of a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainReport {
    /// The number of connections that were aborted at the deadline.
    pub connections_aborted: usize,
}

/// Serves HTTP/2 and HTTP/1.1 on one port, the connections on `options.workers`, until `stop` is cancelled,
/// and then shuts down: it accepts no more connections, sends GOAWAY on the open ones and waits for their
/// calls. At the deadline it aborts the remaining connections, for example those with a long call or an open
/// stream such as health's `Watch`. It returns when all connections are closed.
pub async fn serve(
    listener: TcpListener,
    service: impl HttpHandler + BodyLimits,
    options: ServerOptions,
    tls: Option<CurrentTls>,
    entropy: Entropy,
    stop: CancellationToken,
) -> DrainReport {
    let drain_deadline = options.drain_deadline;
    let (workers, metrics) = (options.workers.clone(), options.metrics.clone());
    let share = Share::Calls { threads: workers.count() };
    let acceptor = Acceptor::new(listener, options.connections_max, options.peer_limits, share, metrics);
    let handshake_timeout = options.tls_handshake_timeout;
    let tls = tls.map(|current| Tls { current, handshake_timeout });
    let connections = Connections::new(ApiPort::new(service, options, entropy), tls, stop.clone());
    accept_until(stop, acceptor, connections, workers, drain_deadline).await
}

/// Serves HTTP/1.1 alone in the same way. At shutdown, each connection finishes its current request.
pub async fn serve_http1(
    listener: TcpListener,
    service: impl HttpHandler,
    options: Http1Options,
    tls: Option<CurrentTls>,
    stop: CancellationToken,
) -> DrainReport {
    let drain_deadline = options.drain_deadline;
    let peer_limits = PeerLimits::of_connections(options.connections_per_peer_max);
    let metrics = options.metrics.clone();
    let acceptor = Acceptor::new(listener, options.connections_max, peer_limits, Share::Pages, metrics);
    let handshake_timeout = options.tls_handshake_timeout;
    let tls = tls.map(|current| Tls { current, handshake_timeout });
    let connections = Connections::new(Http1::new(service, options), tls, stop.clone());
    accept_until(stop, acceptor, connections, Workers::current(), drain_deadline).await
}

async fn accept_until(
    stop: CancellationToken,
    mut acceptor: Acceptor,
    connections: Connections<impl Protocol>,
    workers: Workers,
    drain_deadline: Duration,
) -> DrainReport {
    let mut open = JoinSet::new();
    while let Some(Some((socket, peer, slot))) = stop.run_until_cancelled(acceptor.accept()).await {
        let metrics = slot.metrics().clone();
        let serve = |socket, place| connections.clone().run(socket, peer, slot, place);
        if let Err(error) = workers.spawn(&mut open, socket, serve) {
            metrics.closed(CloseReason::AcceptFailed);
            tracing::warn!(%peer, %error, "A connection was closed: it could not be passed to a thread");
        }
        // Removes the connections that have closed, so that the set does not grow.
        while open.try_join_next().is_some() {}
    }

    // This closes the port, so that a load balancer notices immediately that this instance accepts no
    // connections.
    drop(acceptor);
    let all_closed = async { while open.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(drain_deadline, all_closed).await;
    // A connection that has closed in the same moment is not counted as aborted.
    while open.try_join_next().is_some() {}
    let connections_aborted = open.len();
    open.shutdown().await;
    DrainReport { connections_aborted }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "these tests measure real sockets")]
mod tests;
