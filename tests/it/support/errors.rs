//! Errors as a client reads them: the status code, and the reason in the status details.

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Asserts the code, the stable reason (for example `"EMAIL_ALREADY_EXISTS"`) and the domain of an error.
#[track_caller]
pub fn assert_refused(status: &Status, code: Code, reason: &str) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    let found = (status.code(), info.reason.as_str(), info.domain.as_str());
    assert_eq!(found, (code, reason, "identity.kairos"), "{status:?}");
}

/// Returns the field violations of an error as (field, broken rule), in the order of the details.
pub fn violations(status: &Status) -> Vec<(String, String)> {
    let details = status.get_error_details();
    let request = details.bad_request().map(|request| request.field_violations.clone()).unwrap_or_default();
    request.into_iter().map(|violation| (violation.field, violation.description)).collect()
}
