//! The report of an import: the file, and what the command prints.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::{
    cli::{Failure, reason},
    import::{ImportOutcome, Report},
};

/// Maximum number of open conflicts that are printed. The report lists all of them.
const PRINTED_CONFLICTS_MAX: usize = 20;

/// A new file for the report. It is created before the import, so that a wrong path fails early. It is
/// deleted if the report is not written.
pub(super) struct ReportFile<'a> {
    path: &'a Path,
    file: Option<BufWriter<File>>,
}

impl<'a> ReportFile<'a> {
    /// Creates the file, which only its owner can read, since the report contains emails and usernames.
    pub(super) fn create(path: Option<&'a Path>) -> Result<Option<Self>, Failure> {
        let Some(path) = path else { return Ok(None) };
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = created.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => format!("--report {}: the file already exists", path.display()),
            _ => format!("--report {}: {error}", path.display()),
        })?;
        Ok(Some(Self { path, file: Some(BufWriter::new(file)) }))
    }

    /// Writes the report.
    pub(super) fn write(mut self, outcome: &mut ImportOutcome) -> Result<(), Failure> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        outcome
            .write(&mut file)
            .map_err(|error| format!("--report {}: {}", self.path.display(), reason(error)))
    }
}

impl Drop for ReportFile<'_> {
    fn drop(&mut self) {
        if self.file.is_some() {
            // The report was not written: remove the empty file, so that the next run can create it again.
            let _ = std::fs::remove_file(self.path);
        }
    }
}

pub(super) fn print_report(report: &Report) {
    println!("schema     {}", report.schema);
    println!("rows       {}", report.rows);
    let line = |title: &str, counts: &std::collections::BTreeMap<String, u64>| {
        let counts: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        if !counts.is_empty() {
            println!("{title:10} {}", counts.join(", "));
        }
    };
    line("states", &report.states);
    line("passwords", &report.passwords);
    line("findings", &report.findings);
    line("open", &report.open);
    println!("written    {} imported, {} updated", report.imported, report.updated);
    for (note, count) in [
        ("changed while they were being written", report.changed_meanwhile),
        ("were imported and are no longer in the source", report.gone_from_source),
        ("have no times: they got the time of the import", report.without_times),
    ] {
        if count > 0 {
            println!("note       {count} rows {note}");
        }
    }
    if let Some(checksums) = &report.checksums {
        println!("source     {} ({} users)", checksums.source, checksums.users);
        println!("store      {}", checksums.store);
    }
}

pub(super) fn print_conflicts(outcome: &mut ImportOutcome, report: Option<&Path>) -> Result<(), Failure> {
    let open = outcome.report.open_conflicts();
    outcome
        .findings(true, PRINTED_CONFLICTS_MAX, |kind, rows, text| {
            println!("open       {kind}: rows {rows}: {text}");
        })
        .map_err(reason)?;
    if open > PRINTED_CONFLICTS_MAX as u64 {
        let all = report
            .map_or_else(|| "--report FILE writes".to_owned(), |path| format!("{} contains", path.display()));
        println!("open       and {} more; {all} all of them", open - PRINTED_CONFLICTS_MAX as u64);
    }
    Ok(())
}
