//! The methods, messages and fields of the API, read from its descriptor set.

use std::sync::LazyLock;

use kairos_identity::proto;
use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet, ServiceDescriptorProto};

/// Decoded once: some tests ask for the fields of each of thousands of requests.
static FILES: LazyLock<Vec<FileDescriptorProto>> =
    LazyLock::new(|| FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap().file);

fn messages() -> impl Iterator<Item = &'static DescriptorProto> {
    FILES.iter().flat_map(|file| &file.message_type)
}

/// Returns the paths of all methods of the `kairos.*` services, for example
/// `/kairos.identity.v1.IdentityService/Login`.
pub fn methods() -> Vec<String> {
    let in_file = |file: &'static FileDescriptorProto| {
        let in_service = |service: &'static ServiceDescriptorProto| {
            let path = format!("/{}.{}/", file.package(), service.name());
            service.method.iter().map(move |method| format!("{path}{}", method.name()))
        };
        file.service.iter().flat_map(in_service)
    };
    FILES.iter().flat_map(in_file).filter(|path| path.starts_with("/kairos.")).collect()
}

/// Returns the names of the response messages that have a field of type `User` or `ManagedUser`, sorted.
pub fn messages_with_users() -> Vec<String> {
    let holds_user = |message: &&DescriptorProto| {
        let users = [".kairos.identity.v1.User", ".kairos.identity.v1.ManagedUser"];
        message.field.iter().any(|field| users.contains(&field.type_name()))
    };
    let names = messages().filter(holds_user).map(|message| message.name().to_owned());
    let mut names: Vec<_> = names.filter(|name| name.ends_with("Response")).collect();
    names.sort();
    names
}

/// Returns the field names of a message of the API.
pub fn fields_of(message: &str) -> Vec<String> {
    let message = messages().find(|found| found.name() == message).unwrap();
    message.field.iter().map(|field| field.name().to_owned()).collect()
}

/// Returns the request message of the method with this path.
pub fn request_of(path: &str) -> &'static DescriptorProto {
    let (service, method) = path.rsplit_once('/').unwrap();
    let mut services = FILES.iter().flat_map(|file| &file.service);
    let service = services.find(|found| service.ends_with(&format!(".{}", found.name()))).unwrap();
    let method = service.method.iter().find(|found| found.name() == method).unwrap();
    let name = method.input_type().rsplit('.').next().unwrap();
    messages().find(|found| found.name() == name).unwrap()
}

/// Returns the number of a field; panics if the message has no such field.
pub fn number_of(message: &DescriptorProto, field: &str) -> u32 {
    let field = message.field.iter().find(|found| found.name() == field);
    field.unwrap_or_else(|| panic!("{} has no such field", message.name())).number().try_into().unwrap()
}
