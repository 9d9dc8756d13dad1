//! A client that speaks each protocol of the API port, and reads each answer in the same way.

use std::net::SocketAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Version, request::Builder};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use serde_json::Value;
use tokio::net::TcpStream;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::{raw::call_encoded, server::TestServer};

/// A response of HTTP.
#[derive(Debug)]
pub struct HttpAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl HttpAnswer {
    /// Returns the body, which is JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json", "{self:?}");
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns the error of Connect in the body.
    #[track_caller]
    pub fn error(&self) -> Status {
        let error = self.json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let code = code_of(error["code"].as_str().unwrap());
        let message = error.get("message").map(text).unwrap_or_default();
        let details = error.get("details").and_then(Value::as_array).cloned().unwrap_or_default();
        let details = details.iter().map(|detail| {
            let value = STANDARD_NO_PAD.decode(detail["value"].as_str().unwrap()).unwrap();
            assert!(detail["debug"].is_object(), "{detail}");
            prost_types::Any { type_url: format!("type.googleapis.com/{}", text(&detail["type"])), value }
        });
        let details = details.collect();
        let status = tonic_types::pb::Status { code: code.into(), message: message.clone(), details };
        Status::with_details(code, message, status.encode_to_vec().into())
    }
}

/// Sends one request on a new connection.
pub async fn send(address: SocketAddr, version: Version, request: Builder, body: &[u8]) -> HttpAnswer {
    let body = Full::new(Bytes::copy_from_slice(body));
    let request: Request<_> = request.version(version).header("host", "kairos.test").body(body).unwrap();
    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let response = if version == Version::HTTP_2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    } else {
        let (mut sender, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    };
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    HttpAnswer { status: head.status, headers: head.headers, body }
}

/// Sends a request of Connect with JSON.
pub async fn send_json(server: &TestServer, path: &str, json: impl AsRef<[u8]>) -> HttpAnswer {
    send_json_with(server, path, &[], json).await
}

/// Like [`send_json`], with more headers.
pub async fn send_json_with(
    server: &TestServer,
    path: &str,
    headers: &[(&str, &str)],
    json: impl AsRef<[u8]>,
) -> HttpAnswer {
    let request = post(server, path, Some("application/json"), headers);
    send(server.address(), Version::HTTP_11, request, json.as_ref()).await
}

/// Returns a POST request without a body.
pub fn post(
    server: &TestServer,
    path: &str,
    content_type: Option<&str>,
    headers: &[(&str, &str)],
) -> Builder {
    let mut request = Request::post(format!("http://{}{path}", server.address()));
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
}

/// A protocol of the port, with the version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    GrpcWeb(Version),
    Json(Version),
    Proto(Version),
}

impl Protocol {
    pub const ALL: [Self; 4] = [
        Self::Grpc,
        Self::Json(Version::HTTP_11),
        Self::Proto(Version::HTTP_2),
        Self::GrpcWeb(Version::HTTP_11),
    ];

    /// [`Self::ALL`], each with both versions of HTTP if it has both.
    pub const ALL_VERSIONS: [Self; 7] = [
        Self::Grpc,
        Self::Json(Version::HTTP_11),
        Self::Json(Version::HTTP_2),
        Self::Proto(Version::HTTP_11),
        Self::Proto(Version::HTTP_2),
        Self::GrpcWeb(Version::HTTP_11),
        Self::GrpcWeb(Version::HTTP_2),
    ];

    /// Calls a method with an empty message, like [`Self::call`].
    pub async fn call_empty(
        self,
        server: &TestServer,
        path: &str,
        bearer: Option<&str>,
    ) -> Result<Vec<u8>, Status> {
        self.call(server, path, (b"", "{}"), bearer).await
    }

    /// Calls a method with a message, which is given in protobuf and in JSON. A success of gRPC, gRPC-Web and
    /// Connect with protobuf is the message, one of Connect with JSON is the JSON.
    pub async fn call(
        self,
        server: &TestServer,
        path: &str,
        (message, json): (&[u8], &str),
        bearer: Option<&str>,
    ) -> Result<Vec<u8>, Status> {
        let bearer_value = bearer.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer_value.iter().map(|value| ("authorization", value.as_str())).collect();
        let http = async |version, content_type, body: &[u8]| {
            let request = post(server, path, Some(content_type), &headers);
            send(server.address(), version, request, body).await
        };
        match self {
            Self::Grpc => call_encoded(server, path, message.to_vec(), bearer, &[]).await,
            Self::GrpcWeb(version) => {
                let length = u32::try_from(message.len()).unwrap().to_be_bytes();
                let frame = [&[0], &length[..], message].concat();
                web_answer(&http(version, "application/grpc-web+proto", &frame).await)
            }
            Self::Json(version) => connect_answer(&http(version, "application/json", json.as_bytes()).await),
            Self::Proto(version) => connect_answer(&http(version, "application/proto", message).await),
        }
    }
}

fn connect_answer(answer: &HttpAnswer) -> Result<Vec<u8>, Status> {
    if answer.status == StatusCode::OK { Ok(answer.body.to_vec()) } else { Err(answer.error()) }
}

/// Returns the message of an answer of gRPC-Web, or its status, which is in the headers or in the last frame.
fn web_answer(answer: &HttpAnswer) -> Result<Vec<u8>, Status> {
    assert_eq!(
        (answer.status, &answer.headers["content-type"]),
        (StatusCode::OK, &"application/grpc-web+proto".parse().unwrap())
    );
    if let Some(status) = Status::from_header_map(&answer.headers) {
        return Err(status);
    }
    let (mut message, mut rest) = (Vec::new(), &answer.body[..]);
    while let Some((prefix, frame)) = rest.split_first_chunk::<5>() {
        let length = u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize;
        let (frame, after) = frame.split_at(length);
        if prefix[0] == 0x80 {
            assert_eq!((frame, after), (&b"grpc-status: 0\r\n"[..], &b""[..]));
        } else {
            message.extend_from_slice(frame);
        }
        rest = after;
    }
    Ok(message)
}

/// What must be the same over each protocol: the code, the message, the reason and the violations, for
/// developers and for programs.
pub fn comparable(answer: Result<Vec<u8>, Status>) -> String {
    match answer {
        Ok(_) => "OK".to_owned(),
        Err(status) => {
            let reason = status.get_details_error_info().map(|info| info.reason);
            let violations = status.get_details_bad_request().map(|request| request.field_violations);
            let details = tonic_types::pb::Status::decode(status.details()).unwrap_or_default().details;
            let types: Vec<_> = details.into_iter().map(|detail| (detail.type_url, detail.value)).collect();
            format!("{:?} {:?} {reason:?} {violations:?} {types:?}", status.code(), status.message())
        }
    }
}

fn code_of(name: &str) -> Code {
    match name {
        "canceled" => Code::Cancelled,
        "invalid_argument" => Code::InvalidArgument,
        "deadline_exceeded" => Code::DeadlineExceeded,
        "not_found" => Code::NotFound,
        "already_exists" => Code::AlreadyExists,
        "permission_denied" => Code::PermissionDenied,
        "resource_exhausted" => Code::ResourceExhausted,
        "failed_precondition" => Code::FailedPrecondition,
        "out_of_range" => Code::OutOfRange,
        "unimplemented" => Code::Unimplemented,
        "internal" => Code::Internal,
        "unavailable" => Code::Unavailable,
        "unauthenticated" => Code::Unauthenticated,
        other => panic!("unknown code {other}"),
    }
}
