//! Serves calls over HTTP/2.
//!
//! A connection sends the preface and then calls. At its maximum age, when it is idle or at shutdown, it gets
//! GOAWAY; its calls may finish, and then it is closed.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::Request;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::{
    connection::{Peer, Protocol},
    handler::HttpHandler,
    options::ServerOptions,
    preface::expect_preface,
    streams::{AcceptedStreams, WithStreams},
};
use crate::entropy::Entropy;

/// The most streams that the server resets because of protocol errors of the peer; beyond it, the connection
/// is closed (RUSTSEC-2024-0003). Each of them costs a call that has started, and a correct HTTP/2 client
/// does not cause repeated errors. With h2's default of 1,024, eight peers delayed the calls of all others by
/// 0.7 s.
const LOCAL_ERROR_RESETS_MAX: usize = 20;

/// The most streams that the peer has reset before the server accepted them (CVE-2023-44487, rapid reset).
const PENDING_ACCEPT_RESETS_MAX: usize = 20;

/// The flow-control window of a stream: the bytes that a peer may send before the handler reads them. Twice
/// the default limit of a message.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;

/// The flow-control window of a connection. It bounds the memory that one peer can occupy with unread
/// messages.
const CONNECTION_WINDOW_BYTES: u32 = 512 * 1024;

/// The service and the limits that all HTTP/2 connections share.
pub(super) struct Http2<S> {
    service: Arc<S>,
    options: ServerOptions,
    entropy: Entropy,
}

impl<S> Http2<S> {
    pub(super) fn new(service: S, options: ServerOptions, entropy: Entropy) -> Self {
        Self { service: Arc::new(service), options, entropy }
    }

    /// Returns the maximum age of a connection: the setting, randomly varied by up to 10 % (gRFC A9), so that
    /// connections that were opened together are not all reopened together.
    fn age(&self) -> Duration {
        self.options.connection_age.mul_f64(0.9 + 0.2 * self.entropy.fraction())
    }
}

impl<S: HttpHandler> Protocol for Http2<S> {
    async fn serve_connection<Io>(&self, io: Io, peer: Peer, stop: &CancellationToken)
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let options = &self.options;
        let stopped = stop.cancelled();
        let preface = expect_preface(io, options.first_byte_timeout);
        let io = tokio::select! { io = preface => io, () = stopped => None };
        let Some(io) = io else { return };

        let served = Arc::new((Arc::clone(&self.service), peer));
        let service = service_fn(move |request: Request<Incoming>| {
            let served = Arc::clone(&served);
            // Boxed, because hyper and the executor move the future several times.
            Box::pin(async move {
                let (service, peer) = &*served;
                Ok::<_, Infallible>(service.answer(request.map(Body::new), peer).await)
            })
        });
        let accepted = AcceptedStreams::default();
        let connection =
            http2_with_limits(options, accepted.clone()).serve_connection(TokioIo::new(io), service);
        let mut connection = WithStreams::new(connection, accepted.clone());
        let grace = tokio::select! {
            _ = &mut connection => return,
            () = tokio::time::sleep(self.age()) => Some(options.connection_age_grace),
            () = idle(&accepted, options.connection_idle) => Some(options.connection_age_grace),
            () = stop.cancelled() => None,
        };
        connection.change(http2::Connection::graceful_shutdown);
        match grace {
            Some(grace) => {
                let _ = tokio::time::timeout(grace, connection).await;
            }
            // At shutdown, the accept loop enforces one deadline for all connections and counts the aborted
            // ones.
            None => {
                let _ = connection.await;
            }
        }
    }
}

/// Waits until no call has been in flight for at least `span`. Returns at the latest when the connection has
/// been idle for twice that time.
async fn idle(accepted: &AcceptedStreams, span: Duration) {
    loop {
        let started = accepted.started();
        tokio::time::sleep(span).await;
        if accepted.is_idle_since(started) {
            return;
        }
    }
}

fn http2_with_limits(options: &ServerOptions, executor: AcceptedStreams) -> http2::Builder<AcceptedStreams> {
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
