//! gRPC error statuses: a code, and the `google.rpc` details that clients match on.

use std::{collections::HashMap, time::Duration};

use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use super::{request_id::current_request_id, request_rule::RequestRule, rule::Violation};
use crate::{
    accounts::AccountError,
    database::{Cause, DatabaseError},
    domain::chain,
    proto::{self, ErrorReason, ViolationReason},
};

/// The domain of every `ErrorInfo`.
const DOMAIN: &str = "identity.kairos";

/// The retry delay while the database is unavailable; the health watch polls the database at the same
/// interval.
const STORE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Returns a status with this reason.
pub(super) fn error_status(code: Code, reason: ErrorReason, message: &str) -> Status {
    Status::with_error_details(code, message, details(reason))
}

/// Returns a status with this reason and a `RetryInfo`.
pub(super) fn retryable_status(
    code: Code,
    reason: ErrorReason,
    message: &str,
    retry_after: Duration,
) -> Status {
    let mut details = details(reason);
    details.set_retry_info(Some(retry_after));
    Status::with_error_details(code, message, details)
}

/// The maximum number of violations that the message of a status lists; the details list all. A response
/// contains the message twice, as `grpc-message` and in the details, and clients limit all headers together
/// to 8 KiB.
const LISTED_IN_MESSAGE_MAX: usize = 8;

/// Returns an `INVALID_FIELDS` status that lists each field with the rule that it breaks: in the message for
/// developers, and in the details for programs. `omitted` is the number of further violations, which are only
/// counted.
pub(super) fn invalid_fields(violations: &[Violation], omitted: usize) -> Status {
    let mut listed: Vec<_> = violations
        .iter()
        .take(LISTED_IN_MESSAGE_MAX)
        .map(|violation| format!("{} {}", violation.field, violation.description))
        .collect();
    let others = (violations.len() - listed.len()).saturating_add(omitted);
    if others > 0 {
        listed.push(format!("and {others} more violations"));
    }
    let mut details = details(ErrorReason::InvalidFields);
    details.set_bad_request(
        violations
            .iter()
            .map(|violation| FieldViolation {
                reason: violation_reason_name(violation.reason).to_owned(),
                ..FieldViolation::new(&violation.field, &violation.description)
            })
            .collect::<Vec<_>>(),
    );
    let for_programs = proto::InvalidFields {
        violations: violations.iter().map(Violation::to_message).collect(),
        omitted_count: i32::try_from(omitted).unwrap_or(i32::MAX),
    };
    with_detail(&Status::with_error_details(Code::InvalidArgument, listed.join("; "), details), &for_programs)
}

/// The number of omitted violations of a status that lists them all.
pub(super) const NONE_OMITTED: usize = 0;

/// Returns an `INVALID_FIELDS` status with one violation.
pub(super) fn invalid_field(violation: Violation) -> Status {
    invalid_fields(&[violation], NONE_OMITTED)
}

/// The type of [`proto::InvalidFields`] in the details of a status.
const INVALID_FIELDS_URL: &str = "type.googleapis.com/kairos.identity.v1.InvalidFields";

/// Returns the status with a further detail. `tonic_types` knows only those of `google.rpc`.
fn with_detail(status: &Status, detail: &proto::InvalidFields) -> Status {
    let mut message = tonic_types::pb::Status::decode(status.details()).unwrap_or_default();
    message.details.push(Any { type_url: INVALID_FIELDS_URL.to_owned(), value: detail.encode_to_vec() });
    Status::with_details(status.code(), status.message(), message.encode_to_vec().into())
}

/// Returns the status for an error of `accounts`, and logs the cause of an unavailable or damaged database or
/// an internal error.
pub(super) fn from_account(error: AccountError) -> Status {
    use AccountError as E;
    use ErrorReason as R;
    let (code, reason, message) = match error {
        E::EmailTaken => {
            (Code::AlreadyExists, R::EmailAlreadyExists, "another account already uses this email")
        }
        E::UsernameTaken => {
            (Code::AlreadyExists, R::UsernameAlreadyExists, "another account already uses this username")
        }
        E::InvalidCredentials => {
            (Code::Unauthenticated, R::InvalidCredentials, "the email or the password is wrong")
        }
        E::WrongCurrentPassword => {
            (Code::Unauthenticated, R::InvalidCredentials, "the current password is wrong")
        }
        E::EmailNotVerified => {
            let message = "the email has not been verified: open the mailed link";
            (Code::PermissionDenied, R::EmailNotVerified, message)
        }
        E::AccountDisabled => (Code::PermissionDenied, R::AccountDisabled, "the account is disabled"),
        E::InvalidToken => {
            let message = "the link is unknown, has expired, was used or replaced by a newer one, or is for another purpose";
            (Code::InvalidArgument, R::InvalidToken, message)
        }
        E::EmailAlreadyVerified => {
            (Code::FailedPrecondition, R::EmailAlreadyVerified, "the email has already been verified")
        }
        E::InvalidRefreshToken => {
            let message = "the refresh token is unknown, was used before or is of another caller, or its session has ended: log in \
                 again";
            (Code::Unauthenticated, R::InvalidRefreshToken, message)
        }
        E::InvalidAccessToken => {
            let message = "the access token is missing, invalid or expired, or its session has ended: refresh the session";
            (Code::Unauthenticated, R::InvalidAccessToken, message)
        }
        E::SessionNotFound => (Code::NotFound, R::SessionNotFound, "the user has no session with this id"),
        E::UserNotFound => (Code::NotFound, R::UserNotFound, "there is no such user"),
        E::RequestIdReused => {
            return invalid_field(Violation::new("request_id", &RequestRule::RequestIdNew));
        }
        E::TooManyAttempts { retry_after } => {
            let message = "too many attempts: try again later";
            return retryable_status(Code::ResourceExhausted, R::TooManyAttempts, message, retry_after);
        }
        E::Overloaded { retry_after } => {
            let message = "the service is busy: try again later";
            return retryable_status(Code::ResourceExhausted, R::Overloaded, message, retry_after);
        }
        E::StoreUnavailable(cause) => return unavailable(&cause),
        E::StoreDamaged(cause) => return damaged(&cause),
        E::Internal(cause) => return internal_error(&cause),
    };
    error_status(code, reason, message)
}

/// Returns `STORE_UNAVAILABLE` and logs the cause.
fn unavailable(cause: &Cause) -> Status {
    let request_id = current_request_id().map(tracing::field::display);
    tracing::warn!(request_id, error = %chain(cause), "Call failed: database unavailable");
    let message = "the database is unavailable: try again later";
    retryable_status(Code::Unavailable, ErrorReason::StoreUnavailable, message, STORE_RETRY_AFTER)
}

/// Returns `DATA_LOSS`, which clients do not retry, and logs the cause, which the status does not contain.
fn damaged(cause: &Cause) -> Status {
    let request_id = current_request_id().map(tracing::field::display);
    tracing::error!(request_id, error = %chain(cause), "Call failed: database damaged");
    error_status(Code::DataLoss, ErrorReason::Internal, "the database is damaged")
}

/// Returns `INTERNAL` and logs the cause, which the status does not contain.
fn internal_error(cause: &Cause) -> Status {
    let request_id = current_request_id().map(tracing::field::display);
    tracing::error!(request_id, error = %chain(cause), "Call failed: internal error");
    error_status(Code::Internal, ErrorReason::Internal, "internal error")
}

/// Returns the status for an error of the store.
pub(super) fn from_store(error: DatabaseError) -> Status {
    from_account(error.into())
}

/// Returns status details with an `ErrorInfo` of this reason.
pub(super) fn details(reason: ErrorReason) -> ErrorDetails {
    ErrorDetails::with_error_info(reason_name(reason), DOMAIN, HashMap::new())
}

/// Returns the reason as clients see it: the name of the enum value without its prefix.
pub(super) fn reason_name(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("ERROR_REASON_").unwrap_or(name)
}

/// Returns the reason of a violation as clients see it.
fn violation_reason_name(reason: ViolationReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("VIOLATION_REASON_").unwrap_or(name)
}

/// Returns the name of the code in the gRPC specification.
pub(super) const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Returns the details for programs of an `INVALID_FIELDS` status.
#[cfg(test)]
pub(super) fn invalid_fields_of(status: &Status) -> Option<proto::InvalidFields> {
    let details = tonic_types::pb::Status::decode(status.details()).ok()?.details;
    let detail = details.into_iter().find(|detail| detail.type_url == INVALID_FIELDS_URL)?;
    proto::InvalidFields::decode(&*detail.value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_named_without_its_prefix() {
        assert_eq!(reason_name(ErrorReason::InvalidFields), "INVALID_FIELDS");
        assert_eq!(reason_name(ErrorReason::EmailAlreadyExists), "EMAIL_ALREADY_EXISTS");
    }

    #[test]
    fn the_audit_trail_and_the_status_have_the_same_reason() {
        use AccountError as E;
        let cause = || crate::database::Cause::new("broken");
        let retry_after = Duration::from_secs(1);
        let decisions = [
            E::EmailTaken,
            E::UsernameTaken,
            E::RequestIdReused,
            E::InvalidCredentials,
            E::WrongCurrentPassword,
            E::EmailNotVerified,
            E::AccountDisabled,
            E::InvalidToken,
            E::EmailAlreadyVerified,
            E::InvalidRefreshToken,
            E::InvalidAccessToken,
            E::SessionNotFound,
            E::UserNotFound,
            E::TooManyAttempts { retry_after },
        ];
        for error in decisions {
            let sent = from_account(error.clone()).get_details_error_info().unwrap().reason;
            assert_eq!(error.reason(), Some(sent.as_str()));
        }
        let failures = [E::StoreUnavailable(cause()), E::StoreDamaged(cause()), E::Internal(cause())];
        for error in failures.into_iter().chain([E::Overloaded { retry_after }]) {
            assert_eq!(error.reason(), None);
        }
    }

    #[test]
    fn the_cause_of_an_error_is_not_sent_to_the_caller() {
        let cause = crate::database::Cause::new("relation core_user does not exist");
        for error in [
            AccountError::Internal(cause.clone()),
            AccountError::StoreDamaged(cause.clone()),
            AccountError::StoreUnavailable(cause),
        ] {
            let status = from_account(error);
            let sent = format!("{} {:?}", status.message(), status.get_error_details());
            assert!(!sent.contains("core_user"), "{sent}");
        }
    }
}
