//! The generated API (package `kairos.identity.v1`) and its descriptors; the only `include_proto!`.
//!
//! Messages that hold a password or a token that proves something print neither: their `Debug` is here and not derived.

#![expect(clippy::pedantic, clippy::allow_attributes, reason = "generated; the .proto files are the manual")]

use std::fmt;

tonic::include_proto!("kairos.identity.v1");

/// The files of the package with all that they import and their comments, for reflection.
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

/// Nothing but its name.
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
