//! Runs the rounds of an import.

use tokio_util::sync::CancellationToken;

use super::{
    Import, ImportError, Progress, progress,
    report::{self, Report, Totals},
    round::Round,
};
use crate::{django::DjangoSource, domain::chain};

/// The requests to stop a run.
#[derive(Default)]
pub struct Stop {
    /// Ends an import after its current batch. One that follows its source ends with a last round, so that it
    /// imports all that was written there before.
    pub requested: CancellationToken,
    /// Ends every round after its current batch.
    pub at_once: CancellationToken,
}

/// The result of a run.
pub struct ImportOutcome {
    /// The report.
    pub report: Report,
    /// The last round that did not fail, with its findings.
    pub(super) round: Round,
}

impl ImportOutcome {
    /// Writes the report and all findings as JSON.
    ///
    /// # Errors
    /// [`ImportError`] when it cannot be written.
    pub fn write(&mut self, output: &mut impl std::io::Write) -> Result<(), ImportError> {
        self.report.write(&mut self.round.survey, output)
    }

    /// Calls `show` with kind, rows and description of each finding, at most `limit` times. With `only_open`
    /// it shows open conflicts only.
    ///
    /// # Errors
    /// [`ImportError`] when the survey cannot be read.
    pub fn findings(
        &mut self,
        only_open: bool,
        limit: usize,
        mut show: impl FnMut(&str, &str, &str),
    ) -> Result<(), ImportError> {
        let mut shown = 0;
        report::each_finding(&mut self.round.survey, |found| {
            if (found.is_open || !only_open) && shown < limit {
                shown += 1;
                show(&found.kind, &found.rows, &found.words);
            }
            Ok(())
        })
    }
}

impl Import {
    /// Imports the rows of the source, once or, with `follow_every`, repeatedly until `stop` is requested.
    ///
    /// A stop is not an error: the report states that the import is not complete, and the next run resumes.
    ///
    /// # Errors
    /// [`ImportError`]. Conflicts are not errors; the report lists them.
    pub async fn run(
        &self,
        source: &mut DjangoSource,
        progress: &mut impl Progress,
        stop: &Stop,
    ) -> Result<ImportOutcome, ImportError> {
        let mut totals = Totals::default();
        let mut round = self.begin_round(source, progress).await?;
        let mut open = self.decide(&mut round).await?;
        let mut is_complete = false;
        if open == 0 && !self.options.dry_run {
            is_complete = self.apply(source, &mut round, &mut totals, progress, &stop.requested).await?;
            // A first round that was stopped is not complete: nothing was followed yet.
            let mut pause = self.options.follow_every.filter(|_| is_complete);
            while let Some(interval) = pause {
                progress.report_round(totals.written, open);
                let requested =
                    stop.requested.run_until_cancelled(tokio::time::sleep(interval)).await.is_none();
                // The last round begins after the request: the one before it may have read past a row that
                // was written since.
                pause = pause.filter(|_| !requested);
                match self.follow(source, &mut totals, &stop.at_once).await {
                    Ok(followed) => (round, open, is_complete) = followed,
                    // The next round, or the next run, finds what this one has missed.
                    Err(error) => {
                        is_complete = false;
                        let error = chain(&error);
                        if pause.is_some() {
                            tracing::warn!(error, "Import round failed; the next round retries it");
                        } else {
                            tracing::warn!(error, "The last import round failed; run the import again");
                        }
                    }
                }
            }
        }
        let report = self.report(source, &mut round, &totals, open, is_complete).await?;
        Ok(ImportOutcome { report, round })
    }

    /// Runs one more round. A row in an open conflict is not written; the other rows are. Returns the round,
    /// the number of open conflicts, and true if all of the round was written.
    async fn follow(
        &self,
        source: &mut DjangoSource,
        totals: &mut Totals,
        stop: &CancellationToken,
    ) -> Result<(Round, u64, bool), ImportError> {
        let mut round = self.begin_round(source, &mut progress::Silent).await?;
        let open = self.decide(&mut round).await?;
        let is_complete = self.apply(source, &mut round, totals, &mut progress::Silent, stop).await?;
        Ok((round, open, is_complete))
    }
}
