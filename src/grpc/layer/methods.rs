//! The paths of all methods that the server may serve.

use prost::Message;
use prost_types::FileDescriptorSet;

use super::policy::Policy;
use crate::proto;

/// A known method.
#[derive(Clone, Copy)]
pub(super) struct Method<'a> {
    pub(super) path: &'a str,
    pub(super) policy: Policy,
}

/// All known methods. Only their paths are logged, so that a caller cannot write an arbitrary path into the
/// log or the audit trail.
///
/// They are sorted by length and then by path: nearly all comparisons of a search are of two lengths.
pub(super) struct Methods(Vec<(String, Policy)>);

impl Methods {
    /// Returns the methods of the API, of health, and of both versions of reflection.
    pub fn all() -> Self {
        let known = all_method_paths().into_iter().map(|path| {
            let policy = Policy::of(&path);
            (path, policy)
        });
        let mut sorted: Vec<_> = known.collect();
        sorted.sort_by(|(one, _), (other, _)| order(one).cmp(&order(other)));
        Self(sorted)
    }

    /// Returns the method with this path, if it is known.
    pub fn find(&self, path: &str) -> Option<Method<'_>> {
        let index = self.0.binary_search_by(|(known, _)| order(known).cmp(&order(path))).ok()?;
        self.0.get(index).map(|(path, policy)| Method { path, policy: *policy })
    }
}

/// Returns the key by which the methods are sorted.
const fn order(path: &str) -> (usize, &str) {
    (path.len(), path)
}

/// Returns the paths of all methods, `/package.Service/Method`.
#[must_use]
pub fn all_method_paths() -> Vec<String> {
    let descriptors = [
        proto::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    descriptors.into_iter().flat_map(paths).collect()
}

fn paths(descriptors: &[u8]) -> Vec<String> {
    let files = FileDescriptorSet::decode(descriptors).expect("the embedded descriptors are valid").file;
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
    fn only_the_methods_of_the_served_services_are_known() {
        let methods = Methods::all();
        let find = |path: &str| methods.find(path).map(|method| method.path.to_owned());
        for known in all_method_paths() {
            assert_eq!(find(&known), Some(known));
        }
        for known in [
            "/kairos.identity.v1.IdentityService/Login",
            "/kairos.identity.v1.IdentityService/ResolveTokens",
            "/grpc.health.v1.Health/Check",
            "/grpc.health.v1.Health/Watch",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ] {
            assert_eq!(find(known).as_deref(), Some(known));
        }
        assert_eq!(find("/kairos.identity.v1.IdentityService/login"), None);
        assert_eq!(find("/"), None);
    }
}
