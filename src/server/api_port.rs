//! Serves the API port. The first bytes of a connection choose between HTTP/2 and HTTP/1.1.

use std::{sync::Arc, time::Duration};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::{
    connection::{Peer, Protocol},
    handler::HttpHandler,
    http1_calls::Http1Calls,
    http2::Http2,
    options::ServerOptions,
    preface::{Start, read_start},
    request_body::BodyLimits,
};
use crate::entropy::Entropy;

/// The two protocols of the port.
pub(super) struct ApiPort<S> {
    http2: Http2<S>,
    http1: Http1Calls<S>,
    first_byte_timeout: Duration,
}

impl<S> ApiPort<S> {
    pub(super) fn new(service: S, options: ServerOptions, entropy: Entropy) -> Self {
        let (service, first_byte_timeout) = (Arc::new(service), options.first_byte_timeout);
        let http1 = Http1Calls::new(Arc::clone(&service), options.clone(), entropy.clone());
        Self { http2: Http2::new(service, options, entropy), http1, first_byte_timeout }
    }
}

impl<S: HttpHandler + BodyLimits> Protocol for ApiPort<S> {
    async fn serve_connection<Io>(&self, io: Io, peer: Peer, stop: &CancellationToken)
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let start = read_start(io, self.first_byte_timeout);
        let start = tokio::select! { start = start => start, () = stop.cancelled() => None };
        match start {
            Some(Start::Http2(io)) => self.http2.serve(io, peer, stop).await,
            // Boxed, so that the task of an HTTP/2 connection does not reserve memory for it.
            Some(Start::Http1(io)) => Box::pin(self.http1.serve(io, peer, stop)).await,
            None => {}
        }
    }
}
