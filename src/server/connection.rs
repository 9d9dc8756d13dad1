//! The life of a connection: TLS if there is any, the preface, calls, GOAWAY at its age or at the stop, a grace, the end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    transport::server::{Connected, TcpConnectInfo},
};
use tower::ServiceExt;

use super::{Served, ServerOptions, preface::expect_preface};
use crate::entropy::Entropy;

/// Streams that the peer made us reset: beyond it the connection is closed (RUSTSEC-2024-0003).
const LOCAL_ERROR_RESETS_MAX: usize = 1_024;

/// Streams that the peer reset before they were looked at (CVE-2023-44487, rapid reset).
const PENDING_ACCEPT_RESETS_MAX: usize = 20;

/// What the peer may send of one call before the handler reads it: a message of the default longest size, twice.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;

/// The same for all calls of a connection, which bounds what one peer can make us hold.
const CONNECTION_WINDOW_BYTES: u32 = 512 * 1024;

/// What one answer may hold back in memory while the peer does not read it; the longest, `ResolveTokens`, is sent in parts.
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// What connections have in common.
#[derive(Clone)]
pub(super) struct Connections<S> {
    service: S,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

struct Shared {
    options: ServerOptions,
    http2: http2::Builder<TokioExecutor>,
    tls: Option<TlsAcceptor>,
    entropy: Entropy,
}

impl<S: Served> Connections<S> {
    pub(super) fn new(
        service: S,
        options: ServerOptions,
        tls: Option<Arc<ServerConfig>>,
        entropy: Entropy,
        stop: CancellationToken,
    ) -> Self {
        let http2 = http2_with_limits(&options);
        let shared = Shared { options, http2, tls: tls.map(TlsAcceptor::from), entropy };
        Self { service, shared: Arc::new(shared), stop }
    }

    /// Serves one connection to its end; `slot` is free for another then.
    pub(super) async fn run(self, socket: TcpStream, peer: SocketAddr, slot: OwnedSemaphorePermit) {
        // Small answers must not wait for more to send.
        let _ = socket.set_nodelay(true);
        let addresses = TcpConnectInfo { local_addr: socket.local_addr().ok(), remote_addr: Some(peer) };
        match &self.shared.tls {
            None => self.serve_http2(socket, addresses, None::<()>).await,
            Some(tls) => {
                let handshake =
                    tokio::time::timeout(self.shared.options.tls_handshake_timeout, tls.accept(socket));
                match self.stop.run_until_cancelled(handshake).await {
                    Some(Ok(Ok(stream))) => {
                        let certificates = stream.connect_info();
                        self.serve_http2(stream, addresses, Some(certificates)).await;
                    }
                    Some(Ok(Err(error))) => tracing::debug!(%peer, %error, "A TLS handshake failed"),
                    Some(Err(_)) => tracing::debug!(%peer, "A TLS handshake took too long"),
                    None => {} // A stop owes nothing to a peer that has not asked for anything.
                }
            }
        }
        drop(slot);
    }

    /// `tls` is what tonic's `Request::peer_certs` looks for.
    async fn serve_http2<Io, Tls>(&self, io: Io, addresses: TcpConnectInfo, tls: Option<Tls>)
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        Tls: Clone + Send + Sync + 'static,
    {
        let options = &self.shared.options;
        let stopped = self.stop.cancelled();
        let preface = expect_preface(io, options.first_byte_timeout);
        let io = tokio::select! { io = preface => io, () = stopped => None };
        let Some(io) = io else { return };

        let service =
            self.service.clone().map_request(move |mut request: http::Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(addresses.clone());
                if let Some(tls) = &tls {
                    request.extensions_mut().insert(tls.clone());
                }
                request.map(Body::new)
            });
        let connection =
            self.shared.http2.serve_connection(TokioIo::new(io), TowerToHyperService::new(service));
        let mut connection = std::pin::pin!(connection);
        let grace = tokio::select! {
            _ = connection.as_mut() => return,
            () = tokio::time::sleep(self.age()) => Some(options.connection_age_grace),
            () = self.stop.cancelled() => None,
        };
        connection.as_mut().graceful_shutdown();
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

fn http2_with_limits(options: &ServerOptions) -> http2::Builder<TokioExecutor> {
    let mut http2 = http2::Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.streams_per_connection_max)
        .max_local_error_reset_streams(LOCAL_ERROR_RESETS_MAX)
        .max_pending_accept_reset_streams(PENDING_ACCEPT_RESETS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(options.header_list_bytes_max)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        .keep_alive_interval(Some(options.keepalive_interval))
        .keep_alive_timeout(options.keepalive_timeout);
    http2
}
