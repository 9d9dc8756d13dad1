//! The report of an import.

use std::{collections::BTreeMap, io::Write};

use serde::Serialize;

use super::{
    Import, ImportError,
    checksums::{Checksums, checksums},
    records::WrittenUsers,
    round::{self, Round},
};
use super::{
    candidate::UserState,
    survey::{Finding, Survey},
};
use crate::django::DjangoSource;

/// Number of findings that are read together.
const FINDINGS_PER_READ: i64 = 1_000;

/// Totals over all rounds.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) written: WrittenUsers,
    /// Rows of the last round that were not written, because the row, its user or the owner of one of its
    /// values changed after the survey had read them. Each round begins at 0.
    pub(super) changed_meanwhile: u64,
}

/// What an import has found and done. It contains no passwords and nothing derived from them.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Time at which the last round started.
    pub at: String,
    /// The schema of Django's table.
    pub schema: String,
    /// True for a dry run.
    pub dry_run: bool,
    /// True if everything is written: the import was not stopped, no conflict is open, and
    /// `changed_meanwhile` is 0.
    pub complete: bool,
    /// Number of rows in the source.
    pub rows: u64,
    /// Number of rows in each state, as the last round decided.
    pub states: BTreeMap<String, u64>,
    /// Number of users created since the command started.
    pub imported: u32,
    /// Number of users changed since the command started.
    pub updated: u32,
    /// Number of rows of the last round that were not written, because they or the store changed while the
    /// round ran: run the command again.
    pub changed_meanwhile: u64,
    /// Number of imported rows that are no longer in the source.
    pub gone_from_source: u64,
    /// Number of rows without times; their users get the time of the import.
    pub without_times: u64,
    /// Number of rows with each kind of password.
    pub passwords: BTreeMap<String, u64>,
    /// Number of findings of each kind.
    pub findings: BTreeMap<String, u64>,
    /// Number of open conflicts of each kind.
    pub open: BTreeMap<String, u64>,
    /// The checksums; `None` unless every decided row is written.
    pub checksums: Option<Checksums>,
}

/// Calls `visit` with each finding.
pub(super) fn each_finding(
    survey: &mut Survey,
    mut visit: impl FnMut(Finding) -> Result<(), ImportError>,
) -> Result<(), ImportError> {
    let mut after = 0;
    loop {
        let findings = survey.findings(after, FINDINGS_PER_READ)?;
        let Some(last) = findings.last() else { return Ok(()) };
        after = last.number;
        findings.into_iter().try_for_each(&mut visit)?;
    }
}

impl Import {
    /// Builds the report of a round. `open` is the number of open conflicts; `is_complete` is true if all of
    /// the round was written.
    pub(super) async fn report(
        &self,
        source: &DjangoSource,
        round: &mut Round,
        totals: &Totals,
        open: u64,
        is_complete: bool,
    ) -> Result<Report, ImportError> {
        let is_complete = is_complete && totals.changed_meanwhile == 0;
        let states = round.survey.count_states()?;
        let checksums = if is_complete { Some(checksums(self, round).await?) } else { None };
        Ok(Report {
            at: round.now.to_string(),
            schema: source.schema().to_string(),
            dry_run: self.options.dry_run,
            complete: is_complete && open == 0,
            rows: round.rows,
            states: states
                .into_iter()
                .chain([("unreadable".to_owned(), round.unreadable)])
                .filter(|(_, n)| *n > 0)
                .collect(),
            imported: totals.written.inserted,
            updated: totals.written.updated,
            changed_meanwhile: totals.changed_meanwhile,
            gone_from_source: count_gone(self, round).await?,
            without_times: round.without_times,
            passwords: round.passwords.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            findings: round.survey.count_findings()?.into_iter().collect(),
            open: round.survey.count_open_findings()?.into_iter().collect(),
            checksums,
        })
    }
}

/// Returns the number of imported rows that are no longer in the source.
async fn count_gone(import: &Import, round: &mut Round) -> Result<u64, ImportError> {
    let Some(store) = &import.store else { return Ok(0) };
    let (mut gone, mut after) = (0, None);
    loop {
        let page = store.list_imported(after, round::ROWS_PER_READ).await?;
        let Some(last) = page.last() else { return Ok(gone) };
        after = Some(*last);
        for row in page {
            let is_gone = !round.survey.has_row(row)? && !round.survey.is_already_here(row.auth_token)?;
            gone += u64::from(is_gone);
        }
    }
}

impl Report {
    /// Returns the number of open conflicts.
    #[must_use]
    pub fn open_conflicts(&self) -> u64 {
        self.open.values().sum()
    }

    /// Returns the number of rows in this state.
    #[must_use]
    pub fn in_state(&self, state: UserState) -> u64 {
        self.states.get(state.as_str()).copied().unwrap_or_default()
    }

    /// Writes the report as JSON, with every finding as `{"kind", "rows", "words", "open"}`.
    pub(super) fn write(&self, survey: &mut Survey, output: &mut impl Write) -> Result<(), ImportError> {
        // The findings are appended to the object one by one, since all of them may not fit into memory. So
        // its closing brace is written last.
        let head = serde_json::to_string_pretty(self).map_err(std::io::Error::from)?;
        let head = head.trim_end().trim_end_matches('}').trim_end();
        write!(output, "{head},\n  \"every_finding\": [")?;
        let mut separator = "\n";
        each_finding(survey, |found| {
            let rows: Vec<i64> = found.rows.split(',').filter_map(|row| row.parse().ok()).collect();
            let found = serde_json::json!({
                "kind": found.kind, "rows": rows, "words": found.words, "open": found.is_open
            });
            write!(output, "{separator}    {found}")?;
            separator = ",\n";
            Ok(())
        })?;
        writeln!(output, "\n  ]\n}}")?;
        Ok(output.flush()?)
    }
}
