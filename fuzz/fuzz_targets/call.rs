//! Calls any method with arbitrary metadata and an arbitrary body, through all layers and handlers and a
//! store. Each call must be answered in time and without a server error.
#![no_main]

use std::{cell::RefCell, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Version};
use http_body_util::Full;
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
            let mut request =
                Request::post(path).version(Version::HTTP_2).header("content-type", "application/grpc");
            for (name, value) in call.headers {
                let name = HeaderName::from_static(HEADERS[usize::from(name) % HEADERS.len()]);
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    request = request.header(name, value);
                }
            }
            let length = u32::try_from(call.message.len()).unwrap().to_be_bytes();
            let prefix = call.prefix.unwrap_or([0, length[0], length[1], length[2], length[3]]);
            let body = Full::new(Bytes::from([&prefix[..], call.message].concat()));
            let peer = service::peer();
            let response = service.calls.answer(request.body(Body::new(body)).unwrap(), &peer);
            let response =
                tokio::time::timeout(Duration::from_secs(20), response).await.expect("the call is answered");
            assert!(response.status().is_success() || response.status().is_client_error());
        });
    });
});
