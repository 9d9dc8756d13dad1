//! Compiles the `.proto` files with protox, which needs no protoc. Writes their descriptors for reflection,
//! and the `Debug` implementations of messages with secrets.

use std::{env, error::Error, fmt::Write as _, fs, path::PathBuf};

use protox::prost_reflect::{FieldDescriptor, MessageDescriptor};

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
        "kairos/identity/v1/violation.proto",
        "kairos/identity/v1/user.proto",
        "kairos/identity/v1/session.proto",
    ])?;
    let messages: Vec<MessageDescriptor> = compiler.descriptor_pool().all_messages().collect();
    let with_secrets = || messages.iter().filter(|message| message.fields().any(|field| is_redacted(&field)));
    let debug_impls = with_secrets().map(redacting_debug).collect::<Result<String, _>>()?;

    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("kairos_identity_descriptor.bin"), compiler.encode_file_descriptor_set())?;
    fs::write(out.join("kairos_identity_debug.rs"), debug_impls)?;
    tonic_prost_build::configure()
        .btree_map(".")
        .build_server(true)
        .build_client(true)
        .skip_debug(with_secrets().map(|message| format!(".{}", message.full_name())))
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// True if the field is marked `[debug_redact = true]`.
fn is_redacted(field: &FieldDescriptor) -> bool {
    let options = field.options();
    options.get_field_by_name("debug_redact").and_then(|value| value.as_bool()).unwrap_or(false)
}

/// Returns the source of a `Debug` implementation that prints `[redacted]` in place of the redacted fields.
///
/// # Errors
/// If other generated code would print a redacted field: prost derives the `Debug` of the enum of a `oneof`.
fn redacting_debug(message: &MessageDescriptor) -> Result<String, Box<dyn Error>> {
    if message.parent_message().is_some() {
        return Err(
            format!("{}: a nested message must not have a redacted field", message.full_name()).into()
        );
    }
    let name = message.name();
    let mut code = format!(
        "impl ::std::fmt::Debug for {name} {{\n    \
         fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {{\n        \
         f.debug_struct(\"{name}\")\n"
    );
    for field in message.fields() {
        let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
        match (oneof, is_redacted(&field)) {
            (Some(_), true) => {
                return Err(format!("{}: a field of a oneof cannot be redacted", field.full_name()).into());
            }
            (None, true) => writeln!(code, "            .field(\"{}\", &\"[redacted]\")", field.name())?,
            (None, false) => writeln!(code, "            .field(\"{0}\", &self.{0})", field.name())?,
            (Some(_), false) => {}
        }
    }
    for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
        writeln!(code, "            .field(\"{0}\", &self.{0})", oneof.name())?;
    }
    code.push_str("            .finish()\n    }\n}\n\n");
    Ok(code)
}
