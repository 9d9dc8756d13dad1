//! One pass over the source, and what it has found.

use std::collections::BTreeMap;

use super::{
    candidate::{Candidate, UserState},
    error::ImportError,
    survey::Survey,
};
use crate::domain::Timestamp;

/// Number of rows that are read together.
pub(super) const ROWS_PER_READ: i64 = 1_000;

/// One pass over the whole source, and what it has found.
pub(super) struct Round {
    pub(super) survey: Survey,
    /// Number of rows with each kind of password.
    pub(super) passwords: BTreeMap<&'static str, u64>,
    pub(super) rows: u64,
    /// Number of rows that cannot become users.
    pub(super) unreadable: u64,
    /// Number of rows without times.
    pub(super) without_times: u64,
    /// Start of the round; rows without times get this time.
    pub(super) now: Timestamp,
}

impl Round {
    /// Records a finding about rows that does not stop the import.
    pub(super) fn note(&mut self, kind: &str, rows: &[i64], message: &str) -> Result<(), ImportError> {
        let is_open = false;
        self.add_finding(kind, rows, message, is_open)
    }

    fn add_finding(
        &mut self,
        kind: &str,
        rows: &[i64],
        message: &str,
        is_open: bool,
    ) -> Result<(), ImportError> {
        let rows: Vec<String> = rows.iter().map(i64::to_string).collect();
        Ok(self.survey.add_finding(kind, &rows.join(","), message, is_open)?)
    }

    /// Records an open conflict of the last of these rows. In the first round, the conflict stops the import;
    /// in a later one, only this row is not written. Further findings about the row are still recorded.
    pub(super) fn refuse(&mut self, kind: &str, rows: &[i64], message: &str) -> Result<(), ImportError> {
        if let Some(row) = rows.last() {
            self.survey.refuse(*row)?;
        }
        let is_open = true;
        self.add_finding(kind, rows, message, is_open)
    }
}

/// True if the row is new or has changed, so that the import must decide what becomes of it.
pub(super) fn needs_decision(candidate: &Candidate) -> bool {
    matches!(candidate.state, UserState::New | UserState::Changed)
}
