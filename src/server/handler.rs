//! What the ports serve.

use http::{Request, Response};
use tonic::body::Body;

use super::connection::Peer;

/// Marks a response that refuses a call although its HTTP status is 200, as an extension of it.
#[derive(Debug, Clone, Copy)]
pub struct Refusal;

/// A service that answers HTTP requests.
pub trait HttpHandler: Send + Sync + 'static {
    /// Answers one request of a peer.
    fn answer(&self, request: Request<Body>, peer: &Peer) -> impl Future<Output = Response<Body>> + Send;
}
