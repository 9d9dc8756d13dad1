//! The generated API (package `kairos.identity.v1`) and its descriptors. No other file calls
//! `include_proto!`.
//!
//! Messages with a password or a secret token have a `Debug` implementation here that does not print the
//! secret. `build.rs` lists them, so that prost does not derive `Debug` for them.

#![expect(
    clippy::pedantic,
    clippy::allow_attributes,
    reason = "generated code, documented in the .proto files"
)]

use std::fmt;

tonic::include_proto!("kairos.identity.v1");

/// The descriptors of the package's files and of all their imports, with comments, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("kairos_identity_descriptor");

impl fmt::Debug for RegisterRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisterRequest").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for SessionTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionTokens").field("session_id", &self.session_id).finish_non_exhaustive()
    }
}

/// Implements `Debug` to print only the name of the message.
macro_rules! say_nothing {
    ($($message:ident)+) => { $(
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($message), "(..)"))
            }
        }
    )+ };
}

say_nothing! {
    RegisterResponse VerifyEmailRequest ResendVerificationEmailResponse LoginRequest RefreshSessionRequest LogoutRequest IntrospectTokenRequest ChangePasswordRequest
    RequestEmailChangeRequest RequestEmailChangeResponse RequestPasswordResetResponse ConfirmEmailChangeRequest DeleteAccountRequest ResetPasswordRequest
}
