//! Server reflection, v1 and v1alpha: grpcurl and its like need no `.proto` files.

use tonic::service::Routes;
use tonic_reflection::server::{Builder, Error};

use crate::proto;

/// Adds both versions; older grpcurl speaks only v1alpha.
///
/// # Errors
/// When the descriptors that were compiled in cannot be read, which would be a defect of the build.
pub fn add_reflection(routes: Routes) -> Result<Routes, Error> {
    Ok(routes.add_service(described().build_v1()?).add_service(described().build_v1alpha()?))
}

/// With the descriptors of health, and of the error details, so that grpcurl prints them decoded.
fn described() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}
