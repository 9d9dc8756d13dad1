//! The vocabulary of the integration tests: databases, a running service, its mails, its refusals, other clients.
//!
//! Nothing here is ever skipped: what is missing on the machine is a panic that names the command that installs it.
//! Start at [`server::TestServer`].

pub mod api;
pub mod callers;
pub mod daemon;
#[macro_use]
pub mod engine;
pub mod errors;
pub mod http;
pub mod mail;
pub mod mime;
pub mod people;
pub mod pgbouncer;
pub mod postgres;
pub mod raw;
pub mod server;
pub mod sessions;
pub mod smtp;
pub mod sql;
pub mod standby;
pub mod tls;
pub mod tools;
pub mod wait;
