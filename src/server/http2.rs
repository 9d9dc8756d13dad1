//! Calls over HTTP/2: the preface, streams, GOAWAY at an age or at the stop, a grace, the end.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::Request;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::{
    Served, ServerOptions,
    connection::{Peer, Protocol},
    preface::expect_preface,
    streams::{Accepted, WithStreams},
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

/// What connections of HTTP/2 have in common.
pub(super) struct Http2<S> {
    service: Arc<S>,
    options: ServerOptions,
    entropy: Entropy,
}

impl<S> Http2<S> {
    pub(super) fn new(service: S, options: ServerOptions, entropy: Entropy) -> Self {
        Self { service: Arc::new(service), options, entropy }
    }

    /// ±10 % (gRFC A9), so that connections that came together do not all come back together.
    fn age(&self) -> Duration {
        self.options.connection_age.mul_f64(0.9 + 0.2 * self.entropy.fraction())
    }
}

impl<S: Served> Protocol for Http2<S> {
    async fn converse<Io>(&self, io: Io, peer: Peer, stop: &CancellationToken)
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
            () = stop.cancelled() => None,
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
