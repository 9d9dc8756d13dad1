//! An error of gRPC as an error of Connect: its code, its HTTP status and its JSON.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use http::StatusCode;
use prost::Message;
use prost_reflect::DynamicMessage;
use serde::Serialize;
use serde_json::Value;
use tonic::{Code, Status};

use super::schema::Schema;

/// The fields of the JSON of an error.
#[derive(Serialize)]
struct ConnectError<'a> {
    code: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Detail>,
}

/// A message about the error.
#[derive(Serialize)]
struct Detail {
    /// The full name of the message.
    #[serde(rename = "type")]
    name: String,
    /// The encoded message, in base64 without padding.
    value: String,
    /// The message as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    debug: Option<Value>,
}

/// Returns the JSON of an error. With a schema, its details are also in readable form (`debug`).
pub(super) fn json(status: &Status, schema: Option<&Schema>) -> Vec<u8> {
    let details =
        tonic_types::Status::decode(status.details()).map(|status| status.details).unwrap_or_default();
    let details = details.into_iter().map(|any| {
        let name = any.type_url.rsplit('/').next().unwrap_or_default().to_owned();
        let message = schema
            .and_then(|schema| schema.message(&name))
            .and_then(|message| DynamicMessage::decode(message, &*any.value).ok());
        let debug = message.and_then(|message| serde_json::to_value(message).ok());
        Detail { name, value: STANDARD_NO_PAD.encode(&any.value), debug }
    });
    let (code, _) = code(status.code());
    let error = ConnectError { code, message: status.message(), details: details.collect() };
    serde_json::to_vec(&error).unwrap_or_default()
}

/// Returns the HTTP status of an error.
pub(super) fn http_status(status: &Status) -> StatusCode {
    let (_, http) = code(status.code());
    StatusCode::from_u16(http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Returns the name and the HTTP status of a code in Connect.
const fn code(code: Code) -> (&'static str, u16) {
    match code {
        Code::Cancelled => ("canceled", 499),
        Code::Ok | Code::Unknown => ("unknown", 500),
        Code::InvalidArgument => ("invalid_argument", 400),
        Code::DeadlineExceeded => ("deadline_exceeded", 504),
        Code::NotFound => ("not_found", 404),
        Code::AlreadyExists => ("already_exists", 409),
        Code::PermissionDenied => ("permission_denied", 403),
        Code::ResourceExhausted => ("resource_exhausted", 429),
        Code::FailedPrecondition => ("failed_precondition", 400),
        Code::Aborted => ("aborted", 409),
        Code::OutOfRange => ("out_of_range", 400),
        Code::Unimplemented => ("unimplemented", 501),
        Code::Internal => ("internal", 500),
        Code::Unavailable => ("unavailable", 503),
        Code::DataLoss => ("data_loss", 500),
        Code::Unauthenticated => ("unauthenticated", 401),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    #[test]
    fn an_error_has_its_details_encoded_and_readable() {
        let mut details = ErrorDetails::new();
        details.set_error_info("TOO_MANY_ATTEMPTS", "identity.kairos", []);
        details.set_retry_info(Some(Duration::from_secs(30)));
        let status = Status::with_error_details(Code::ResourceExhausted, "try again later", details);

        let error: Value = serde_json::from_slice(&json(&status, Some(&Schema::new()))).unwrap();

        assert_eq!(error["code"], "resource_exhausted");
        assert_eq!(error["message"], "try again later");
        let details = error["details"].as_array().unwrap();
        let retry = details.iter().find(|detail| detail["type"] == "google.rpc.RetryInfo").unwrap();
        assert_eq!((&retry["value"], &retry["debug"]["retryDelay"]), (&"CgIIHg".into(), &"30s".into()));
        let info = details.iter().find(|detail| detail["type"] == "google.rpc.ErrorInfo").unwrap();
        assert_eq!(info["debug"]["reason"], "TOO_MANY_ATTEMPTS");
        assert_eq!(http_status(&status), StatusCode::TOO_MANY_REQUESTS);
    }

    #[test]
    fn an_error_without_details_has_code_and_message_only() {
        let error = json(&Status::unimplemented(""), None);
        assert_eq!(error, br#"{"code":"unimplemented"}"#);
    }
}
