//! Integration tests of the real binary. They are one crate, so that they are linked once. `support` has the
//! helpers.

#![expect(clippy::disallowed_methods, reason = "tests wait for real processes, so they use the real clock")]

// `cfg(test)` marks these files as tests for clippy, so that it permits `unwrap` and indexing: a panic fails
// the test.
#[cfg(test)]
#[macro_use]
mod support;

#[cfg(test)]
mod addresses;
#[cfg(test)]
mod alerts;
#[cfg(test)]
mod arrows;
#[cfg(test)]
mod attacks;
#[cfg(test)]
mod callers_command;
#[cfg(test)]
mod circles;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod clock_jumps;
#[cfg(test)]
mod command_line;
#[cfg(test)]
mod command_line_messages;
#[cfg(test)]
mod command_trail;
#[cfg(test)]
mod connect;
#[cfg(test)]
mod connection_limits;
#[cfg(test)]
mod copies;
#[cfg(test)]
mod django;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod document_commands;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod error_reference;
#[cfg(test)]
mod files;
#[cfg(test)]
mod foreign_language;
#[cfg(test)]
mod fuzz_targets;
#[cfg(test)]
mod grpc;
#[cfg(test)]
mod healthcheck;
#[cfg(test)]
mod hung_commits;
#[cfg(test)]
mod isolation;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod mail_limits;
#[cfg(test)]
mod mail_notices;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod model;
#[cfg(test)]
mod output;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod pgbouncer;
#[cfg(test)]
mod races;
#[cfg(test)]
mod replicas;
#[cfg(test)]
mod script_help;
#[cfg(test)]
mod scripts;
#[cfg(test)]
mod secret_keys;
#[cfg(test)]
mod service_manager;
#[cfg(test)]
mod several_hosts;
#[cfg(test)]
mod shell_help;
#[cfg(test)]
mod smtp;
#[cfg(test)]
mod smtp_refusals;
#[cfg(test)]
mod standalone;
#[cfg(test)]
mod start_checks;
#[cfg(test)]
mod start_findings;
#[cfg(test)]
mod store;
#[cfg(test)]
mod stuck_log;
#[cfg(test)]
mod timing;
#[cfg(test)]
mod tools;
#[cfg(test)]
mod worker_threads;
