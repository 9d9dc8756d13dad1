//! Serves requests over HTTP/1.1, for browsers and load balancers that use the pages.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::{
    answering::Answering,
    connection::{Peer, Protocol},
    handler::HttpHandler,
    held_bytes::HeldBytes,
    http1_framing::RequestFraming,
    http1_io::{Http1Times, LimitedIo},
    metrics::PortMetrics,
};

/// The longest head of a request, and the most bytes of a body that are read at a time. hyper requires at
/// least 8 KiB.
const BUFFER_BYTES_MAX: usize = 16 * 1024;

/// The most headers of a request.
const HEADERS_MAX: usize = 64;

/// The limits of an HTTP/1.1 port. Each is a setting, documented in docs/CONFIG.md.
#[derive(Debug, Clone)]
pub struct Http1Options {
    /// The most open connections. A further one replaces the oldest one of the peer that has the most, or
    /// waits if it is of that peer.
    pub connections_max: usize,
    /// The most open connections of one peer. A further one is closed at once, except a 64th more, of which
    /// the oldest is closed for the next one after 1 s.
    pub connections_per_peer_max: usize,
    /// The time in which a connection must send the head of its first and of each further request.
    pub head_timeout: Duration,
    /// The time limit of a TLS handshake.
    pub tls_handshake_timeout: Duration,
    /// The age after which a connection accepts no more requests.
    pub connection_age: Duration,
    /// The time limit of a shutdown, and of the last request of a connection.
    pub drain_deadline: Duration,
    /// Counts the connections.
    pub metrics: PortMetrics,
}

/// The service and the limits that all HTTP/1.1 connections share.
pub(super) struct Http1<S> {
    service: Arc<S>,
    options: Http1Options,
}

impl<S> Http1<S> {
    pub(super) fn new(service: S, options: Http1Options) -> Self {
        Self { service: Arc::new(service), options }
    }
}

impl<S: HttpHandler> Protocol for Http1<S> {
    async fn serve_connection<Io>(&self, io: Io, peer: Peer, stop: &CancellationToken)
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let framing = RequestFraming::new(BUFFER_BYTES_MAX);
        // A connection that reads nothing of a response is closed at its maximum age.
        let times = Http1Times { head: self.options.head_timeout, write: self.options.connection_age };
        let io = LimitedIo::new(io, framing.clone(), HeldBytes::new(Arc::clone(&peer.account)), times);
        let answering = Answering::default();
        let served = Arc::new((Arc::clone(&self.service), peer, framing, answering.clone()));
        let service = service_fn(move |request: Request<Incoming>| {
            let served = Arc::clone(&served);
            async move {
                let (service, peer, framing, answering) = &*served;
                let _in_progress = answering.begin();
                Ok::<_, Infallible>(match framing.begin_call() {
                    Ok(in_progress) => {
                        in_progress.until_sent(service.answer(request.map(Body::new), peer).await)
                    }
                    Err(error) => error.response(),
                })
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.options.head_timeout)
            .max_buf_size(BUFFER_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(io), service);
        let mut connection = pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => return,
            () = tokio::time::sleep(self.options.connection_age) => {}
            () = stop.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            _ = tokio::time::timeout(self.options.drain_deadline, connection) => {}
            () = answering.reading_time_over(stop) => {}
        }
    }
}
