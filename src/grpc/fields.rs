//! The fields of a request, parsed one by one so that all that are faulty are named at once.

use std::fmt::Display;

use tonic::Status;
use tonic_types::FieldViolation;

use super::status::invalid_fields;

/// More faults than this are counted and not listed: details travel in a header, which clients limit to 8 KiB.
const LISTED_MAX: usize = 20;

/// What was found wrong so far.
#[derive(Default)]
pub(super) struct Fields {
    violations: Vec<FieldViolation>,
    unlisted: usize,
}

impl Fields {
    /// The value, or nothing and a note of why not.
    pub(super) fn take<T, E: Display>(&mut self, field: &str, parsed: Result<T, E>) -> Option<T> {
        match parsed {
            Ok(value) => Some(value),
            Err(rule) => {
                self.refuse(field, &rule);
                None
            }
        }
    }

    /// Notes that a field breaks a rule.
    pub(super) fn refuse(&mut self, field: &str, rule: &impl Display) {
        if self.violations.len() < LISTED_MAX {
            self.violations.push(FieldViolation::new(field, rule.to_string()));
        } else {
            self.unlisted += 1;
        }
    }

    /// Whether nothing was refused so far.
    pub(super) const fn is_faultless(&self) -> bool {
        self.violations.is_empty()
    }

    /// The status that names them all.
    pub(super) fn into_status(mut self) -> Status {
        if self.unlisted > 0
            && let Some(last) = self.violations.last_mut()
        {
            last.description = format!("{}; and {} more fields are faulty", last.description, self.unlisted);
        }
        invalid_fields(self.violations)
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;

    #[test]
    fn thousand_faults_fit_into_a_header() {
        let mut fields = Fields::default();
        for index in 0..1_000 {
            fields.refuse(&format!("auth_tokens[{index}]"), &"must be a UUID");
        }
        let status = fields.into_status();
        let listed = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(listed.len(), LISTED_MAX);
        assert!(listed[LISTED_MAX - 1].description.ends_with("and 980 more fields are faulty"));
        assert!(status.details().len() < 4_096, "{}", status.details().len());
    }
}
