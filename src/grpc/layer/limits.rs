//! The limits of each class of paths: the length of a request, the time of a call, and the number of calls of
//! one peer. They apply to every path before a service sees the request, so a new service cannot escape them.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;
use tonic::{Code, Status, body::Body};

use super::{
    super::status::{error_status, retryable_status},
    deadline,
};
use crate::{
    proto::ErrorReason,
    server::{BodyLimit, BodyRefusal, Peer, StreamingSlot},
};

/// The length of the prefix of a gRPC message: one byte of flags, and the length of the message.
const PREFIX_BYTES: usize = 5;

/// The first byte of the prefix of a compressed message. A greater first byte begins no prefix.
const COMPRESSED: u8 = 1;

/// The path prefix of the services of the API.
const API: &str = "/kairos.identity.v1.";

/// The look-up by one token.
pub(super) const LOOK_UP: &str = "/kairos.identity.v1.IdentityService/ResolveToken";

/// The look-up by several tokens.
const LOOK_UP_BATCH: &str = "/kairos.identity.v1.IdentityService/ResolveTokens";

/// The memory of a call that waits for its message: the call, and the buffers of the gRPC library.
const WAITING_CALL_BYTES: usize = 16 * 1024;

/// The memory of a look-up that waits for its message, without its headers. `ResolveToken` has no buffers of
/// the gRPC library (`grpc/unary.rs`), so a caller may send many look-ups at once, with messages that arrive
/// after all of their headers: 859 with five headers each, which count 256 bytes each in addition, fit into
/// 4 MiB, the default of `server.unfinished-bytes-per-peer-max`. In a development build a call occupies up to
/// 12 KiB in fact: the most calls that fit, those with one header, occupy less than 16 MiB.
const WAITING_LOOK_UP_BYTES: usize = 3_600;

/// The same of `ResolveTokens`, with the buffer of the gRPC library: 320 of them, with five headers each, fit
/// into 4 MiB.
const WAITING_LOOK_UP_BATCH_BYTES: usize = WAITING_LOOK_UP_BYTES + 8 * 1024;

/// The memory of a call of health that waits for its message. Strangers may call the health service, and no
/// client needs many such calls. So it counts twice as much as other calls, and at most 128 of one peer wait
/// (4 MiB, the default of `server.unfinished-bytes-per-peer-max`).
const WAITING_HEALTH_BYTES: usize = 32 * 1024;

/// The path prefix of the health service. Load balancers call it without a token; it reveals nothing about
/// users.
const HEALTH: &str = "/grpc.health.v1.Health/";

/// The method of the health service that streams.
const WATCH: &str = "Watch";

/// The path prefix of all versions of the reflection service.
const REFLECTION: &str = "/grpc.reflection.";

/// The retry delay for a peer that exceeds a limit: most calls end within milliseconds.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A class of paths with common limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathClass {
    Api,
    LookUp,
    /// A look-up by several tokens.
    LookUpBatch,
    Health,
    /// A call of the health service that streams until the client ends it.
    HealthWatch,
    Reflection,
    /// No service has such a path.
    Unknown,
}

impl PathClass {
    /// Returns the class of a path.
    pub(super) fn of(path: &str) -> Self {
        if path == LOOK_UP {
            return Self::LookUp;
        }
        if path == LOOK_UP_BATCH {
            return Self::LookUpBatch;
        }
        if path.starts_with(API) {
            return Self::Api;
        }
        match path.strip_prefix(HEALTH) {
            Some(WATCH) => Self::HealthWatch,
            Some(_) => Self::Health,
            None if path.starts_with(REFLECTION) => Self::Reflection,
            None => Self::Unknown,
        }
    }
}

impl PathClass {
    /// True for the health service, which any client may call. Other paths need an authenticated caller.
    pub(super) const fn is_of_health(self) -> bool {
        matches!(self, Self::Health | Self::HealthWatch)
    }
}

/// The limits that differ between classes of paths. Each is a setting.
#[derive(Debug, Clone, Copy)]
pub struct RequestLimits {
    /// The most bytes of a message of the API, and of all messages of one call of reflection.
    pub message_bytes_max: usize,
    /// The most bytes of a message of the health service.
    pub health_message_bytes_max: usize,
    /// The time limit of a call without a deadline.
    pub timeout_default: Duration,
    /// The time limit of any call, even if its deadline is later. For a call of reflection, it includes the
    /// stream.
    pub timeout_max: Duration,
    /// The time limit of a call of the health service. For `Watch`, it ends with the first response.
    pub health_timeout: Duration,
}

impl RequestLimits {
    /// Returns the limit on the body of a request.
    pub(super) fn body_limit(&self, class: PathClass) -> BodyLimit {
        let message = match class {
            PathClass::Api | PathClass::LookUp | PathClass::LookUpBatch | PathClass::Reflection => {
                self.message_bytes_max
            }
            PathClass::Health | PathClass::HealthWatch => self.health_message_bytes_max,
            PathClass::Unknown => 0,
        };
        let waiting_bytes = match class {
            PathClass::LookUp => WAITING_LOOK_UP_BYTES,
            PathClass::LookUpBatch => WAITING_LOOK_UP_BATCH_BYTES,
            PathClass::Health | PathClass::HealthWatch => WAITING_HEALTH_BYTES,
            PathClass::Api | PathClass::Reflection | PathClass::Unknown => WAITING_CALL_BYTES,
        };
        let bytes_max = message.saturating_add(PREFIX_BYTES);
        BodyLimit { bytes_max, waiting_bytes, is_of_health: class.is_of_health() }
    }

    /// Returns the time limit of a call.
    ///
    /// # Errors
    /// `INVALID_FIELDS` for a malformed `grpc-timeout`.
    pub(super) fn timeout(&self, class: PathClass, headers: &http::HeaderMap) -> Result<Duration, Status> {
        let max =
            if class.is_of_health() { self.health_timeout.min(self.timeout_max) } else { self.timeout_max };
        deadline::limit(headers, self.timeout_default, max)
    }
}

/// Checks that the peer has not too many calls in flight. Returns the slot of a streaming call.
///
/// # Errors
/// `OVERLOADED`.
pub(super) fn admit_peer(class: PathClass, peer: &Peer) -> Result<Option<Arc<StreamingSlot>>, Status> {
    let has_too_many = if class.is_of_health() {
        peer.account.has_too_many_calls_of_health()
    } else {
        peer.account.has_too_many_calls()
    };
    if has_too_many {
        return Err(too_many("calls"));
    }
    match class {
        PathClass::HealthWatch | PathClass::Reflection => {
            // A monitor must see the health although others at its address take all places.
            let slot = peer.account.try_begin_streaming_call(class == PathClass::HealthWatch);
            slot.map(|slot| Some(Arc::new(slot))).ok_or_else(|| too_many("streaming calls"))
        }
        PathClass::Api
        | PathClass::LookUp
        | PathClass::LookUpBatch
        | PathClass::Health
        | PathClass::Unknown => Ok(None),
    }
}

fn too_many(what: &str) -> Status {
    overloaded(&format!("this address has too many {what} in flight: try again later"))
}

fn overloaded(message: &str) -> Status {
    retryable_status(Code::ResourceExhausted, ErrorReason::Overloaded, message, RETRY_AFTER)
}

/// Returns the memory that the gRPC library reserves for a message after it has read the prefix: the length
/// that the prefix announces. If the first frame has only a part of the prefix, the length is unknown, and
/// the message counts as the longest. Bytes that are no prefix, such as JSON, reserve nothing.
pub(super) fn reserved_bytes(first_frame: &[u8]) -> usize {
    if first_frame.first().is_some_and(|flag| *flag > COMPRESSED) {
        return 0;
    }
    let Some([_, length @ ..]) = first_frame.first_chunk::<PREFIX_BYTES>() else { return usize::MAX };
    usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX)
}

/// Returns the status for a request whose body is refused.
pub(super) fn body_refused(refusal: BodyRefusal) -> Status {
    match refusal {
        BodyRefusal::TooLong { bytes_max } => {
            let bytes_max = bytes_max.saturating_sub(PREFIX_BYTES);
            Status::out_of_range(format!("a request must have at most {bytes_max} bytes"))
        }
        BodyRefusal::Unreadable => Status::invalid_argument(
            "the body of the request cannot be read: it ends early, or its chunks are malformed",
        ),
        BodyRefusal::TooManyWaiting => overloaded(
            "the requests of this caller, or of all callers, that wait for their answers occupy too much memory: try again later",
        ),
        BodyRefusal::OutOfMemory => overloaded(
            "the unfinished requests of this address, or of all addresses, occupy too much memory: try again later",
        ),
    }
}

/// A request or response of a streaming call. It holds the slot of the call, and ends when another call gets
/// the place of this one.
pub(super) struct StreamingBody {
    body: Body,
    _slot: Arc<StreamingSlot>,
    displaced: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// The time at which a request ends with an error; `None` for a response.
    deadline: Option<Pin<Box<Sleep>>>,
    is_ended: bool,
}

impl StreamingBody {
    /// Wraps the request of a streaming call, which ends with an error after `limit`. Without this end, the
    /// task in which reflection reads the request would wait for further messages even after the response has
    /// ended.
    pub(super) fn request(body: Body, slot: &Arc<StreamingSlot>, limit: Duration) -> Body {
        Self::wrap(body, Arc::clone(slot), Some(limit))
    }

    /// Wraps the response of a streaming call.
    pub(super) fn response(response: Response<Body>, slot: Arc<StreamingSlot>) -> Response<Body> {
        response.map(|body| Self::wrap(body, slot, None))
    }

    fn wrap(body: Body, slot: Arc<StreamingSlot>, limit: Option<Duration>) -> Body {
        let displaced = Box::pin(slot.displaced());
        let deadline = limit.map(|limit| Box::pin(tokio::time::sleep(limit)));
        Body::new(Self { body, _slot: slot, displaced, deadline, is_ended: false })
    }

    /// Returns the end of a displaced call: for a response, the status in the trailers.
    fn end(&mut self) -> Option<Result<Frame<Bytes>, Status>> {
        self.is_ended = true;
        let status =
            overloaded("another call of this address got the place of this one: begin it again later");
        // Only a request has a deadline.
        if self.deadline.is_some() {
            return Some(Err(status));
        }
        let mut trailers = http::HeaderMap::new();
        status.add_header(&mut trailers).ok().map(|()| Ok(Frame::trailers(trailers)))
    }
}

impl http_body::Body for StreamingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_ended {
            return Poll::Ready(None);
        }
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_pending() && self.displaced.as_mut().poll(context).is_ready() {
            return Poll::Ready(self.end());
        }
        if frame.is_pending()
            && let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            let message = "the deadline passed before the client ended the stream";
            let status = error_status(Code::DeadlineExceeded, ErrorReason::DeadlineExceeded, message);
            return Poll::Ready(Some(Err(status)));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::methods::all_method_paths, *};

    #[test]
    fn every_method_has_a_class_and_every_class_has_limits() {
        let limits = RequestLimits {
            message_bytes_max: 1_000,
            health_message_bytes_max: 100,
            timeout_default: Duration::from_secs(10),
            timeout_max: Duration::from_mins(1),
            health_timeout: Duration::from_secs(2),
        };
        let of = |path: &str| {
            let class = PathClass::of(path);
            let seconds = limits.timeout(class, &http::HeaderMap::new()).unwrap().as_secs();
            (class, limits.body_limit(class).bytes_max, seconds)
        };
        for path in all_method_paths() {
            assert_ne!(PathClass::of(&path), PathClass::Unknown, "{path}");
        }
        assert_eq!(of("/kairos.identity.v1.IdentityService/Login"), (PathClass::Api, 1_005, 10));
        assert_eq!(of("/kairos.identity.v1.IdentityService/ResolveToken"), (PathClass::LookUp, 1_005, 10));
        let batch = of("/kairos.identity.v1.IdentityService/ResolveTokens");
        assert_eq!(batch, (PathClass::LookUpBatch, 1_005, 10));
        assert_eq!(of("/grpc.health.v1.Health/Check"), (PathClass::Health, 105, 2));
        assert_eq!(of("/grpc.health.v1.Health/Watch"), (PathClass::HealthWatch, 105, 2));
        for version in ["v1", "v1alpha"] {
            let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
            assert_eq!(of(&path), (PathClass::Reflection, 1_005, 10));
        }
        for path in ["/", "", "*", "/other.Service/Method", "/grpc.health.v2.Health/Check"] {
            assert_eq!(of(path), (PathClass::Unknown, 5, 10), "{path}");
        }
    }

    #[test]
    fn the_announced_length_of_a_message_is_reserved() {
        assert_eq!(reserved_bytes(&[0, 0, 1, 0, 2, 7]), 65_538);
        assert_eq!(reserved_bytes(&[0, 0xff, 0xff, 0xff, 0xff]), 0xffff_ffff);
        assert_eq!(reserved_bytes(&[0, 0, 0, 0]), usize::MAX);
        assert_eq!((reserved_bytes(b"{\"email\": "), reserved_bytes(b"{")), (0, 0));
    }
}
