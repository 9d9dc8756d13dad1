//! The protocols beside gRPC: Connect, with unary calls in JSON or protobuf and streaming calls in protobuf,
//! and gRPC-Web, over HTTP/1.1 and HTTP/2 (docs/http.md).
//!
//! A request of these protocols becomes a gRPC request before the layers see it, and the gRPC response is
//! translated back. The layers and the handlers therefore know gRPC only, and every protocol gets the same
//! rights, limits, deadlines, log lines and audit events. The body is translated when the handler reads it,
//! so that nothing is parsed before the caller is authorized.

mod connect_error;
mod connect_request;
mod connect_response;
mod connect_stream;
mod frames;
mod json;
mod kind;
mod schema;
mod web;

use http::{Method, Request, Response, Version, header};
use tonic::{Status, body::Body};

use self::{kind::Protocol, schema::Schema};
use super::layer::{OfBrowser, is_method_path};
use crate::server::{BodyLimit, BodyLimits, BodyRefusal, HttpHandler, Peer};

/// A service of gRPC that also answers the other protocols.
pub struct Protocols<H> {
    inner: H,
    schema: Schema,
}

/// Makes a service of gRPC answer all protocols.
#[must_use]
pub fn with_all_protocols<H>(inner: H) -> Protocols<H> {
    Protocols { inner, schema: Schema::new() }
}

impl<H: BodyLimits> BodyLimits for Protocols<H> {
    fn body_limit(&self, path: &str) -> BodyLimit {
        self.inner.body_limit(path)
    }

    fn reserved_bytes(first_frame: &[u8]) -> usize {
        H::reserved_bytes(first_frame)
    }

    fn body_refused(refusal: BodyRefusal) -> Status {
        H::body_refused(refusal)
    }
}

impl<H: HttpHandler> HttpHandler for Protocols<H> {
    async fn answer(&self, mut request: Request<Body>, peer: &Peer) -> Response<Body> {
        let protocol = Protocol::of(&request);
        let is_of_browser = request.headers().contains_key(header::ORIGIN) && is_call(&request);
        if is_of_browser {
            // The layers refuse it.
            request.extensions_mut().insert(OfBrowser);
        }
        if is_of_browser || (protocol == Protocol::Grpc && request.version() == Version::HTTP_2) {
            return self.inner.answer(request, peer).await;
        }
        // Boxed, so that the future of a gRPC call reserves no memory for it.
        Box::pin(self.answer_translated(protocol, request, peer)).await
    }
}

impl<H: HttpHandler> Protocols<H> {
    async fn answer_translated(
        &self,
        protocol: Protocol,
        mut request: Request<Body>,
        peer: &Peer,
    ) -> Response<Body> {
        let is_call = is_call(&request);
        match protocol {
            Protocol::Connect(codec) if is_call => {
                let method = self.schema.find(request.uri().path());
                // In Connect, a streaming method has another content type: the layers reject this one.
                if !method.is_streaming() {
                    let request = connect_request::to_grpc(request, codec, method.clone());
                    let response = self.inner.answer(request, peer).await;
                    return connect_response::from_grpc(response, codec, &method, &self.schema).await;
                }
            }
            Protocol::ConnectStream if is_call && self.schema.find(request.uri().path()).is_streaming() => {
                let response = self.inner.answer(connect_request::stream_to_grpc(request), peer).await;
                return connect_stream::from_grpc(response, &self.schema);
            }
            Protocol::GrpcWeb if is_call => {
                return web::from_grpc(self.inner.answer(web::to_grpc(request), peer).await);
            }
            _ => {}
        }
        if protocol == Protocol::Grpc {
            // gRPC has no form over HTTP/1.1. Without a content type the layers reject the request.
            request.headers_mut().remove(header::CONTENT_TYPE);
        }
        self.inner.answer(request, peer).await
    }
}

/// True if the request calls a method, in whichever protocol.
fn is_call(request: &Request<Body>) -> bool {
    request.method() == Method::POST && is_method_path(request.uri().path())
}
