//! Checksums over the imported users, in the source and in the store.

use std::collections::HashMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    Import, ImportError,
    candidate::{Candidate, UserState},
    records::Holder,
    round::{ROWS_PER_READ, Round},
};
use crate::domain::{AuthToken, hex};

const ALGORITHM: &str =
    "SHA-256 over auth_token TAB email LF of every imported user, in the order of auth_token";

/// States of the rows whose users must be equal to the row.
const COMPARED_STATES: &[UserState] =
    &[UserState::New, UserState::Changed, UserState::Unchecked, UserState::Unchanged, UserState::AlreadyHere];

/// The checksums of both sides: SHA-256 over one line per imported user, in the order of the `auth_token`s. A
/// line is the `auth_token`, a tab, the email and a line feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checksums {
    /// How the checksums are computed.
    pub algorithm: &'static str,
    /// Number of users.
    pub users: u64,
    /// Checksum over the rows, with the emails in the form in which the store holds them.
    pub source: String,
    /// Checksum over the users in the store.
    pub store: String,
}

impl Checksums {
    /// True if the users in the store equal the rows of the source.
    #[must_use]
    pub fn agree(&self) -> bool {
        self.source == self.store
    }
}

/// Computes the checksums over the rows of the round and over their users in the store.
pub(super) async fn checksums(import: &Import, round: &mut Round) -> Result<Checksums, ImportError> {
    let (mut of_rows, mut of_users, mut users) = (Sha256::new(), Sha256::new(), 0);
    let mut after = None;
    loop {
        let page = round.survey.in_token_order(COMPARED_STATES, after, ROWS_PER_READ)?;
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

/// Returns the emails of the candidates' users, by `auth_token`.
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

/// Returns the line of a user in the checksum.
fn line(token: AuthToken, email: &str) -> String {
    format!("{token}\t{email}\n")
}
