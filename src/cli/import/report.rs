//! The report of an import: the file, and what the command prints.

use std::{
    io::{self, BufWriter, Write},
    path::Path,
};

use crate::{
    cli::{Failure, output::Lines, printable::field, reason},
    domain::io_reason,
    import::{ImportError, ImportOutcome, Report},
    input_file::ShownPath,
    publish::{self, Draft, Existing},
};

/// Maximum number of open conflicts that are printed. The report lists all of them.
const PRINTED_CONFLICTS_MAX: usize = 20;

/// A new file for the report. Its draft is created before the import, so that a wrong path fails early. The
/// file gets its name when the report is complete.
pub(super) struct ReportFile<'a> {
    path: &'a Path,
    draft: Draft,
}

impl<'a> ReportFile<'a> {
    /// Creates the draft, which only its owner can read, since the report contains emails and usernames.
    pub(super) fn create(path: Option<&'a Path>) -> Result<Option<Self>, Failure> {
        let Some(path) = path else { return Ok(None) };
        if path.symlink_metadata().is_ok() {
            return Err(failure(path, &io::ErrorKind::AlreadyExists.into()));
        }
        publish::remove_leftovers(publish::folder_of(path));
        let draft = Draft::create(path).map_err(|error| failure(path, &error))?;
        Ok(Some(Self { path, draft }))
    }

    /// Writes and publishes the report.
    pub(super) fn write(mut self, outcome: &mut ImportOutcome) -> Result<(), Failure> {
        let mut output = BufWriter::new(self.draft.file());
        outcome.write(&mut output).map_err(|error| match error {
            ImportError::Report(error) => failure(self.path, &error),
            error => format!("--report {}: {}", self.path.display(), reason(error)),
        })?;
        output.flush().map_err(|error| failure(self.path, &error))?;
        drop(output);
        self.draft.publish(Existing::Keep).map_err(|error| failure(self.path, &error))
    }
}

/// Formats an error of the report file.
fn failure(path: &Path, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::AlreadyExists => {
            format!("--report: {} {}", ShownPath(path), publish::occupant(path))
        }
        io::ErrorKind::NotFound => {
            let folder = publish::folder_of(path);
            format!("--report {}: there is no folder {}: create it", path.display(), ShownPath(folder))
        }
        _ => format!("--report {}: {}", path.display(), io_reason(error)),
    }
}

pub(super) fn print_report(report: &Report) -> Result<(), Failure> {
    let mut output = Lines::new();
    output.line(format_args!("schema     {}", report.schema))?;
    output.line(format_args!("rows       {}", report.rows))?;
    for (title, counts) in [
        ("states", &report.states),
        ("passwords", &report.passwords),
        ("findings", &report.findings),
        ("open", &report.open),
    ] {
        let counts: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        if !counts.is_empty() {
            output.line(format_args!("{title:10} {}", counts.join(", ")))?;
        }
    }
    output.line(format_args!("written    {} imported, {} updated", report.imported, report.updated))?;
    for (note, count) in [
        ("changed while they were being written", report.changed_meanwhile),
        ("were imported and are no longer in the source", report.gone_from_source),
        ("have no times: they got the time of the import", report.without_times),
    ] {
        if count > 0 {
            output.line(format_args!("note       {count} rows {note}"))?;
        }
    }
    if let Some(checksums) = &report.checksums {
        output.line(format_args!("source     {} ({} users)", checksums.source, checksums.users))?;
        output.line(format_args!("store      {}", checksums.store))?;
    }
    output.finish()
}

pub(super) fn print_conflicts(outcome: &mut ImportOutcome, report: Option<&Path>) -> Result<(), Failure> {
    let open = outcome.report.open_conflicts();
    let mut output = Lines::new();
    let mut printed = Ok(false);
    let only_open = true;
    outcome
        .findings(only_open, PRINTED_CONFLICTS_MAX, |kind, rows, text| {
            if printed.is_ok() {
                printed = output.line(format_args!("open       {kind}: rows {rows}: {}", field(text)));
            }
        })
        .map_err(reason)?;
    printed?;
    if open > PRINTED_CONFLICTS_MAX as u64 {
        let all = report
            .map_or_else(|| "--report FILE writes".to_owned(), |path| format!("{} contains", path.display()));
        let more = open - PRINTED_CONFLICTS_MAX as u64;
        output.line(format_args!("open       and {more} more; {all} all of them"))?;
    }
    output.finish()
}
