//! Calls any method over HTTP with arbitrary headers and an arbitrary body in JSON or protobuf, through all
//! layers and handlers and a store. Each call must be answered in time, with JSON if it was JSON, and no body
//! in JSON may cause an internal error.
#![no_main]

use std::{cell::RefCell, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use kairos_identity::{grpc::layer::all_method_paths, server::HttpHandler};
use kairos_identity_fuzz::service;
use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};
use tokio::runtime::{Builder, Runtime};
use tonic::body::Body;

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

fuzz_target!(|call: Call| {
    thread_local! {
        static SCENE: (Runtime, Vec<String>, RefCell<Option<Arc<service::Service>>>) =
            (Builder::new_current_thread().enable_all().build().unwrap(), all_method_paths(), RefCell::default());
    }
    SCENE.with(|(runtime, paths, service)| {
        runtime.block_on(async {
            if service.borrow().is_none() {
                let started = Arc::new(service::Service::start().await);
                service.replace(Some(started));
            }
            let service = service.borrow().clone().unwrap();
            let path = &paths[usize::from(call.method) % paths.len()];
            let content_type = CONTENT_TYPES[usize::from(call.content_type) % CONTENT_TYPES.len()];
            let mut request = Request::post(path).header("content-type", content_type);
            for (name, value) in call.headers {
                let name = HeaderName::from_static(HEADERS[usize::from(name) % HEADERS.len()]);
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    request = request.header(name, value);
                }
            }
            let body = Body::new(Full::new(Bytes::copy_from_slice(call.body)));
            let peer = service::peer();
            let response = service.calls.answer(request.body(body).unwrap(), &peer);
            let response =
                tokio::time::timeout(Duration::from_secs(20), response).await.expect("the call is answered");
            let is_json = content_type.starts_with("application/json");
            assert!(!is_json || response.status() != StatusCode::INTERNAL_SERVER_ERROR);
            if is_json && response.headers()["content-type"] == "application/json" {
                let body = response.into_body().collect().await.unwrap().to_bytes();
                serde_json::from_slice::<serde_json::Value>(&body).expect("the response is JSON");
            }
        });
    });
});
