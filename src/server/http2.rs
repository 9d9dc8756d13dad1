//! Serves calls over HTTP/2.
//!
//! A connection sends the preface and then calls. At its maximum age, when it is idle or at shutdown, it gets
//! GOAWAY; its calls may finish, and then it is closed. A connection that resets too many streams gets GOAWAY
//! too (`resets.rs`).

use std::{convert::Infallible, future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};

use http::{Request, Response, header};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::{
    answering::Answering,
    connection::Peer,
    handler::{HttpHandler, Refusal},
    malformed_calls::MalformedCalls,
    options::ServerOptions,
    peer_account::CountedCalls,
    peer_log::PeerLog,
    preface::AfterStart,
    request_body::{BodyContext, BodyLimits, RequestBody},
    resets::{LOCAL_RESETS_MAX, Resets, SharedVerdict, Verdict},
    streams::{AcceptedStreams, WithStreams},
    watched::WatchedIo,
    when_woken::WhenWoken,
};
use crate::{clock::Clock, entropy::Entropy};

/// The most waiting streams that the peer reset before the server accepted them (CVE-2023-44487, rapid
/// reset). Beyond it, h2 closes the connection. `resets.rs` limits the rate of such resets. It notices an
/// attack earlier, because the server accepts waiting streams several times while it reads this many.
const PENDING_ACCEPT_RESETS_MAX: usize = 2_048;

/// How long, after a GOAWAY because of too many resets, calls that the peer has just sent may still arrive. A
/// peer that acknowledges the GOAWAY ends this time itself; an attacker does not.
const LAST_CALL_TIME: Duration = Duration::from_millis(50);

/// How long, at shutdown, a connection without a call waits for the peer to acknowledge the GOAWAY. Calls
/// that the peer has sent before still arrive within this time.
const ACKNOWLEDGEMENT_TIME: Duration = Duration::from_secs(1);

/// The flow-control window of a stream: the bytes that a peer may send before the handler reads them. Twice
/// the default limit of a message.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;

/// The flow-control window of a connection. It bounds the memory that one connection can occupy with unread
/// messages.
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;

/// The answer to a call.
type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// The service and the limits that all HTTP/2 connections share.
pub(super) struct Http2<S> {
    service: Arc<S>,
    options: ServerOptions,
    entropy: Entropy,
    peer_log: PeerLog,
}

impl<S> Http2<S> {
    pub(super) fn new(service: Arc<S>, options: ServerOptions, entropy: Entropy) -> Self {
        Self { service, options, entropy, peer_log: PeerLog::new(Clock::system()) }
    }
}

impl<S: HttpHandler + BodyLimits> Http2<S> {
    /// Returns the function that answers the calls of one connection.
    fn calls_of(
        &self,
        peer: Peer,
        accepted: &AcceptedStreams,
        verdict: SharedVerdict,
        answering: Answering,
    ) -> impl Fn(Request<Incoming>) -> Answer + use<S> {
        let bodies = Arc::new(BodyContext::new::<S>(&self.options, &peer.account, accepted));
        let served = Arc::new((Arc::clone(&self.service), peer, verdict, answering));
        move |request| {
            let (served, bodies) = (Arc::clone(&served), Arc::clone(&bodies));
            // Boxed, because hyper and the executor move the future several times.
            Box::pin(async move {
                let (service, peer, verdict, answering) = &*served;
                let _in_progress = answering.begin();
                if verdict.has_resets() {
                    // A call that the peer reset before it began must cause no work. hyper drops such a call
                    // at its first pending poll, so the call is pending once before it begins.
                    pend_once().await;
                }
                let limit = service.body_limit(request.uri().path());
                let (head, body) = request.into_parts();
                // Keeps the memory of the request counted until the call is answered.
                let waiting = bodies.waiting_request();
                let body = RequestBody::new(body, head.headers.len(), limit, bodies, Arc::clone(&waiting));
                let answer = service.answer(Request::from_parts(head, Body::new(body)), peer).await;
                drop(waiting);
                Ok(if peer.account.has_too_many_calls() { without_body_if_refused(answer) } else { answer })
            })
        }
    }

    /// Serves one connection until it is closed.
    pub(super) async fn serve<Io>(&self, io: AfterStart<Io>, peer: Peer, stop: &CancellationToken)
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let options = &self.options;
        let (account, accepted) = (Arc::clone(&peer.account), AcceptedStreams::default());
        let verdict = SharedVerdict::default();
        let resets =
            Resets::new(options.resets_per_second_max, options.streams_per_connection_max, verdict.clone());
        let malformed_calls = MalformedCalls::new(self.peer_log.clone(), peer.address);
        let io = WatchedIo::new(io, resets, malformed_calls, Arc::clone(&account));
        let answering = Answering::default();
        let service = service_fn(self.calls_of(peer, &accepted, verdict.clone(), answering.clone()));
        let connection =
            http2_with_limits(options, accepted.clone()).serve_connection(TokioIo::new(io), service);
        let mut connection = WithStreams::new(connection, accepted.clone(), CountedCalls::new(account));
        let mut resets_too_many = false;
        // `Some` is the time in which the calls may finish; at shutdown, the accept loop limits it.
        let end = WhenWoken::new(async {
            tokio::select! {
                () = tokio::time::sleep(options.varied_age(&self.entropy)) => Some(options.connection_age_grace),
                () = idle(&accepted, options.connection_idle) => Some(options.connection_age_grace),
                () = stop.cancelled() => None,
            }
        });
        let grace = tokio::select! {
            biased;
            grace = end => grace,
            is_over = run_until(&mut connection, &verdict, Verdict::Drain) => {
                if is_over {
                    return;
                }
                resets_too_many = true;
                Some(options.connection_age_grace)
            }
        };
        connection.change(http2::Connection::graceful_shutdown);
        // At shutdown, the accept loop enforces one deadline for all connections and counts the aborted ones.
        // A peer that does not acknowledge the GOAWAY must not delay the stop if it has no call, and one that
        // does not read its answers delays it only for a while.
        let stopped = async {
            stop.cancelled().await;
            tokio::select! {
                () = no_call_after(&accepted, ACKNOWLEDGEMENT_TIME) => {}
                () = answering.reading_time_over(stop) => {}
            }
        };
        tokio::select! {
            _ = run_until(&mut connection, &verdict, Verdict::Close) => {}
            () = no_call_after(&accepted, LAST_CALL_TIME), if resets_too_many => {}
            () = tokio::time::sleep(grace.unwrap_or_default()), if grace.is_some() => {}
            () = stopped => {}
        }
    }
}

/// Removes the body of a refusal, for a peer with too many calls in flight. A body is sent only as far as the
/// peer allows it (flow control), so that one that allows nothing would make each refused call stay.
fn without_body_if_refused(answer: Response<Body>) -> Response<Body> {
    if answer.status().is_success() && answer.extensions().get::<Refusal>().is_none() {
        return answer;
    }
    let mut answer = answer.map(|_| Body::empty());
    answer.headers_mut().remove(header::CONTENT_LENGTH);
    answer
}

/// Runs a connection until it is over or the verdict on it is at least `threshold`. Returns true if it is
/// over.
async fn run_until<C: Future>(
    connection: &mut WithStreams<C>,
    verdict: &SharedVerdict,
    threshold: Verdict,
) -> bool {
    poll_fn(|context| match Pin::new(&mut *connection).poll(context) {
        Poll::Ready(_) => Poll::Ready(true),
        // Needs no waker: only a poll of the connection changes the verdict.
        Poll::Pending if verdict.is_at_least(threshold) => Poll::Ready(false),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Is pending at the first poll and ready at the second.
async fn pend_once() {
    let mut is_ready = false;
    poll_fn(|context| {
        if std::mem::replace(&mut is_ready, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Waits for `time`, and again as long as a call is in flight at the end of it.
async fn no_call_after(accepted: &AcceptedStreams, time: Duration) {
    loop {
        tokio::time::sleep(time).await;
        if accepted.in_flight() == 0 {
            return;
        }
    }
}

/// Waits until no call has been in flight for at least `span`. Returns at the latest when the connection has
/// been idle for twice that time.
async fn idle(accepted: &AcceptedStreams, span: Duration) {
    loop {
        let (started, was_idle) = (accepted.started(), accepted.in_flight() == 0);
        tokio::time::sleep(span).await;
        if was_idle && accepted.is_idle_since(started) {
            return;
        }
    }
}

fn http2_with_limits(options: &ServerOptions, executor: AcceptedStreams) -> http2::Builder<AcceptedStreams> {
    let mut http2 = http2::Builder::new(executor);
    http2
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.streams_per_connection_max)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .max_pending_accept_reset_streams(PENDING_ACCEPT_RESETS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(options.header_list_bytes_max)
        .max_send_buf_size(options.send_buffer_bytes_max)
        .keep_alive_interval(Some(options.keepalive_interval))
        .keep_alive_timeout(options.keepalive_timeout);
    http2
}
