//! The names of all methods that this service may have.

use std::collections::HashSet;

use prost::Message;
use prost_types::FileDescriptorSet;

use crate::proto;

/// The paths of known methods. A path that a caller made up is none of them, so it is never logged.
pub(super) struct Methods(HashSet<String>);

impl Methods {
    /// Of the API, of health, and of both versions of reflection.
    pub fn of_every_service() -> Self {
        Self(paths_of_every_service().into_iter().collect())
    }

    /// The path, if it is one of ours.
    pub fn find(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(String::as_str)
    }
}

/// The paths of all methods, `/package.Service/Method`.
#[must_use]
pub fn paths_of_every_service() -> Vec<String> {
    let descriptors = [
        proto::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    descriptors.into_iter().flat_map(paths).collect()
}

fn paths(descriptors: &[u8]) -> Vec<String> {
    let files = FileDescriptorSet::decode(descriptors).expect("the descriptors were made by the build").file;
    let mut paths = Vec::new();
    for file in &files {
        for service in &file.service {
            let methods = service
                .method
                .iter()
                .map(|method| format!("/{}.{}/{}", file.package(), service.name(), method.name()));
            paths.extend(methods);
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_is_known_and_nothing_else() {
        let methods = Methods::of_every_service();
        for known in [
            "/kairos.identity.v1.IdentityService/Login",
            "/kairos.identity.v1.IdentityService/ResolveTokens",
            "/grpc.health.v1.Health/Check",
            "/grpc.health.v1.Health/Watch",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ] {
            assert_eq!(methods.find(known), Some(known));
        }
        assert_eq!(methods.find("/kairos.identity.v1.IdentityService/login"), None);
        assert_eq!(methods.find("/"), None);
    }
}
