//! JSON of protobuf messages, in the canonical mapping
//! (<https://protobuf.dev/programming-guides/json/>).
//!
//! prost-reflect maps the values. This module also refuses a field that occurs twice (under its JSON name,
//! its name in the `.proto`, or both), which prost-reflect would accept. An error names the field and the
//! rule. It never repeats the input, which may be a password.

use std::{collections::HashSet, fmt};

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value, error::Category};
use tonic::Status;

use super::super::{
    request_rule::JsonRule,
    rule::Violation,
    status::{NONE_OMITTED, invalid_fields},
};

/// The name of the whole message in a violation.
const BODY: &str = "body";

/// The package of the messages that have a JSON form of their own, for example a timestamp.
const WELL_KNOWN: &str = "google.protobuf";

/// Returns the message that JSON describes.
///
/// # Errors
/// `INVALID_FIELDS`.
pub(super) fn decode(message: &MessageDescriptor, json: &[u8]) -> Result<DynamicMessage, Status> {
    let invalid = |violations: Vec<Violation>| Err(invalid_fields(&violations, NONE_OMITTED));
    if json.is_empty() {
        return invalid(vec![Violation::new(BODY, &JsonRule::NotEmpty)]);
    }
    let value = match serde_json::from_slice(json) {
        Ok(Strict(value)) => value,
        Err(error) => return invalid(vec![syntax_violation(&error)]),
    };
    if let Some(violation) = name_violation(message, &value) {
        return invalid(vec![violation]);
    }
    DynamicMessage::deserialize(message.clone(), &value)
        .or_else(|_| invalid(value_violations(message, value)))
}

/// Returns the JSON of a message. Fields with their default value are left out.
///
/// # Errors
/// `INTERNAL` for a timestamp or duration that JSON cannot represent.
pub(super) fn encode(message: &DynamicMessage) -> Result<Vec<u8>, Status> {
    serde_json::to_vec(message).map_err(|_| Status::internal("the response has no JSON form"))
}

/// JSON in which no name occurs twice in an object.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(element)) = elements.next_element()? {
            list.push(element);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Strict(value))) = members.next_entry::<String, Strict>()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a name occurs twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

/// Returns the violation of text that is not JSON, or has a name twice.
fn syntax_violation(error: &serde_json::Error) -> Violation {
    let (line, column) = (error.line(), error.column());
    let rule = match error.classify() {
        // `Strict` accepts values of all types, so a repeated name is its only error of this category.
        Category::Data => JsonRule::DistinctNames { line, column },
        Category::Eof => JsonRule::Complete { line, column },
        Category::Syntax | Category::Io => JsonRule::Syntax { line, column },
    };
    Violation::new(BODY, &rule)
}

/// Returns the first violation of the rules for names: a name in an object of the message is no field, or the
/// object already has the field under its other name. A value of the wrong type is not a violation here.
fn name_violation(message: &MessageDescriptor, value: &Value) -> Option<Violation> {
    let members = value.as_object().filter(|_| message.package_name() != WELL_KNOWN)?;
    let mut seen = HashSet::new();
    members.iter().find_map(|(name, value)| {
        let Some(field) = find_field(message, name) else {
            let fields: Vec<_> = message.fields().map(|field| field.name().to_owned()).collect();
            let rule = JsonRule::KnownField { message: message.name().to_owned(), fields: fields.join(", ") };
            return Some(Violation::new(BODY, &rule));
        };
        if !seen.insert(field.number()) {
            return Some(Violation::new(field.name(), &JsonRule::OneForm));
        }
        let Kind::Message(inner) = field.kind() else { return None };
        match value {
            // The names in a map are its keys.
            _ if field.is_map() => None,
            Value::Array(elements) => elements.iter().find_map(|element| name_violation(&inner, element)),
            value => name_violation(&inner, value),
        }
    })
}

/// Returns the field with this name: in the form of JSON (`authToken`), or as in the `.proto` file
/// (`auth_token`).
fn find_field(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name))
}

/// Returns the violations of a message that prost-reflect refuses although its names are right.
fn value_violations(message: &MessageDescriptor, value: Value) -> Vec<Violation> {
    let Value::Object(members) = value else {
        return vec![Violation::new(BODY, &JsonRule::Object)];
    };
    let mut violations = Vec::new();
    for (name, value) in members {
        let Some(field) = find_field(message, &name) else { continue };
        let alone = Value::Object(Map::from_iter([(name, value)]));
        if DynamicMessage::deserialize(message.clone(), &alone).is_err() {
            violations.push(Violation::new(field.name(), &JsonRule::Value(expected(&field))));
        }
    }
    if violations.is_empty() {
        // Each field is valid alone, so two of them belong to the same oneof.
        violations.push(Violation::new(BODY, &JsonRule::OneOf));
    }
    violations
}

/// Returns the type and the range of the values of a field.
fn expected(field: &FieldDescriptor) -> String {
    let kind = field.kind();
    let one = match &kind {
        Kind::String => "a string",
        Kind::Bool => "true or false",
        Kind::Bytes => "a string in base64",
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "an integer from -2147483648 to 2147483647",
        Kind::Uint32 | Kind::Fixed32 => "an integer from 0 to 4294967295",
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "a signed integer of 64 bits, also as a string",
        Kind::Uint64 | Kind::Fixed64 => "an unsigned integer of 64 bits, also as a string",
        Kind::Float | Kind::Double => "a number",
        Kind::Enum(_) => "the name or the number of an enum value",
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.Timestamp" => "a time as in RFC 3339, for example 2026-01-31T12:00:00Z",
            "google.protobuf.FieldMask" => "a string of field names, separated by commas",
            _ => "an object with valid fields",
        },
    };
    if field.is_list() { format!("a list; each element must be {one}") } else { one.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::{
        super::schema::{Method, Schema},
        *,
    };
    use prost::Message as _;
    use tonic_types::StatusExt;

    fn request_of(method: &str) -> MessageDescriptor {
        match Schema::new().find(&format!("/kairos.identity.v1.{method}")) {
            Method::Unary { request, .. } => request,
            _ => panic!("{method} is unary"),
        }
    }

    /// Returns the fields that are refused.
    fn refused(method: &str, json: impl AsRef<[u8]>) -> Vec<String> {
        let status = decode(&request_of(method), json.as_ref()).unwrap_err();
        let violations = status.get_details_bad_request().unwrap().field_violations;
        violations.into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn both_forms_of_a_name_are_accepted() {
        let message = request_of("IdentityService/ResolveToken");
        for json in [r#"{"authToken": "x"}"#, r#"{"auth_token": "x"}"#, " {\"auth\\u0054oken\":\"x\"}\r\n"] {
            assert_eq!(decode(&message, json.as_bytes()).unwrap().encode_to_vec(), b"\x0a\x01x", "{json}");
        }
        for json in ["{}", r#"{"authToken": null}"#] {
            assert_eq!(decode(&message, json.as_bytes()).unwrap().encode_to_vec(), b"", "{json}");
        }
    }

    #[test]
    fn values_of_the_wrong_type_or_range_name_their_fields() {
        for (method, json, field) in [
            ("IdentityService/Login", r#"{"password": 12345678}"#, "password"),
            ("IdentityService/Login", r#"{"email": ["a@b.example"]}"#, "email"),
            ("IdentityService/Login", r#"{"email": {"a": "b"}}"#, "email"),
            ("IdentityService/ResolveTokens", r#"{"authTokens": "x"}"#, "auth_tokens"),
            ("IdentityService/ResolveTokens", r#"{"authTokens": ["x", null]}"#, "auth_tokens"),
            ("AdminService/ListUsers", r#"{"pageSize": 2147483648}"#, "page_size"),
            ("AdminService/ListUsers", r#"{"pageSize": -2147483649}"#, "page_size"),
            ("AdminService/ListUsers", r#"{"pageSize": 1.5}"#, "page_size"),
            ("AdminService/ListUsers", r#"{"pageSize": 99999999999999999999999}"#, "page_size"),
            ("AdminService/ListUsers", r#"{"pageSize": "many"}"#, "page_size"),
            ("AdminService/ListUsers", r#"{"isVerified": "true"}"#, "is_verified"),
            ("AdminService/ListUsers", r#"{"createdSince": "yesterday"}"#, "created_since"),
            ("AdminService/ListUsers", r#"{"createdSince": {"seconds": 1}}"#, "created_since"),
            ("AccountService/UpdateAccount", r#"{"updateMask": {"paths": ["username"]}}"#, "update_mask"),
        ] {
            assert_eq!(refused(method, json), [field], "{json}");
        }
        assert_eq!(refused("IdentityService/Login", r#"{"email": 1, "password": 2}"#), ["email", "password"]);
    }

    #[test]
    fn a_body_that_is_no_message_is_refused() {
        let deep = [b"[".repeat(200), b"]".repeat(200)].concat();
        let many = b"[".repeat(60_000);
        for json in [
            b"".as_slice(),
            b"null",
            b"[]",
            b"\"x\"",
            b"{",
            b"{\"email\": \"a",
            b"{} {}",
            b"{\"email\": \"a\",}",
            b"{'email': 'a'}",
            b"{\"email\": \"a\", \"email\": \"b\"}",
            b"{\"email\": \"a\", \"emai\\u006c\": \"b\"}",
            b"{\"email\": \"\xff\"}",
            b"{\"email\": \"\\ud800\"}",
            b"{\"email\": 1e999}",
            b"{\"email\": NaN}",
            b"\xef\xbb\xbf{}",
            b"{\"e-mail\": \"a\"}",
            b"{\"email\": null, \"unknown\": {\"deep\": []}}",
            deep.as_slice(),
            many.as_slice(),
        ] {
            let text = String::from_utf8_lossy(&json[..json.len().min(60)]);
            assert_eq!(refused("IdentityService/Login", json), [BODY], "{text}");
        }
        let twice = r#"{"authToken": "x", "auth_token": "y"}"#;
        assert_eq!(refused("IdentityService/ResolveToken", twice), ["auth_token"]);
        let both = r#"{"email": "a", "username": "b"}"#;
        assert_eq!(refused("IdentityService/FindUser", both), [BODY]);
    }

    #[test]
    fn an_error_does_not_repeat_the_input() {
        for json in [
            r#"{"password": {"hunter2": "hunter2"}}"#,
            r#"{"hunter2": 1}"#,
            r#"{"password": "hunter2" hunter2}"#,
            r#"{"hunter2": 1, "hunter2": 2}"#,
            r#"{"password": ["hunter2"]}"#,
        ] {
            let status = decode(&request_of("IdentityService/Login"), json.as_bytes()).unwrap_err();
            let text = format!("{status:?} {:?}", status.get_error_details());
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
