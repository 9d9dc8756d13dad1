//! Calls any method with arbitrary metadata and an arbitrary body, through all layers and handlers and a
//! store. Each call must be answered in time and without a server error.

use arbitrary::Arbitrary;
use bytes::Bytes;
use http::{Request, Version};
use http_body_util::Full;
use tonic::body::Body;

use super::super::{
    input,
    service::{answer, on_service, with_headers},
};

#[derive(Debug, Arbitrary)]
struct Call<'a> {
    method: u8,
    headers: Vec<(u8, &'a [u8])>,
    prefix: Option<[u8; 5]>,
    message: &'a [u8],
}

const HEADERS: [&str; 10] = [
    "content-type",
    "grpc-timeout",
    "grpc-encoding",
    "authorization",
    "kairos-client-ip",
    "kairos-client-agent",
    "traceparent",
    "grpc-accept-encoding",
    "te",
    "kairos-request-id",
];

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let Some(call) = input::<Call>(bytes) else { return };
    on_service(async |service, paths| {
        let path = &paths[usize::from(call.method) % paths.len()];
        let request = Request::post(path).version(Version::HTTP_2).header("content-type", "application/grpc");
        let length = u32::try_from(call.message.len()).unwrap().to_be_bytes();
        let prefix = call.prefix.unwrap_or([0, length[0], length[1], length[2], length[3]]);
        let body = Full::new(Bytes::from([&prefix[..], call.message].concat()));
        let request = with_headers(request, &HEADERS, call.headers).body(Body::new(body)).unwrap();
        let response = answer(service, request).await;
        assert!(response.status().is_success() || response.status().is_client_error());
    });
}
