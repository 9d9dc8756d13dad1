//! Validation of request fields. All fields are parsed before an error is returned, so that one response
//! lists the violations of every field, up to a limit.

use tonic::Status;

use super::{
    rule::{BrokenRule, Violation},
    status::{from_account, invalid_fields},
};
use crate::accounts::NewPasswordError;

/// The maximum number of violations that a status lists; further ones are only counted. The details of a
/// status are sent in a header, and clients limit all headers together to 8 KiB.
const VIOLATIONS_MAX: usize = 20;

/// Collects the field violations of one request.
#[derive(Default)]
pub(super) struct Fields {
    violations: Vec<Violation>,
    /// The number of violations after the first [`VIOLATIONS_MAX`].
    omitted: usize,
}

impl Fields {
    /// Returns the parsed value, or adds a violation and returns `None`.
    pub(super) fn check<T, E: BrokenRule>(&mut self, field: &str, parsed: Result<T, E>) -> Option<T> {
        match parsed {
            Ok(value) => Some(value),
            Err(rule) => {
                self.reject(field, &rule);
                None
            }
        }
    }

    /// Like [`Fields::check`], for the result of an operation that judges a new password.
    ///
    /// # Errors
    /// The status of the operation, if it failed for another reason than a rule for passwords.
    pub(super) fn check_password<T>(
        &mut self,
        field: &str,
        result: Result<T, NewPasswordError>,
    ) -> Result<Option<T>, Status> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(NewPasswordError::Refused(refusal)) => Ok(self.check(field, Err(refusal))),
            Err(NewPasswordError::Account(error)) => Err(from_account(error)),
        }
    }

    /// Adds a violation: the field breaks the rule.
    pub(super) fn reject(&mut self, field: &str, rule: &impl BrokenRule) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(Violation::new(field, rule));
        } else {
            self.omitted += 1;
        }
    }

    /// True if there is no violation so far.
    pub(super) const fn are_valid(&self) -> bool {
        self.violations.is_empty()
    }

    /// Returns the `INVALID_FIELDS` status. It lists at most [`VIOLATIONS_MAX`] violations; the last one
    /// states how many are omitted.
    pub(super) fn into_status(mut self) -> Status {
        if self.omitted > 0
            && let Some(last) = self.violations.last_mut()
        {
            last.description = format!("{}; and {} more violations", last.description, self.omitted);
        }
        invalid_fields(&self.violations, self.omitted)
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;
    use crate::{domain::AuthToken, grpc::status::invalid_fields_of, proto::ViolationReason};

    #[test]
    fn a_thousand_violations_fit_into_a_header() {
        const VIOLATIONS: usize = 1_000;
        let mut fields = Fields::default();
        for index in 0..VIOLATIONS {
            fields.check(&format!("auth_tokens[{index}]"), AuthToken::parse("x"));
        }
        let status = fields.into_status();
        let listed = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(listed.len(), VIOLATIONS_MAX);
        let omitted = format!("and {} more violations", VIOLATIONS - VIOLATIONS_MAX);
        assert!(listed[VIOLATIONS_MAX - 1].description.ends_with(&omitted));
        // The header has them in base64: at most 5,464 of the 8 KiB for all headers.
        assert!(status.details().len() < 4_096, "{}", status.details().len());
        // 992: the message lists 8.
        assert!(status.message().ends_with("; and 992 more violations"), "{}", status.message());

        // 980 of the 1,000 are omitted; number 19 is the last one that is listed.
        let for_programs = invalid_fields_of(&status).unwrap();
        assert_eq!(for_programs.violations.len(), VIOLATIONS_MAX);
        assert_eq!(for_programs.omitted_count, 980);
        assert_eq!(for_programs.violations[19].field, "auth_tokens[19]");
        assert_eq!(for_programs.violations[19].reason(), ViolationReason::AuthTokenMalformed);
    }
}
