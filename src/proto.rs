//! The generated API (package `kairos.identity.v1`) and its descriptors. No other file calls
//! `include_proto!`.
//!
//! A field with a password or a secret token is marked `[debug_redact = true]` in the `.proto` files.
//! `build.rs` generates the `Debug` of each message with such a field. It prints `[redacted]` in place of the
//! field.

#![expect(
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::doc_lazy_continuation,
    reason = "generated code, documented in the .proto files"
)]

tonic::include_proto!("kairos.identity.v1");

include!(concat!(env!("OUT_DIR"), "/kairos_identity_debug.rs"));

/// The descriptors of the package's files and of all their imports, with comments, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("kairos_identity_descriptor");
