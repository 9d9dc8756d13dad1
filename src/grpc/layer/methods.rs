//! The paths of all methods that the server may serve.

use std::sync::LazyLock;

use prost::Message;
use prost_types::FileDescriptorSet;

use super::{limits::LOOK_UP, policy::Policy};
use crate::proto;

/// A known method. Only paths of known methods are logged and counted, so that a caller cannot write an
/// arbitrary path into the log, the audit trail or the metrics.
#[derive(Clone, Copy)]
pub(super) struct Method {
    pub(super) path: &'static str,
    pub(super) policy: Policy,
}

impl Method {
    /// True if the method is one that the agent calls for every message.
    pub(super) const fn is_look_up(self) -> bool {
        self.policy.is_look_up
    }

    /// Returns the method of the API, of health, or of one of both versions of reflection with this path.
    pub(super) fn find(path: &str) -> Option<Self> {
        // Nearly every call is this one, and needs no search.
        static OF_LOOK_UP: LazyLock<Option<Method>> = LazyLock::new(|| Method::search(LOOK_UP));
        if path == LOOK_UP { *OF_LOOK_UP } else { Self::search(path) }
    }

    fn search(path: &str) -> Option<Self> {
        // Sorted by length and then by path: nearly all comparisons of a search are of two lengths.
        static KNOWN: LazyLock<Vec<(String, Policy)>> = LazyLock::new(|| {
            let known = all_method_paths().into_iter().map(|path| {
                let policy = Policy::of(&path);
                (path, policy)
            });
            let mut sorted: Vec<_> = known.collect();
            sorted.sort_by(|(one, _), (other, _)| order(one).cmp(&order(other)));
            sorted
        });
        let index = KNOWN.binary_search_by(|(known, _)| order(known).cmp(&order(path))).ok()?;
        KNOWN.get(index).map(|(path, policy)| Self { path, policy: *policy })
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
        let find = |path: &str| Method::find(path).map(|method| method.path.to_owned());
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
