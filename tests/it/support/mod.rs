//! Helpers of the integration tests: databases, a running service, its mails and errors, other servers and
//! clients.
//!
//! No test is skipped because a program is missing: the test panics and names the command that installs the
//! program. Start reading at [`server::TestServer`].

pub mod api;
pub mod audit;
pub mod callers;
pub mod daemon;
#[macro_use]
pub mod engine;
pub mod errors;
pub mod http;
pub mod mail;
pub mod markdown;
pub mod mime;
pub mod people;
pub mod pgbouncer;
pub mod postgres;
pub mod private_file;
pub mod program;
pub mod prometheus;
pub mod raw;
pub mod rust_source;
pub mod server;
pub mod sessions;
pub mod smtp;
pub mod sql;
pub mod standby;
pub mod tls;
pub mod tools;
pub mod wait;
