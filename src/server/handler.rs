//! What the ports serve.

use http::{Request, Response};
use tonic::body::Body;

use super::connection::Peer;

/// A service that answers HTTP requests.
pub trait HttpHandler: Send + Sync + 'static {
    /// Answers one request of a peer.
    fn answer(&self, request: Request<Body>, peer: &Peer) -> impl Future<Output = Response<Body>> + Send;
}
