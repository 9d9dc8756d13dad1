//! Keeps [`Passwords`] informed of the schemes and costs of all stored hashes, so that the time of a refused
//! login reveals none of them.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{AccountError, Accounts};
use crate::{password::Passwords, store::Store};

/// Number of hashes that one query reads: few enough that other queries need not wait for it.
const PAGE: i64 = 1_000;

/// Pause between two pages.
const PAUSE: Duration = Duration::from_millis(10);

/// Pause between two surveys. A hash that an import stores meanwhile becomes known when a wrong password is
/// checked against it; hashes that are no longer stored are dropped after this time.
const INTERVAL: Duration = Duration::from_hours(1);

/// Pause after a survey that failed.
const RETRY: Duration = Duration::from_mins(1);

/// Surveys the stored hashes at the start and every hour.
pub struct StoredHashes {
    store: Store,
    passwords: Passwords,
}

impl Accounts {
    /// Returns the job that surveys the stored hashes.
    #[must_use]
    pub fn stored_hashes(&self) -> StoredHashes {
        StoredHashes { store: self.deps.store.clone(), passwords: self.deps.passwords.clone() }
    }
}

impl StoredHashes {
    /// Runs until `stop` is cancelled. Until the first survey is complete, refused checks take the longest
    /// time that the settings allow.
    pub async fn run(self, stop: CancellationToken) {
        self.passwords.assume_slowest_hashes();
        loop {
            let Some(surveyed) = stop.run_until_cancelled(self.survey()).await else { return };
            let pause = match surveyed {
                Ok(()) => INTERVAL,
                Err(error) => {
                    tracing::warn!(%error, "Survey of the stored password hashes failed");
                    RETRY
                }
            };
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Reads all stored hashes, and gives their schemes and costs to [`Passwords`].
    async fn survey(&self) -> Result<(), AccountError> {
        let mut survey = self.passwords.survey();
        let mut last = None;
        loop {
            let page = self.store.list_password_hashes(last, PAGE).await?;
            for (_, hash) in &page {
                survey.add(hash.expose());
            }
            match page.last() {
                Some((user, _)) => last = Some(*user),
                None => break,
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(self.passwords.apply(survey).await?)
    }
}
