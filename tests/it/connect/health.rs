//! The health service over each protocol: `Watch` of an unknown service stays open.

use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{net::TcpStream, time::timeout};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};

use super::client::{post, send_json};
use crate::support::{engine::Engine, server::TestServer};

const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// Time during which a stream must not end.
const OPEN_FOR: Duration = Duration::from_millis(300);

/// Returns the message in the frame of gRPC, Connect and gRPC-Web.
fn frame(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()], &message[..]].concat()
}

fn unknown() -> HealthCheckRequest {
    HealthCheckRequest { service: "kairos.identity.v1.NoSuchService".to_owned() }
}

/// Opens a watch of an unknown service, and returns the body of the response.
async fn open(server: &TestServer, version: Version, content_type: &str) -> Incoming {
    let request = post(server, WATCH, Some(content_type), &[]).version(version).header("host", "kairos.test");
    let request = request.body(Full::new(Bytes::from(frame(&unknown())))).unwrap();
    let io = TokioIo::new(TcpStream::connect(server.address()).await.unwrap());
    // The connection lives as long as the task that drives it; the sender must live as long for HTTP/1.1.
    if version == Version::HTTP_2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap().into_body()
    } else {
        let (mut sender, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap().into_body()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_an_unknown_service_says_so_and_stays_open_over_each_protocol() {
    let mut server = TestServer::start(Engine::Sqlite).await;
    let mut client = HealthClient::new(server.channel().await);
    let mut grpc = client.watch(unknown()).await.unwrap().into_inner();
    assert_eq!(grpc.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    let mut others = Vec::new();
    let response = HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() };
    for (version, content_type) in [
        (Version::HTTP_11, "application/connect+proto"),
        (Version::HTTP_2, "application/connect+proto"),
        (Version::HTTP_11, "application/grpc-web+proto"),
        (Version::HTTP_2, "application/grpc-web+proto"),
    ] {
        let mut body = open(&server, version, content_type).await;
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(data, frame(&response), "{version:?} {content_type}");
        others.push(body);
    }

    assert!(timeout(OPEN_FOR, grpc.message()).await.is_err(), "the stream stays open");
    for body in &mut others {
        assert!(timeout(Duration::from_millis(10), body.frame()).await.is_err(), "the stream stays open");
    }

    // At shutdown the streams end, so that they do not delay it.
    server.terminate();
    assert!(grpc.message().await.unwrap().is_none());
    for body in others {
        body.collect().await.unwrap();
    }
    server.wait().await;
    assert!(!server.log().contains("at the drain deadline"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_of_an_unknown_service_is_not_found_over_each_protocol() {
    let server = TestServer::start(Engine::Sqlite).await;
    let refusal = HealthClient::new(server.channel().await).check(unknown()).await.unwrap_err();
    assert_eq!(refusal.code(), Code::NotFound);
    let json = r#"{"service": "kairos.identity.v1.NoSuchService"}"#;
    let answer = send_json(&server, "/grpc.health.v1.Health/Check", json).await;
    assert_eq!(answer.error().code(), Code::NotFound);
}
