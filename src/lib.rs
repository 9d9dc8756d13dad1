//! Kairos Identity: the service that knows people by one `auth_token`.

pub mod accounts;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod entropy;
pub mod grpc;
pub mod mail;
pub mod password;
pub mod proto;
pub mod sealing;
pub mod server;
pub mod store;
pub mod telemetry;
