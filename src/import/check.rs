//! Compares the source with the store, right after an import or later.

use super::{
    Import, ImportError, ImportOutcome, Progress, candidate::UserState, checksums::Checksums, report::Totals,
};
use crate::django::DjangoSource;

/// The result of comparing the source with the store.
pub struct Comparison {
    /// The report and the findings.
    pub outcome: ImportOutcome,
    /// Number of rows that have no user and were not left out.
    pub missing: u64,
    /// Number of rows that differ from their users. A row whose user has changed here since its import does
    /// not count.
    pub stale: u64,
    /// Number of rows whose plaintext password could not be compared, since the key of the import is not
    /// available.
    pub uncompared: u64,
}

impl Comparison {
    /// True if the store has every row as the source has it. Rows that the operator has left out, and rows
    /// whose users were changed or deleted in the store since the import, do not count.
    #[must_use]
    pub fn agrees(&self) -> bool {
        let report = &self.outcome.report;
        self.missing == 0 && self.stale == 0 && report.checksums.as_ref().is_some_and(Checksums::agree)
    }
}

impl Import {
    /// Compares the source with the store. Changes nothing.
    ///
    /// # Errors
    /// [`ImportError`] when the source or the store does not answer.
    pub async fn verify(
        &self,
        source: &mut DjangoSource,
        progress: &mut impl Progress,
    ) -> Result<Comparison, ImportError> {
        let mut round = self.begin_round(source, progress).await?;
        self.reconsider_left_out(&mut round).await?;
        self.compare_with_users(&mut round).await?;
        // Reported like a complete round, so that the report has checksums. But nothing was written.
        let (open, is_complete) = (0, true);
        let mut report = self.report(source, &mut round, &Totals::default(), open, is_complete).await?;
        report.complete = false;
        let missing =
            report.in_state(UserState::New) + round.unreadable + report.in_state(UserState::Refused);
        let (changed, unchecked) =
            (report.in_state(UserState::Changed), report.in_state(UserState::Unchecked));
        let (stale, uncompared) =
            if self.is_key_persistent { (changed + unchecked, 0) } else { (changed, unchecked) };
        Ok(Comparison { outcome: ImportOutcome { report, round }, missing, stale, uncompared })
    }
}
