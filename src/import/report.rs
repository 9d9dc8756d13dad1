//! What there is to tell of an import.

use std::{collections::BTreeMap, io::Write};

use serde::Serialize;

use super::{Import, ImportError, check, survey::Round};
use crate::store::{DjangoSource, Finding, Survey, UserState, Written};

/// Findings that are read together.
const PAGE: i64 = 1_000;

/// What was done over all rounds.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) written: Written,
    /// Rows that changed between being looked at and being written.
    pub(super) moved: u64,
}

/// The checksums of both sides: SHA-256 over a line `auth_token`, tab, email, line end for each user that was taken over, in the order of the
/// `auth_token`s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checksums {
    /// How it is made.
    pub algorithm: &'static str,
    /// How many users it is over.
    pub users: u64,
    /// Of the rows, with the emails as they are written here.
    pub source: String,
    /// Of the users.
    pub store: String,
}

impl Checksums {
    /// Whether the store has what the source has.
    #[must_use]
    pub fn agree(&self) -> bool {
        self.source == self.store
    }
}

/// What an import has found and done. Holds no password and nothing of one.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// When the last round began.
    pub at: String,
    /// Which form of Django's table was found.
    pub schema: String,
    /// Whether nothing was to be written.
    pub dry_run: bool,
    /// Whether everything that was decided is written; not so when it was stopped, or conflicts are open.
    pub complete: bool,
    /// Rows of the source.
    pub rows: u64,
    /// How many rows there were in each state, when the last round looked at them.
    pub states: BTreeMap<String, u64>,
    /// New users since the start of the command.
    pub imported: u32,
    /// Users that were changed since.
    pub updated: u32,
    /// Rows that changed while they were being written: run the command again.
    pub changed_meanwhile: u64,
    /// Users that were taken over from rows that are not in the source any more.
    pub gone_from_source: u64,
    /// Rows without times, which got that of the import.
    pub without_times: u64,
    /// How many rows have each kind of password.
    pub passwords: BTreeMap<String, u64>,
    /// How many findings there are of each kind.
    pub findings: BTreeMap<String, u64>,
    /// How many of them nobody has decided on.
    pub open: BTreeMap<String, u64>,
    /// Both sides; nothing when not everything is written.
    pub checksums: Option<Checksums>,
}

/// Calls `tell` with each finding.
pub(super) fn each_finding(
    survey: &mut Survey,
    mut tell: impl FnMut(Finding) -> Result<(), ImportError>,
) -> Result<(), ImportError> {
    let mut after = 0;
    loop {
        let findings = survey.findings(after, PAGE)?;
        let Some(last) = findings.last() else { return Ok(()) };
        after = last.number;
        findings.into_iter().try_for_each(&mut tell)?;
    }
}

impl Import {
    /// Sums a round up; `is_complete` says that all of it was written.
    pub(super) async fn report(
        &self,
        source: &DjangoSource,
        round: &mut Round,
        totals: &Totals,
        (open, is_complete): (u64, bool),
    ) -> Result<Report, ImportError> {
        let is_complete = is_complete && totals.moved == 0;
        let states = round.survey.count_states()?;
        let checksums = if is_complete { Some(check::checksums(self, round).await?) } else { None };
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
            changed_meanwhile: totals.moved,
            gone_from_source: check::count_gone(self, round).await?,
            without_times: round.timeless,
            passwords: round.passwords.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            findings: round.survey.count_findings(false)?.into_iter().collect(),
            open: round.survey.count_findings(true)?.into_iter().collect(),
            checksums,
        })
    }
}

impl Report {
    /// How many conflicts nobody has decided on.
    #[must_use]
    pub fn open_conflicts(&self) -> u64 {
        self.open.values().sum()
    }

    /// How many rows are in this state.
    #[must_use]
    pub fn in_state(&self, state: UserState) -> u64 {
        self.states.get(state.as_str()).copied().unwrap_or_default()
    }

    /// Writes it as JSON, with every finding as `{"kind", "rows", "words", "open"}`.
    pub(super) fn write(&self, survey: &mut Survey, output: &mut impl Write) -> Result<(), ImportError> {
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
