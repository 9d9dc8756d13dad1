//! Runs a call on another runtime than its connection, so that it delays no look-up on the thread of the
//! connection.
//!
//! A call with one message leaves the thread once its first bytes have arrived. Until then it is small, and
//! it is refused there if its peer has too many such calls.

use std::{future::poll_fn, mem, pin::Pin};

use futures_util::{StreamExt, stream};
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::{BodyStream, StreamBody};
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;

use super::panic;

/// Starts the handler of a call on `runtime` at once, and returns its response. If the returned future is
/// dropped, the handler is aborted: it runs at most to its next await.
pub(super) fn run(
    runtime: &Handle,
    handler: impl Future<Output = Response<Body>> + Send + 'static,
) -> impl Future<Output = Response<Body>> + Send {
    let task = AbortOnDropHandle::new(runtime.spawn(handler));
    // Not an async function: its future would also have room for the handler.
    async {
        // The handler catches its panics, so its task has no response only if the runtime has ended.
        task.await.unwrap_or_else(|_| panic::internal_error())
    }
}

/// Waits for the first frame of a request's body, and puts it back in front of the rest.
pub(super) async fn wait_for_first_frame(request: &mut Request<Body>) {
    if request.body().is_end_stream() {
        return;
    }
    let frame = poll_fn(|context| Pin::new(request.body_mut()).poll_frame(context)).await;
    if let Some(frame) = frame {
        let rest = mem::take(request.body_mut());
        let frames = stream::iter([frame]).chain(BodyStream::new(rest));
        *request.body_mut() = Body::new(StreamBody::new(frames));
    }
}
