//! Sends arbitrary requests to the pages. Each must be answered in time and without a server error, must not
//! change a password, and its response must contain no script from the request.

use std::{cell::RefCell, sync::Arc, time::Duration};

use arbitrary::Arbitrary;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use kairos_identity::server::HttpHandler;
use tokio::runtime::{Builder, Runtime};
use tonic::body::Body;

use super::super::{input, service};

#[derive(Debug, Arbitrary)]
struct PageRequest<'a> {
    method: u8,
    path: u8,
    query: &'a str,
    is_form: bool,
    body: &'a [u8],
}

const METHODS: [Method; 4] = [Method::GET, Method::POST, Method::HEAD, Method::PUT];
const PATHS: [&str; 7] = [
    "/verify",
    "/reset-password",
    "/confirm-email",
    "/undo-email-change",
    "/.well-known/jwks.json",
    "/style.css",
    "/",
];

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let Some(input) = input::<PageRequest>(bytes) else { return };
    thread_local! {
        static SCENE: (Runtime, RefCell<Option<Arc<service::Service>>>) =
            (Builder::new_current_thread().enable_all().build().unwrap(), RefCell::default());
    }
    SCENE.with(|(runtime, service)| {
        runtime.block_on(async {
            if service.borrow().is_none() {
                let started = Arc::new(service::Service::start().await);
                service.replace(Some(started));
            }
            let service = service.borrow().clone().unwrap();
            let path = PATHS[usize::from(input.path) % PATHS.len()];
            let method = METHODS[usize::from(input.method) % METHODS.len()].clone();
            let mut request = Request::builder().method(method).uri(format!("{path}?{}", input.query));
            if input.is_form {
                request = request.header("content-type", "application/x-www-form-urlencoded");
            }
            let body = Body::new(Full::new(Bytes::copy_from_slice(input.body)));
            let Ok(request) = request.body(body) else { return };
            let peer = service::peer();
            let response = service.pages.answer(request, &peer);
            let response = tokio::time::timeout(Duration::from_secs(20), response)
                .await
                .expect("the request is answered");
            assert!(response.status().is_success() || response.status().is_client_error());
            let page = response.into_body().collect().await.unwrap().to_bytes();
            let page = String::from_utf8(page.to_vec()).unwrap();
            assert!(!page.contains("<script") && !page.contains("Your password is changed"));
        });
    });
}
