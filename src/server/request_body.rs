//! The body of a request, within limits.
//!
//! The limits apply to every path before a service sees the request: the length of the body, the memory of a
//! peer's unfinished requests, and the memory of a caller's requests that wait for their answers.
//!
//! When a handler drops a body that is not complete, because it has answered, the rest is read and discarded.
//! Otherwise hyper would reset the stream, and h2 would count each frame that arrives after the reset as an
//! error of the peer; over HTTP/1.1, a client that is still sending would get a reset instead of the answer.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tonic::{Code, Status};

use super::{
    held_bytes::HeldBytes, options::ServerOptions, peer_account::ConnectionAccount, streams::AcceptedStreams,
    waiting_bytes::WaitingRequest,
};

/// The memory that is counted for one header, whatever its length on the wire: HPACK can encode a header in
/// one byte.
const HEADER_BYTES: usize = 256;

/// The factor by which a buffer may be larger than the bytes in it, because it grows by doubling.
const BUFFER_GROWTH: usize = 2;

/// The reason why the rest of a body is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyRefusal {
    /// The body ends early, or its chunks are malformed.
    Unreadable,
    /// The body is longer than its path allows.
    TooLong {
        /// The most bytes that a body of this path may have.
        bytes_max: usize,
    },
    /// The unfinished requests of the peer, or of all peers, occupy too much memory.
    OutOfMemory,
    /// The requests of the caller, or of all callers, that wait for their answers occupy too much memory.
    TooManyWaiting,
}

/// The limit on the body of a request.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimit {
    /// The most bytes of the body.
    pub bytes_max: usize,
    /// The memory of the request while it waits for its body, without its received bytes and its headers.
    pub waiting_bytes: usize,
    /// True for a call of health. Its memory counts as that of a stranger even if a caller was authenticated
    /// on its connection. Each connection has memory for one such call.
    pub is_of_health: bool,
}

/// The limits on request bodies of a service.
pub trait BodyLimits {
    /// Returns the limit on the body of a request with this path.
    fn body_limit(&self, path: &str) -> BodyLimit;

    /// Returns the memory that the service reserves for a body once it has read the first frame.
    fn reserved_bytes(first_frame: &[u8]) -> usize;

    /// Returns the error that the reader of a refused body gets.
    fn body_refused(refusal: BodyRefusal) -> Status;
}

/// What the bodies of one connection share.
pub(super) struct BodyContext {
    account: Arc<ConnectionAccount>,
    streams: AcceptedStreams,
    reserved_bytes: fn(&[u8]) -> usize,
    refused: fn(BodyRefusal) -> Status,
    late_bytes_max: usize,
    late_bytes_timeout: Duration,
}

impl BodyContext {
    /// Creates the count of what a call of the connection keeps of its request.
    pub(super) fn waiting_request(&self) -> Arc<WaitingRequest> {
        Arc::new(WaitingRequest::new(Arc::clone(&self.account)))
    }

    /// Creates the context of a connection of the peer with this account.
    pub(super) fn new<S: BodyLimits>(
        options: &ServerOptions,
        account: &Arc<ConnectionAccount>,
        streams: &AcceptedStreams,
    ) -> Self {
        Self {
            account: Arc::clone(account),
            streams: streams.clone(),
            reserved_bytes: S::reserved_bytes,
            refused: S::body_refused,
            late_bytes_max: options.late_bytes_max,
            late_bytes_timeout: options.late_bytes_timeout,
        }
    }
}

/// The body of a request.
pub(super) struct RequestBody {
    /// `None` once the body is dropped.
    incoming: Option<Incoming>,
    context: Arc<BodyContext>,
    bytes_max: usize,
    is_of_health: bool,
    /// The memory of the request, besides its body.
    request_bytes: usize,
    received: usize,
    /// The memory that the service has reserved for the body.
    reserved: usize,
    /// `None` until the body has to wait for more bytes.
    held: Option<HeldBytes>,
    /// What the call keeps of the request until it is answered.
    waiting: Arc<WaitingRequest>,
    /// Whether the body has ended or failed, so that there is no rest to discard.
    has_ended: Cell<bool>,
}

impl RequestBody {
    /// Creates the body of a request with this number of headers. What arrives is counted in `waiting`, which
    /// the call keeps.
    pub(super) const fn new(
        incoming: Incoming,
        headers: usize,
        limit: BodyLimit,
        context: Arc<BodyContext>,
        waiting: Arc<WaitingRequest>,
    ) -> Self {
        let request_bytes = limit.waiting_bytes.saturating_add(headers.saturating_mul(HEADER_BYTES));
        Self {
            incoming: Some(incoming),
            context,
            bytes_max: limit.bytes_max,
            is_of_health: limit.is_of_health,
            request_bytes,
            received: 0,
            reserved: 0,
            held: None,
            waiting,
            has_ended: Cell::new(false),
        }
    }

    fn refuse<T>(&self, refusal: BodyRefusal) -> Poll<Option<Result<T, Status>>> {
        Poll::Ready(Some(Err((self.context.refused)(refusal))))
    }

    /// Counts what the request occupies while it waits. Returns false if this is too much.
    fn hold(&mut self) -> bool {
        let (connection, is_of_health) = (&self.context.account, self.is_of_health);
        let held =
            self.held.get_or_insert_with(|| HeldBytes::of_request(Arc::clone(connection), is_of_health));
        let buffer = self.received.saturating_mul(BUFFER_GROWTH).max(self.reserved);
        held.set(self.request_bytes.saturating_add(buffer))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
        match Pin::new(incoming).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    if self.received == 0 {
                        self.reserved = (self.context.reserved_bytes)(data).min(self.bytes_max);
                    }
                    self.received = self.received.saturating_add(data.len());
                }
                if self.received > self.bytes_max {
                    return self.refuse(BodyRefusal::TooLong { bytes_max: self.bytes_max });
                }
                if !self.waiting.set(self.received) {
                    return self.refuse(BodyRefusal::TooManyWaiting);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.has_ended.set(true);
                match Status::from_error(error.into()) {
                    // An error of HTTP/1.1. Those of HTTP/2 have codes of their own.
                    status if status.code() == Code::Unknown => self.refuse(BodyRefusal::Unreadable),
                    status => Poll::Ready(Some(Err(status))),
                }
            }
            Poll::Ready(None) => {
                self.has_ended.set(true);
                self.held = None;
                Poll::Ready(None)
            }
            // Only a body that has to wait counts as unfinished.
            Poll::Pending if self.hold() => Poll::Pending,
            Poll::Pending => self.refuse(BodyRefusal::OutOfMemory),
        }
    }

    fn is_end_stream(&self) -> bool {
        let has_ended = self.has_ended.get() || self.incoming.as_ref().is_none_or(Body::is_end_stream);
        // A reader that sees the end does not poll again, and then `drop` needs no look at the stream.
        self.has_ended.set(has_ended);
        has_ended
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.held = None;
        // If the peer has too many calls in flight, the rest is not read: hyper resets the stream.
        if self.has_ended.get() || self.context.account.has_too_many_calls() {
            return;
        }
        if let Some(incoming) = self.incoming.take().filter(|incoming| !incoming.is_end_stream()) {
            let (bytes_max, timeout) = (self.context.late_bytes_max, self.context.late_bytes_timeout);
            self.context.streams.run(discard(incoming, bytes_max, timeout));
        }
    }
}

/// Reads and discards the rest of a body until it ends, `bytes_max` is exceeded or `timeout` has passed.
async fn discard(mut incoming: Incoming, bytes_max: usize, timeout: Duration) {
    let discarded = async {
        let mut bytes = 0_usize;
        while bytes <= bytes_max
            && let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut incoming).poll_frame(context)).await
        {
            bytes = bytes.saturating_add(frame.data_ref().map_or(0, Bytes::len));
        }
    };
    let _ = tokio::time::timeout(timeout, discarded).await;
}
