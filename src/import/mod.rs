//! Moving users in from a Django backend, and out again.
//!
//! An import is made of rounds. A round reads the whole source and writes down what becomes of each row (a [`Survey`] on disk, so that memory does not
//! grow); conflicts that the operator has not decided on end it there, with nothing changed. Then it writes the users, some at a time, each with what
//! is remembered of their row: a round that was stopped is made up for by the next one, and hashes nothing twice. `--follow` is rounds without end.
//!
//! The rules of what becomes of whom are here; tables are the store's, hashes `password`'s. Start at [`Import::run`].
//!
//! [`Survey`]: crate::store::Survey

mod apply;
mod check;
mod conflicts;
mod error;
mod export;
mod names;
mod options;
mod progress;
mod report;
mod row;
mod survey;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use self::{
    apply::ROWS_AT_ONCE,
    check::Comparison,
    error::ImportError,
    export::{Exported, export},
    options::{ImportOptions, OnEmailConflict, OnTokenConflict, OnUsernameConflict},
    progress::Progress,
    report::{Checksums, Report},
};
use self::{report::Totals, survey::Round};
use crate::{
    clock::Clock,
    domain::Origin,
    entropy::Entropy,
    password::Passwords,
    sealing::SealingKey,
    store::{DjangoSource, Store, chain},
};

/// What an import works with.
pub struct Import {
    /// Where users go; nothing stands for a store that is empty and not yet made, as a dry run may find it.
    pub store: Option<Store>,
    /// Who hashes plaintext.
    pub passwords: Passwords,
    /// Under which it is remembered which plaintext was hashed.
    pub key: Arc<SealingKey>,
    /// Whether the next run has the same key; otherwise it finds out by hashing what has changed.
    pub key_is_kept: bool,
    /// The time.
    pub clock: Clock,
    /// Chance.
    pub entropy: Entropy,
    /// Who acts, for the audit trail.
    pub origin: Origin,
    /// What the operator decides.
    pub options: ImportOptions,
}

/// How a run ended.
pub struct Outcome {
    /// What there is to tell.
    pub report: Report,
    /// What was found, to be told one by one.
    round: Round,
}

impl Outcome {
    /// Writes the report with all that was found as JSON.
    ///
    /// # Errors
    /// [`ImportError`] when it cannot be written.
    pub fn write(&mut self, output: &mut impl std::io::Write) -> Result<(), ImportError> {
        self.report.write(&mut self.round.survey, output)
    }

    /// Calls `tell` with the kind, the rows and the words of what was found, at most `limit` times; open conflicts only, if that is asked for.
    ///
    /// # Errors
    /// [`ImportError`] when the survey cannot be read.
    pub fn findings(
        &mut self,
        only_open: bool,
        limit: usize,
        mut tell: impl FnMut(&str, &str, &str),
    ) -> Result<(), ImportError> {
        let mut told = 0;
        report::each_finding(&mut self.round.survey, |found| {
            if (found.is_open || !only_open) && told < limit {
                told += 1;
                tell(&found.kind, &found.rows, &found.words);
            }
            Ok(())
        })
    }
}

impl Import {
    /// Takes over what the source has, once; or again and again until `stop`, if the options say so.
    ///
    /// A stopped run is no error: its report says so, and the next run goes on.
    ///
    /// # Errors
    /// [`ImportError`]. Conflicts are no error: they are in the report.
    pub async fn run(
        &self,
        source: &mut DjangoSource,
        progress: &mut impl Progress,
        stop: &CancellationToken,
    ) -> Result<Outcome, ImportError> {
        let mut totals = Totals::default();
        let mut round = self.begin_round(source, progress).await?;
        let mut open = self.decide(&mut round).await?;
        let mut is_complete = false;
        if open == 0 && !self.options.dry_run {
            is_complete = self.apply(source, &mut round, &mut totals, progress, stop).await?;
            while let Some(interval) = self.options.follow_every.filter(|_| !stop.is_cancelled()) {
                progress.follows(totals.written, open);
                if stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_none() {
                    break;
                }
                match self.follow(source, &mut totals, stop).await {
                    Ok(followed) => (round, open, is_complete) = followed,
                    // Nothing is lost: the next round finds what this one did not.
                    Err(error) => {
                        tracing::warn!(error = %chain(&error), "A round broke; the next one makes up for it");
                    }
                }
            }
        }
        let report = self.report(source, &mut round, &totals, (open, is_complete)).await?;
        Ok(Outcome { report, round })
    }

    /// One round more. A conflict of a row that came later keeps that row out, and the others go on.
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
