//! Kairos Identity: a gRPC service that owns the users of Kairos and identifies each by one `auth_token`.
//!
//! The modules, from the top layer down. `tests/it/arrows.rs` lists the modules that each of them may use:
//!
//! - [`cli`]: the command line; `serve` builds and connects all parts of the service.
//! - [`pages`]: the HTTP port, which serves the pages behind mailed links and the public keys.
//! - [`grpc`]: the API and the only module that uses the generated messages. A handler parses the request,
//!   acts and replies; the layers in `layer` apply to every call. The module also encrypts page tokens.
//! - [`server`]: the accept loop, with connection limits, TLS, GOAWAY and a shutdown with a deadline.
//! - [`config`]: the settings, loaded and validated before the service starts.
//! - [`telemetry`]: the log, and the port of the metrics.
//! - [`callers`]: the methods that each caller may call, and the fields of a user that it may see.
//! - [`import`]: import of users from a Django backend, and export to it.
//! - [`maintenance`]: tools over a whole store: copy, backup, checksums.
//! - [`accounts`]: the operations on an account with all business rules, independent of transport and SQL.
//! - [`mail`]: the outbox worker, which renders mails and delivers them over SMTP or to a folder.
//! - [`django`]: the database of a Django backend: recognizes its schema, reads and writes its rows.
//! - [`store`]: the service's own tables, with one set of queries for both engines, migrations and coalesced
//!   look-ups.
//! - [`database`]: connections to SQLite and PostgreSQL, to the store's database and to a Django backend's.
//! - [`password`]: password hashing in Django's formats in a bounded thread pool, and the policy for new
//!   passwords.
//! - [`access_token`]: signs and verifies JWTs that authenticate a user without a call.
//! - [`sealing`]: encrypts secrets that are stored in the database.
//! - [`postgres_url`]: parses the URL of a PostgreSQL server, with the TLS parameters of libpq.
//! - `connection_failure`: says why a connection to a server failed: names, certificates.
//! - `batch_queue`: a queue from which consumers take batches of waiting requests.
//! - [`proto`]: the generated messages.
//! - [`input_file`]: reads the files that settings name, and refuses those that cannot be trusted.
//! - [`publish`]: gives a file its name only when all of its bytes are on the disk.
//! - [`mod@env`], with [`clock`] and [`entropy`]: time and randomness, passed as values so that tests
//!   control them.
//! - [`metrics`]: counters, gauges and histograms, which each module has of what it does.
//! - [`domain`]: value types that are valid by construction.

// A closed pipe or a full disk makes the macros of these lints panic. `cli::output` prints instead.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod access_token;
pub mod accounts;
mod batch_queue;
pub mod callers;
pub mod cli;
pub mod clock;
pub mod config;
mod connection_failure;
pub mod database;
pub mod django;
pub mod domain;
pub mod entropy;
pub mod env;
pub mod grpc;
pub mod import;
pub mod input_file;
pub mod mail;
pub mod maintenance;
pub mod metrics;
pub mod pages;
pub mod password;
pub mod postgres_url;
pub mod proto;
pub mod publish;
pub mod sealing;
pub mod server;
pub mod store;
pub mod telemetry;
