//! The methods, messages and fields of the API, read from its descriptor set.

use kairos_identity::proto;
use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorSet};

fn files() -> FileDescriptorSet {
    FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap()
}

/// Returns the paths of all methods of the `kairos.*` services, for example
/// `/kairos.identity.v1.IdentityService/Login`.
pub fn methods() -> Vec<String> {
    let in_file = |file: prost_types::FileDescriptorProto| {
        let package = file.package().to_owned();
        let in_service = move |service: prost_types::ServiceDescriptorProto| {
            let path = format!("/{package}.{}/", service.name());
            service
                .method
                .into_iter()
                .map(move |method| format!("{path}{}", method.name()))
                .collect::<Vec<_>>()
        };
        file.service.into_iter().flat_map(in_service).collect::<Vec<_>>()
    };
    files().file.into_iter().flat_map(in_file).filter(|path| path.starts_with("/kairos.")).collect()
}

/// Returns the names of the response messages that have a field of type `User` or `ManagedUser`, sorted.
pub fn messages_with_users() -> Vec<String> {
    let messages = files().file.into_iter().flat_map(|file| file.message_type);
    let holds_user = |message: &DescriptorProto| {
        let users = [".kairos.identity.v1.User", ".kairos.identity.v1.ManagedUser"];
        message.field.iter().any(|field| users.contains(&field.type_name()))
    };
    let names = messages.filter(holds_user).map(|message| message.name().to_owned());
    let mut names: Vec<_> = names.filter(|name| name.ends_with("Response")).collect();
    names.sort();
    names
}

/// Returns the field names of a message of the API.
pub fn fields_of(message: &str) -> Vec<String> {
    let messages: Vec<DescriptorProto> =
        files().file.into_iter().flat_map(|file| file.message_type).collect();
    let message = messages.into_iter().find(|found| found.name() == message).unwrap();
    message.field.iter().map(|field| field.name().to_owned()).collect()
}

/// Returns the request message of the method with this path.
pub fn request_of(path: &str) -> DescriptorProto {
    let (service, method) = path.rsplit_once('/').unwrap();
    let services = files().file.into_iter().flat_map(|file| file.service);
    let service =
        services.into_iter().find(|found| service.ends_with(&format!(".{}", found.name()))).unwrap();
    let method = service.method.into_iter().find(|found| found.name() == method).unwrap();
    let name = method.input_type().rsplit('.').next().unwrap().to_owned();
    let mut messages = files().file.into_iter().flat_map(|file| file.message_type);
    messages.find(|found| found.name() == name).unwrap()
}

/// Returns the number of a field; panics if the message has no such field.
pub fn number_of(message: &DescriptorProto, field: &str) -> u32 {
    let field = message.field.iter().find(|found| found.name() == field);
    field.unwrap_or_else(|| panic!("{} has no such field", message.name())).number().try_into().unwrap()
}
