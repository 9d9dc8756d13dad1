//! The messages of each method, from the descriptors.

use std::collections::HashMap;

use prost_reflect::{DescriptorPool, MessageDescriptor};

use crate::proto;

/// A method. Only a unary one is known with its messages.
#[derive(Clone)]
pub(super) enum Method {
    Unary { request: MessageDescriptor, response: MessageDescriptor },
    Streaming,
    Unknown,
}

impl Method {
    pub(super) const fn is_streaming(&self) -> bool {
        matches!(self, Self::Streaming)
    }
}

/// The methods of the API, of health and of reflection, and the messages of the error details.
pub(super) struct Schema {
    methods: HashMap<String, Method>,
    pool: DescriptorPool,
}

impl Schema {
    pub(super) fn new() -> Self {
        // The global pool has the well-known types, which some of the sets import without including them.
        let mut pool = DescriptorPool::global();
        for descriptors in [
            proto::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
            tonic_types::pb::FILE_DESCRIPTOR_SET,
        ] {
            pool.decode_file_descriptor_set(descriptors).expect("the embedded descriptors are valid");
        }
        let methods = methods(&pool);
        Self { methods, pool }
    }

    /// Returns the method with this path; `Unknown` if there is none.
    pub(super) fn find(&self, path: &str) -> Method {
        self.methods.get(path).cloned().unwrap_or(Method::Unknown)
    }

    /// Returns the message with this full name, for example `google.rpc.ErrorInfo`.
    pub(super) fn message(&self, name: &str) -> Option<MessageDescriptor> {
        self.pool.get_message_by_name(name)
    }
}

/// Returns the methods by their paths.
fn methods(pool: &DescriptorPool) -> HashMap<String, Method> {
    let mut methods = HashMap::new();
    for service in pool.services() {
        for method in service.methods() {
            let path = format!("/{}/{}", service.full_name(), method.name());
            let is_streaming = method.is_client_streaming() || method.is_server_streaming();
            let (request, response) = (method.input(), method.output());
            methods.insert(
                path,
                if is_streaming { Method::Streaming } else { Method::Unary { request, response } },
            );
        }
    }
    methods
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unary_and_streaming_methods_are_known() {
        let schema = Schema::new();
        let Method::Unary { request, response } = schema.find("/kairos.identity.v1.IdentityService/Login")
        else {
            panic!("Login is unary");
        };
        assert_eq!(request.full_name(), "kairos.identity.v1.LoginRequest");
        assert_eq!(response.full_name(), "kairos.identity.v1.LoginResponse");
        assert!(matches!(schema.find("/grpc.health.v1.Health/Check"), Method::Unary { .. }));
        assert!(schema.find("/grpc.health.v1.Health/Watch").is_streaming());
        assert!(schema.find("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo").is_streaming());
        assert!(matches!(schema.find("/kairos.identity.v1.IdentityService/login"), Method::Unknown));
        assert!(schema.message("google.rpc.RetryInfo").is_some());
    }
}
