//! Kairos Identity: the service that knows people by one `auth_token`.
//!
//! The map, from the top down; a module may use those below it that `tests/it/arrows.rs` allows:
//!
//! - [`cli`]: the command line; `serve` is where everything is wired.
//! - [`pages`]: the HTTP port: the pages behind mailed links, and the public keys.
//! - [`grpc`]: the API, and the only place that knows the wire: parse, act, reply; its `layer` is what every call passes.
//! - [`server`]: the accept loop: connections with their limits, TLS, GOAWAY, a stop that ends.
//! - [`config`]: settings, loaded and checked before anything starts.
//! - [`telemetry`]: the log.
//! - [`callers`]: who may call what, and what of a user they may see.
//! - [`import`]: moving users in from a Django backend, and out again.
//! - [`accounts`]: the verbs of an account: every rule of the business, free of transport and SQL.
//! - [`mail`]: the worker that empties the outbox, through templates, over SMTP or into a folder.
//! - [`store`]: the database: one body of queries for both engines, migrations, coalesced look-ups.
//! - [`password`]: hashing, bounded: Django's formats, and what a new password must be.
//! - [`access_token`]: what a login proves without a call: JWTs, signed and verified.
//! - [`sealing`]: keeps secrets in the database that the database must not tell.
//! - [`proto`]: the generated messages.
//! - [`clock`] and [`entropy`]: time and chance, passed in, so that tests own them.
//! - [`domain`]: values that cannot be wrong.

pub mod access_token;
pub mod accounts;
pub mod callers;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod entropy;
pub mod grpc;
pub mod import;
pub mod mail;
pub mod pages;
pub mod password;
pub mod proto;
pub mod sealing;
pub mod server;
pub mod store;
pub mod telemetry;
