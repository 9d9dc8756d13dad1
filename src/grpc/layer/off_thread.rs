//! Runs a call beside the threads that serve connections, so that it delays no look-up of its thread.

use http::Response;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;

use super::panic;

/// Starts the handler of a call on `runtime`, and returns its response. If the returned future is dropped, so
/// is the handler.
pub(super) fn run(
    runtime: &Handle,
    handler: impl Future<Output = Response<Body>> + Send + 'static,
) -> impl Future<Output = Response<Body>> + Send {
    let task = AbortOnDropHandle::new(runtime.spawn(handler));
    // Not an async function: its future, a part of that of every call, would reserve memory for the handler.
    async {
        // The handler catches its panics, so its task has no response only if the runtime has ended.
        task.await.unwrap_or_else(|_| panic::internal_error())
    }
}
