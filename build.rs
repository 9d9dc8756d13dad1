//! Compiles the `.proto` files with protox, which needs no protoc, and writes their descriptors for
//! reflection.

use std::{env, error::Error, fs, path::PathBuf};

/// Messages with a password or a secret token: `src/proto.rs` implements their `Debug`, so prost must not
/// derive it.
const SECRET_MESSAGES: [&str; 16] = [
    "kairos.identity.v1.RegisterRequest",
    "kairos.identity.v1.RegisterResponse",
    "kairos.identity.v1.VerifyEmailRequest",
    "kairos.identity.v1.ResendVerificationEmailResponse",
    "kairos.identity.v1.LoginRequest",
    "kairos.identity.v1.SessionTokens",
    "kairos.identity.v1.RefreshSessionRequest",
    "kairos.identity.v1.LogoutRequest",
    "kairos.identity.v1.IntrospectTokenRequest",
    "kairos.identity.v1.ChangePasswordRequest",
    "kairos.identity.v1.RequestEmailChangeRequest",
    "kairos.identity.v1.RequestEmailChangeResponse",
    "kairos.identity.v1.RequestPasswordResetResponse",
    "kairos.identity.v1.ConfirmEmailChangeRequest",
    "kairos.identity.v1.DeleteAccountRequest",
    "kairos.identity.v1.ResetPasswordRequest",
];

#[expect(clippy::disallowed_methods, reason = "Cargo passes OUT_DIR to a build script in a variable")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=migrations");

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files([
        "kairos/identity/v1/identity_service.proto",
        "kairos/identity/v1/session_service.proto",
        "kairos/identity/v1/account_service.proto",
        "kairos/identity/v1/admin_service.proto",
        "kairos/identity/v1/error_reason.proto",
        "kairos/identity/v1/user.proto",
        "kairos/identity/v1/session.proto",
    ])?;

    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("kairos_identity_descriptor.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .build_server(true)
        .build_client(true)
        .skip_debug(SECRET_MESSAGES)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
