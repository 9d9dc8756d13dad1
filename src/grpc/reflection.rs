//! Server reflection (v1 and v1alpha), so that tools such as grpcurl need no `.proto` files.

use tonic::service::Routes;
use tonic_reflection::server::{Builder, Error};

use crate::proto;

/// Adds both versions of the reflection service, which accept messages of at most `message_bytes_max` bytes.
/// Older versions of grpcurl support only v1alpha.
///
/// # Errors
/// The embedded descriptors cannot be decoded, which would be a defect of the build.
pub fn add_reflection(routes: Routes, message_bytes_max: usize) -> Result<Routes, Error> {
    let v1 = builder().build_v1()?.max_decoding_message_size(message_bytes_max);
    let v1alpha = builder().build_v1alpha()?.max_decoding_message_size(message_bytes_max);
    Ok(routes.add_service(v1).add_service(v1alpha))
}

/// Registers the descriptors of the API, of the health service, and of the error details, which grpcurl then
/// prints decoded.
fn builder() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}
