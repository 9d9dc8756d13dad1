//! Compressed requests are refused in each protocol; the response names what is supported.

use http::{StatusCode, Version};
use tonic::{Code, Status};

use super::client::{post, send};
use crate::support::{engine::Engine, server::TestServer};

/// The head of a gzip stream.
const GZIP: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];

/// Methods that reach the fast path, the generated servers, health and reflection.
const PATHS: [&str; 5] = [
    "/kairos.identity.v1.IdentityService/ResolveToken",
    "/kairos.identity.v1.IdentityService/Login",
    "/kairos.identity.v1.AdminService/ListUsers",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_request_is_refused_with_what_is_supported() {
    let server = TestServer::start(Engine::Sqlite).await;
    let framed = [&[1, 0, 0, 0, 10][..], &GZIP].concat();
    for path in PATHS {
        for encoding in ["gzip", "deflate", "zstd", "GZIP", "br"] {
            for (version, content_type) in [
                (Version::HTTP_2, "application/grpc"),
                (Version::HTTP_2, "application/grpc-web+proto"),
                (Version::HTTP_11, "application/grpc-web+proto"),
            ] {
                let request = post(&server, path, Some(content_type), &[("grpc-encoding", encoding)]);
                let answer = send(server.address(), version, request, &framed).await;
                let status = Status::from_header_map(&answer.headers).unwrap();
                assert_eq!(status.code(), Code::Unimplemented, "{path} {encoding} {answer:?}");
                assert!(status.message().contains("identity"), "{status:?}");
                assert_eq!(answer.headers["grpc-accept-encoding"], "identity", "{path} {content_type}");
            }
        }
        let header = [("content-encoding", "gzip")];
        let connect = post(&server, path, Some("application/proto"), &header);
        let answer = send(server.address(), Version::HTTP_11, connect, &GZIP).await;
        if !path.contains("Reflection") {
            let error = answer.error();
            assert_eq!((answer.status, error.code()), (StatusCode::NOT_IMPLEMENTED, Code::Unimplemented));
            assert!(error.message().contains("identity"), "{error:?}");
        }
    }
    assert!(!server.log().contains("panicked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_accepts_compression_gets_uncompressed_responses() {
    let server = TestServer::start(Engine::Sqlite).await;
    for (content_type, header, body) in [
        ("application/json", "accept-encoding", &b"{}"[..]),
        ("application/proto", "accept-encoding", b""),
        ("application/grpc", "grpc-accept-encoding", &[0; 5]),
        ("application/grpc-web+proto", "grpc-accept-encoding", &[0; 5]),
    ] {
        let path = "/kairos.identity.v1.SessionService/GetJwks";
        let request = post(&server, path, Some(content_type), &[(header, "gzip, deflate, br")]);
        let answer = send(server.address(), Version::HTTP_2, request, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{content_type} {answer:?}");
        for name in ["content-encoding", "grpc-encoding"] {
            assert!(answer.headers.get(name).is_none_or(|value| value == "identity"), "{answer:?}");
        }
        assert!(String::from_utf8_lossy(&answer.body).contains("Ed25519"), "{content_type} {answer:?}");
    }
}
