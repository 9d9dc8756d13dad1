//! Calls over HTTP/1.1: what browsers and load balancers speak to the pages.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::{
    Served,
    connection::{Peer, Protocol},
};

/// How long the head of a request may be, and how much of its body is read at a time; hyper needs at least 8 KiB.
const BUFFER_BYTES_MAX: usize = 16 * 1024;

/// How many headers a request may have.
const HEADERS_MAX: usize = 64;

/// The limits of a port of HTTP/1.1; each is a setting, which says why.
#[derive(Debug, Clone)]
pub struct Http1Options {
    /// How many connections may be open; more wait to be accepted.
    pub connections_max: usize,
    /// How many of them one address may have; another is closed at once.
    pub connections_per_peer_max: usize,
    /// How long a connection may take to send the head of a request, the next one too.
    pub head_timeout: Duration,
    /// How long a TLS handshake may take.
    pub tls_handshake_timeout: Duration,
    /// After how long a connection takes no more requests.
    pub connection_age: Duration,
    /// How long a stop may take, and the last request of a connection.
    pub drain_deadline: Duration,
}

/// What connections of HTTP/1.1 have in common.
pub(super) struct Http1<S> {
    service: Arc<S>,
    options: Http1Options,
}

impl<S> Http1<S> {
    pub(super) fn new(service: S, options: Http1Options) -> Self {
        Self { service: Arc::new(service), options }
    }
}

impl<S: Served> Protocol for Http1<S> {
    async fn converse<Io>(&self, io: Io, peer: Peer, stop: &CancellationToken)
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let served = Arc::new((Arc::clone(&self.service), peer));
        let service = service_fn(move |request: Request<Incoming>| {
            let served = Arc::clone(&served);
            async move {
                let (service, peer) = &*served;
                Ok::<_, Infallible>(service.answer(request.map(Body::new), peer).await)
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
        let _ = tokio::time::timeout(self.options.drain_deadline, connection).await;
    }
}
