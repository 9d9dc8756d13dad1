//! `Debug` of a message prints no secret: every field of the API is sent through it.

use kairos_identity::proto;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};

const PACKAGE: &str = "kairos.identity.v1";

/// Declares `debug`: decodes a message and returns its `{:?}` and `{:#?}`; `None` for an unknown message.
macro_rules! messages {
    ($($message:ident)+) => {
        fn debug(message: &str, bytes: &[u8]) -> Option<[String; 2]> {
            match message {
                $(stringify!($message) => {
                    let message = proto::$message::decode(bytes).unwrap();
                    Some([format!("{message:?}"), format!("{message:#?}")])
                })+
                _ => None,
            }
        }
    };
}

// All messages of the package; a test fails if one is missing.
messages! {
    RegisterRequest RegisterResponse VerifyEmailRequest VerifyEmailResponse
    ResendVerificationEmailRequest ResendVerificationEmailResponse LoginRequest LoginResponse
    ResolveTokenRequest ResolveTokenResponse ResolveTokensRequest ResolveTokensResponse FindUserRequest
    FindUserResponse User Session SessionTokens RefreshSessionRequest RefreshSessionResponse
    LogoutRequest LogoutResponse ListSessionsRequest ListSessionsResponse RevokeSessionRequest
    RevokeSessionResponse RevokeAllSessionsRequest RevokeAllSessionsResponse IntrospectTokenRequest
    IntrospectTokenResponse GetJwksRequest GetJwksResponse Jwk GetAccountRequest GetAccountResponse
    UpdateAccountRequest UpdateAccountResponse ChangePasswordRequest ChangePasswordResponse
    RequestEmailChangeRequest RequestEmailChangeResponse ConfirmEmailChangeRequest
    ConfirmEmailChangeResponse UndoEmailChangeRequest UndoEmailChangeResponse DeleteAccountRequest
    DeleteAccountResponse RequestPasswordResetRequest RequestPasswordResetResponse ResetPasswordRequest ResetPasswordResponse ManagedUser GetUserRequest
    GetUserResponse ListUsersRequest ListUsersResponse SetVerifiedRequest SetVerifiedResponse
    DisableUserRequest DisableUserResponse EnableUserRequest EnableUserResponse UnlockUserRequest
    UnlockUserResponse DeleteUserRequest DeleteUserResponse RevokeUserSessionsRequest
    RevokeUserSessionsResponse StartPasswordResetRequest StartPasswordResetResponse
    ListAuditEventsRequest ListAuditEventsResponse AuditEvent InvalidFields FieldViolation
}

fn messages() -> Vec<MessageDescriptor> {
    let pool = DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
    let in_package =
        |message: &MessageDescriptor| message.package_name() == PACKAGE && !message.is_map_entry();
    let messages: Vec<_> = pool.all_messages().filter(in_package).collect();
    assert!(messages.len() > 50, "{} messages", messages.len());
    messages
}

fn is_redacted(field: &FieldDescriptor) -> bool {
    field.options().get_field_by_name("debug_redact").unwrap().as_bool().unwrap()
}

fn is_text(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), Kind::String | Kind::Bytes)
}

/// True if a field with this name contains a secret. Identifiers and page tokens are not secret.
fn is_secret(name: &str) -> bool {
    const NOT_SECRET: [&str; 3] = ["auth_token", "page_token", "next_page_token"];
    name.contains("password") || name.ends_with("token") && !NOT_SECRET.contains(&name)
}

/// A text that is sent through one field.
struct Canary {
    /// The text as `Debug` prints it, without white space.
    printed: String,
    /// True if `Debug` must not print the text.
    is_hidden: bool,
}

/// Returns the value of a field with a canary in each text, and adds these canaries. `path` leads to the
/// field.
fn value(field: &FieldDescriptor, path: &str, is_in_redacted: bool, canaries: &mut Vec<Canary>) -> Value {
    if field.is_map() {
        let key = format!("canary-{path}.{}-key", field.name());
        canaries.push(Canary { printed: key.clone(), is_hidden: is_in_redacted || is_redacted(field) });
        let one = Value::default_value(&field.kind().as_message().unwrap().map_entry_value_field().kind());
        return Value::Map([(MapKey::String(key), one)].into());
    }
    let sent = format!("canary-{path}.{}-end", field.name());
    let is_hidden = is_in_redacted || is_redacted(field);
    let one = match field.kind() {
        Kind::Message(message) => {
            let mut nested = DynamicMessage::new(message.clone());
            for inner in message.fields() {
                let path = format!("{path}.{}", field.name());
                nested.set_field(&inner, value(&inner, &path, is_hidden, canaries));
            }
            Value::Message(nested)
        }
        Kind::String => {
            canaries.push(Canary { printed: sent.clone(), is_hidden });
            Value::String(sent)
        }
        Kind::Bytes => {
            let numbers: Vec<String> = sent.bytes().map(|byte| byte.to_string()).collect();
            canaries.push(Canary { printed: numbers.join(","), is_hidden });
            Value::Bytes(sent.into())
        }
        kind => Value::default_value(&kind),
    };
    if field.is_list() { Value::List(vec![one]) } else { one }
}

#[test]
fn debug_prints_all_fields_except_the_redacted_ones() {
    let mut hidden = 0;
    for message in messages() {
        assert!(debug(message.name(), &[]).is_some(), "{} is not in the list of this test", message.name());
        // One field at a time, because the fields of a oneof exclude each other.
        for field in message.fields() {
            let mut canaries = Vec::new();
            let mut sent = DynamicMessage::new(message.clone());
            sent.set_field(&field, value(&field, message.name(), false, &mut canaries));

            let printed = debug(message.name(), &sent.encode_to_vec()).unwrap();

            for printed in printed.map(|printed| printed.split_whitespace().collect::<String>()) {
                for canary in &canaries {
                    let is_printed = printed.contains(&canary.printed);
                    assert_eq!(is_printed, !canary.is_hidden, "{} in {printed}", canary.printed);
                    hidden += usize::from(canary.is_hidden);
                }
            }
        }
    }
    assert!(hidden > 0, "the descriptors contain the option");
}

#[test]
fn every_field_with_the_name_of_a_secret_is_redacted() {
    let fields: Vec<_> = messages().iter().flat_map(|message| message.fields().collect::<Vec<_>>()).collect();
    for field in fields.iter().filter(|field| is_text(field)) {
        assert_eq!(is_redacted(field), is_secret(field.name()), "{}", field.full_name());
    }
}
