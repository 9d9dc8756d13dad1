//! Serves calls over HTTP/1.1, one after the other on a connection, with the limits of HTTP/2 (`http2.rs`).
//!
//! At its maximum age, a connection answers the call in flight or one more, because a client or a proxy may
//! just be sending a request. Then it is closed. At shutdown, a connection finishes its call and is closed.

use std::{
    io,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::{
    answering::Answering,
    connection::Peer,
    handler::HttpHandler,
    held_bytes::HeldBytes,
    http1_framing::{HEADERS_MAX, RequestFraming},
    http1_io::{Http1Times, LimitedIo},
    options::ServerOptions,
    peer_account::{ConnectionAccount, CountedCalls},
    preface::AfterStart,
    request_body::{BodyContext, BodyLimits, RequestBody},
    streams::{AcceptedStreams, WithStreams},
};
use crate::entropy::Entropy;

/// The smallest buffer that hyper accepts.
const BUFFER_BYTES_MIN: usize = 8 * 1024;

/// The service and the limits that all connections of HTTP/1.1 share.
pub(super) struct Http1Calls<S> {
    service: Arc<S>,
    options: ServerOptions,
    entropy: Entropy,
}

/// What the calls of one connection share.
struct Served<S> {
    service: Arc<S>,
    peer: Peer,
    framing: RequestFraming,
    bodies: Arc<BodyContext>,
    answering: Answering,
    /// True if the connection has reached its maximum age: the next response closes it.
    is_at_age: Arc<AtomicBool>,
}

impl<S> Http1Calls<S> {
    pub(super) const fn new(service: Arc<S>, options: ServerOptions, entropy: Entropy) -> Self {
        Self { service, options, entropy }
    }
}

impl<S: HttpHandler + BodyLimits> Http1Calls<S> {
    /// Serves one connection until it is closed.
    pub(super) async fn serve<Io>(&self, io: AfterStart<Io>, peer: Peer, stop: &CancellationToken)
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let options = &self.options;
        let (account, accepted) = (Arc::clone(&peer.account), AcceptedStreams::default());
        let buffer =
            usize::try_from(options.header_list_bytes_max).unwrap_or(usize::MAX).max(BUFFER_BYTES_MIN);
        let framing = RequestFraming::new(buffer);
        let io = limited(io, framing.clone(), Arc::clone(&account), options);
        let bodies = Arc::new(BodyContext::new::<S>(options, &account, &accepted));
        let (is_at_age, answering) = (Arc::new(AtomicBool::new(false)), Answering::default());
        let served = Arc::new(Served {
            service: Arc::clone(&self.service),
            peer,
            framing: framing.clone(),
            bodies,
            answering: answering.clone(),
            is_at_age: Arc::clone(&is_at_age),
        });
        let service = service_fn(move |request| {
            let served = Arc::clone(&served);
            async move {
                let answer = AssertUnwindSafe(served.answer(request)).catch_unwind().await;
                answer.map_err(|_| {
                    tracing::error!("Call panicked outside of its handler");
                    io::Error::other("a call panicked")
                })
            }
        });
        let connection = http1_with_limits(options, buffer).serve_connection(TokioIo::new(io), service);
        let mut connection = WithStreams::new(connection, accepted, CountedCalls::new(account));
        tokio::select! {
            _ = &mut connection => return,
            () = tokio::time::sleep(options.varied_age(&self.entropy)) => {
                is_at_age.store(true, Ordering::Relaxed);
                tokio::select! {
                    _ = &mut connection => return,
                    () = tokio::time::sleep(options.connection_age_grace) => {
                        // A call may have begun just now. It has the same time.
                        connection.change(http1::Connection::graceful_shutdown);
                        tokio::select! {
                            _ = tokio::time::timeout(options.connection_age_grace, connection) => {}
                            () = answering.reading_time_over(stop) => {}
                        }
                        return;
                    }
                    () = stop.cancelled() => {}
                }
            }
            () = stop.cancelled() => {}
        }
        if framing.waits_for_head() {
            return; // An unfinished head has begun no call, so the connection is closed at once.
        }
        connection.change(http1::Connection::graceful_shutdown);
        // At shutdown, the accept loop enforces one deadline for all connections.
        tokio::select! {
            _ = connection => {}
            () = answering.reading_time_over(stop) => {}
        }
    }
}

fn http1_with_limits(options: &ServerOptions, buffer_bytes: usize) -> http1::Builder {
    let mut http1 = http1::Builder::new();
    http1
        .timer(TokioTimer::new())
        // hyper starts this timer after each response, so it limits the idle time. `LimitedIo` limits the
        // time of a head.
        .header_read_timeout(options.connection_idle)
        .max_buf_size(buffer_bytes)
        .max_headers(HEADERS_MAX);
    http1
}

/// Limits the times and the memory of a connection.
fn limited<Io>(
    io: AfterStart<Io>,
    framing: RequestFraming,
    account: Arc<ConnectionAccount>,
    options: &ServerOptions,
) -> LimitedIo<AfterStart<Io>> {
    let times = Http1Times {
        head: options.first_byte_timeout,
        write: options.keepalive_interval.saturating_add(options.keepalive_timeout),
    };
    let first_byte_at = io.first_byte_at();
    LimitedIo::new(io, framing, HeldBytes::new(account), times).with_first_byte_at(first_byte_at)
}

impl<S: HttpHandler + BodyLimits> Served<S> {
    /// Answers one request.
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let _in_progress = self.answering.begin();
        // Other connections of the thread run between two requests: a peer can send many at once, and a
        // request that is refused waits for nothing.
        tokio::task::yield_now().await;
        let in_progress = match self.framing.begin_call() {
            Ok(call) => call,
            Err(error) => return error.response(),
        };
        let mut response = self.call(request).await;
        if self.is_at_age.load(Ordering::Relaxed) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        in_progress.until_sent(response)
    }

    async fn call(&self, request: Request<Incoming>) -> Response<Body> {
        let mut calls = CountedCalls::new(Arc::clone(&self.peer.account));
        calls.set(1);
        let limit = self.service.body_limit(request.uri().path());
        let (head, body) = request.into_parts();
        let bodies = Arc::clone(&self.bodies);
        // Keeps the memory of the request counted until the call is answered.
        let waiting = bodies.waiting_request();
        let body = RequestBody::new(body, head.headers.len(), limit, bodies, Arc::clone(&waiting));
        let answer = self.service.answer(Request::from_parts(head, Body::new(body)), &self.peer).await;
        drop(waiting);
        answer
    }
}
