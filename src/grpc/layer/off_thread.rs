//! Runs a call on another runtime than its connection, so that it delays no look-up on the thread of the
//! connection.

use http::Response;
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
    // Not an async function: that would store the handler in the future of each call, also of look-ups.
    async {
        // The handler catches its panics, so its task has no response only if the runtime has ended.
        task.await.unwrap_or_else(|_| panic::internal_error())
    }
}
