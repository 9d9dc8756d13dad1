//! Calls any method over HTTP with arbitrary headers and an arbitrary body in JSON or protobuf, through all
//! layers and handlers and a store. Each call must be answered in time, with JSON if it was JSON, and no body
//! in JSON may cause an internal error.

use arbitrary::Arbitrary;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tonic::body::Body;

use super::super::{
    input,
    service::{answer, on_service, with_headers},
};

#[derive(Debug, Arbitrary)]
struct Call<'a> {
    method: u8,
    content_type: u8,
    headers: Vec<(u8, &'a [u8])>,
    body: &'a [u8],
}

const CONTENT_TYPES: [&str; 4] = [
    "application/json",
    "application/json; charset=utf-8",
    "application/proto",
    "application/grpc-web+proto",
];

const HEADERS: [&str; 8] = [
    "connect-protocol-version",
    "connect-timeout-ms",
    "content-encoding",
    "content-length",
    "grpc-timeout",
    "grpc-encoding",
    "authorization",
    "kairos-client-ip",
];

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let Some(call) = input::<Call>(bytes) else { return };
    on_service(async |service, paths| {
        let path = &paths[usize::from(call.method) % paths.len()];
        let content_type = CONTENT_TYPES[usize::from(call.content_type) % CONTENT_TYPES.len()];
        let request = Request::post(path).header("content-type", content_type);
        let body = Body::new(Full::new(Bytes::copy_from_slice(call.body)));
        let request = with_headers(request, &HEADERS, call.headers).body(body).unwrap();
        let response = answer(service, request).await;
        let is_json = content_type.starts_with("application/json");
        assert!(!is_json || response.status() != StatusCode::INTERNAL_SERVER_ERROR);
        if is_json && response.headers()["content-type"] == "application/json" {
            let body = response.into_body().collect().await.unwrap().to_bytes();
            serde_json::from_slice::<serde_json::Value>(&body).expect("the response is JSON");
        }
    });
}
