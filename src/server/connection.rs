//! The life of a connection: TLS if there is any, the preface, calls, GOAWAY at its age or at the stop, a grace, the end.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::Request;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::{
    Served, ServerOptions,
    listener::Slot,
    preface::expect_preface,
    streams::{Accepted, WithStreams},
    tls::{CurrentTls, certificate_names},
};
use crate::entropy::Entropy;

/// Streams that the peer made us reset: beyond it the connection is closed (RUSTSEC-2024-0003). Each costs a call that was begun, and no
/// client that knows HTTP/2 makes one fault after the other: with h2's 1,024, eight peers made everybody else wait for 0.7 s.
const LOCAL_ERROR_RESETS_MAX: usize = 20;

/// Streams that the peer reset before they were looked at (CVE-2023-44487, rapid reset).
const PENDING_ACCEPT_RESETS_MAX: usize = 20;

/// What the peer may send of one call before the handler reads it: a message of the default longest size, twice.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;

/// The same for all calls of a connection, which bounds what one peer can make us hold.
const CONNECTION_WINDOW_BYTES: u32 = 512 * 1024;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Their address.
    pub address: SocketAddr,
    /// What the certificate that they showed, and somebody trusted vouches for, calls them: `uri:…`, `dns:…`, `cn:…`.
    pub names: Vec<String>,
}

impl Peer {
    /// Their address without the port; an IPv4 address in IPv6's clothes is the IPv4 address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }
}

/// What connections have in common.
pub(super) struct Connections<S> {
    service: Arc<S>,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl<S> Clone for Connections<S> {
    fn clone(&self) -> Self {
        Self { service: Arc::clone(&self.service), shared: Arc::clone(&self.shared), stop: self.stop.clone() }
    }
}

struct Shared {
    options: ServerOptions,
    tls: Option<CurrentTls>,
    entropy: Entropy,
}

impl<S: Served> Connections<S> {
    pub(super) fn new(
        service: S,
        options: ServerOptions,
        tls: Option<CurrentTls>,
        entropy: Entropy,
        stop: CancellationToken,
    ) -> Self {
        let shared = Shared { options, tls, entropy };
        Self { service: Arc::new(service), shared: Arc::new(shared), stop }
    }

    /// Serves one connection to its end; `slot` is free for another then.
    pub(super) async fn run(self, socket: TcpStream, address: SocketAddr, slot: Slot) {
        // Small answers must not wait for more to send.
        let _ = socket.set_nodelay(true);
        match &self.shared.tls {
            None => self.serve_http2(socket, Peer { address, names: Vec::new() }).await,
            Some(tls) => {
                let handshake = tls.acceptor().accept(socket);
                let handshake = tokio::time::timeout(self.shared.options.tls_handshake_timeout, handshake);
                match self.stop.run_until_cancelled(handshake).await {
                    Some(Ok(Ok(stream))) => {
                        let shown = stream.get_ref().1.peer_certificates();
                        let names = shown.and_then(<[_]>::first).map(certificate_names).unwrap_or_default();
                        self.serve_http2(stream, Peer { address, names }).await;
                    }
                    Some(Ok(Err(error))) => {
                        tracing::debug!(peer = %address, %error, "A TLS handshake failed");
                    }
                    Some(Err(_)) => tracing::debug!(peer = %address, "A TLS handshake took too long"),
                    None => {} // A stop owes nothing to a peer that has not asked for anything.
                }
            }
        }
        drop(slot);
    }

    async fn serve_http2<Io>(&self, io: Io, peer: Peer)
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let options = &self.shared.options;
        let stopped = self.stop.cancelled();
        let preface = expect_preface(io, options.first_byte_timeout);
        let io = tokio::select! { io = preface => io, () = stopped => None };
        let Some(io) = io else { return };

        let served = Arc::new((Arc::clone(&self.service), peer));
        let service = service_fn(move |request: Request<Incoming>| {
            let served = Arc::clone(&served);
            // In a box, since hyper and the executor pass it on several times.
            Box::pin(async move {
                let (service, peer) = &*served;
                Ok::<_, Infallible>(service.answer(request.map(Body::new), peer).await)
            })
        });
        let accepted = Accepted::default();
        let connection =
            http2_with_limits(options, accepted.clone()).serve_connection(TokioIo::new(io), service);
        let mut connection = WithStreams::new(connection, accepted.clone());
        let grace = tokio::select! {
            _ = &mut connection => return,
            () = tokio::time::sleep(self.age()) => Some(options.connection_age_grace),
            () = idle(&accepted, options.connection_idle) => Some(options.connection_age_grace),
            () = self.stop.cancelled() => None,
        };
        connection.change(http2::Connection::graceful_shutdown);
        match grace {
            Some(grace) => {
                let _ = tokio::time::timeout(grace, connection).await;
            }
            // The stop has one deadline for all connections, kept by the accept loop, which counts whom it cut off.
            None => {
                let _ = connection.await;
            }
        }
    }

    /// ±10 % (gRFC A9), so that connections that came together do not all come back together.
    fn age(&self) -> Duration {
        self.shared.options.connection_age.mul_f64(0.9 + 0.2 * self.shared.entropy.fraction())
    }
}

/// Ends when no call was under way for at least `span`, and at most twice that.
async fn idle(accepted: &Accepted, span: Duration) {
    loop {
        let begun = accepted.begun();
        tokio::time::sleep(span).await;
        if accepted.is_idle_since(begun) {
            return;
        }
    }
}

fn http2_with_limits(options: &ServerOptions, executor: Accepted) -> http2::Builder<Accepted> {
    let mut http2 = http2::Builder::new(executor);
    http2
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.streams_per_connection_max)
        .max_local_error_reset_streams(LOCAL_ERROR_RESETS_MAX)
        .max_pending_accept_reset_streams(PENDING_ACCEPT_RESETS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(options.header_list_bytes_max)
        .max_send_buf_size(options.send_buffer_bytes_max)
        .keep_alive_interval(Some(options.keepalive_interval))
        .keep_alive_timeout(options.keepalive_timeout);
    http2
}
