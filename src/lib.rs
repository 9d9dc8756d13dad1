//! Kairos Identity: the service that knows people by one `auth_token`.

pub mod accounts;
pub mod clock;
pub mod domain;
pub mod entropy;
pub mod grpc;
pub mod password;
pub mod proto;
#[path = "/tmp/sealing_stub.rs"]
pub mod sealing;
pub mod store;
