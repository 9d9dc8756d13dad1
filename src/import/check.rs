//! Compares the source with the store, right after an import or later.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::candidate::{Candidate, UserState};
use super::{
    Import, ImportError, ImportOutcome, Progress,
    report::{Checksums, Totals},
    round::{PAGE, Round},
};
use crate::{
    django::DjangoSource,
    domain::{AuthToken, hex},
    store::Holder,
};

const ALGORITHM: &str =
    "SHA-256 over auth_token TAB email LF of every imported user, in the order of auth_token";

/// States of the rows whose users must be equal to the row.
const COMPARED_STATES: &[UserState] =
    &[UserState::New, UserState::Changed, UserState::Unchecked, UserState::Unchanged, UserState::AlreadyHere];

/// The result of comparing the source with the store.
pub struct Comparison {
    /// The report and the findings.
    pub outcome: ImportOutcome,
    /// Number of rows that have no user and were not left out.
    pub missing: u64,
    /// Number of rows that have changed since they were imported.
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
        let mut report = self.report(source, &mut round, &Totals::default(), (0, true)).await?;
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

/// Computes the checksums over the rows of the round and over their users in the store.
pub(super) async fn checksums(import: &Import, round: &mut Round) -> Result<Checksums, ImportError> {
    let (mut of_rows, mut of_users, mut users) = (Sha256::new(), Sha256::new(), 0);
    let mut after = None;
    loop {
        let page = round.survey.in_token_order(COMPARED_STATES, after, PAGE)?;
        let Some(last) = page.last() else { break };
        after = Some(last.auth_token);
        let emails = emails_in_store(import, &page).await?;
        for candidate in page {
            users += 1;
            of_rows.update(line(candidate.auth_token, candidate.email.as_str()));
            if let Some(email) = emails.get(&candidate.auth_token) {
                of_users.update(line(candidate.auth_token, email));
            }
        }
    }
    Ok(Checksums {
        algorithm: ALGORITHM,
        users,
        source: hex(&of_rows.finalize()),
        store: hex(&of_users.finalize()),
    })
}

async fn emails_in_store(
    import: &Import,
    candidates: &[Candidate],
) -> Result<HashMap<AuthToken, String>, ImportError> {
    let Some(store) = &import.store else { return Ok(HashMap::new()) };
    let tokens: Vec<AuthToken> = candidates.iter().map(|candidate| candidate.auth_token).collect();
    let holders = store.find_holders(&tokens, Vec::new(), Vec::new(), Vec::new()).await?;
    let email = |holder: Holder| (holder.user.auth_token, holder.user.email.into_string());
    Ok(holders.into_iter().map(email).collect())
}

/// Returns the number of imported rows that are no longer in the source.
pub(super) async fn count_gone(import: &Import, round: &mut Round) -> Result<u64, ImportError> {
    let Some(store) = &import.store else { return Ok(0) };
    let (mut gone, mut after) = (0, None);
    loop {
        let page = store.list_imported(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(gone) };
        after = Some(*last);
        for row in page {
            gone += u64::from(!round.survey.has_row(row)?);
        }
    }
}

fn line(token: AuthToken, email: &str) -> String {
    format!("{token}\t{email}\n")
}
