//! The fuzz targets: each runs one parser of untrusted bytes with one input, and panics if it finds a fault.
//! `scripts/fuzz` runs them with libFuzzer, and the tests with the inputs in `fuzz/seeds` and changed ones.

pub mod access_token;
pub mod call;
pub mod callers_file;
pub mod certificate;
pub mod email;
pub mod identifiers;
pub mod json;
pub mod mail;
pub mod new_password;
pub mod page;
pub mod password_hash;
pub mod secret_key;
pub mod settings;
pub mod username;
pub mod wire;

/// Runs a target with one input, and panics if it finds a fault.
pub type Target = fn(&[u8]);

/// The targets with their names.
pub const TARGETS: [(&str, Target); 15] = [
    ("access_token", access_token::run),
    ("call", call::run),
    ("callers_file", callers_file::run),
    ("certificate", certificate::run),
    ("email", email::run),
    ("identifiers", identifiers::run),
    ("json", json::run),
    ("mail", mail::run),
    ("new_password", new_password::run),
    ("page", page::run),
    ("password_hash", password_hash::run),
    ("secret_key", secret_key::run),
    ("settings", settings::run),
    ("username", username::run),
    ("wire", wire::run),
];
