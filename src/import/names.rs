//! Usernames: a user keeps the username of the row, character by character, unless another row or user has
//! it.

use super::{
    Import, ImportError, OnUsernameConflict,
    candidate::Candidate,
    round::{Round, needs_decision},
    row::ParsedRow,
    survey::{Duplicates, SurveyField},
};
use crate::domain::{InvalidUsername, USERNAME_CHARACTERS_MAX, Username};

/// Name of a row with an empty username; a suffix follows.
const EMPTY_NAME_BASE: &str = "user";

/// Number of the first attempt at a suffix.
const FIRST_ATTEMPT: u32 = 1;

/// Largest number of suffixes that are tried for one row.
const ATTEMPTS_MAX: u32 = 100;

/// Appends the id of the row to a name and, from the second attempt on, the number of the attempt. The result
/// is the same in every run.
fn suffixed(name: &str, row: i64, attempt: u32) -> String {
    let suffix = if attempt == FIRST_ATTEMPT { format!("-{row}") } else { format!("-{row}-{attempt}") };
    let base = if name.is_empty() { EMPTY_NAME_BASE } else { name };
    let kept = base.chars().take(USERNAME_CHARACTERS_MAX.saturating_sub(suffix.len()));
    kept.collect::<String>() + &suffix
}

/// True if `name` is one that [`suffixed`] returns for this row and the username `wanted`.
pub(super) fn is_suffixed(name: &str, wanted: &str, row: i64) -> bool {
    name.contains(&format!("-{row}"))
        && (FIRST_ATTEMPT..=ATTEMPTS_MAX).any(|attempt| name == suffixed(wanted, row, attempt))
}

/// Returns the username key, or `None` if the username breaks a rule.
fn key_of(name: &str) -> Option<String> {
    Username::parse(name).ok().map(|name| name.key().to_owned())
}

/// Gives the candidate another username and records that.
fn rename(
    round: &mut Round,
    candidate: &mut Candidate,
    name: String,
    reason: &str,
) -> Result<(), ImportError> {
    let message = format!("{:?} is renamed to {name:?}: {reason}", candidate.username);
    round.note("renamed", &[candidate.id], &message)?;
    candidate.username_key = key_of(&name);
    candidate.username = name;
    Ok(())
}

/// Ensures that the store can hold the username, and records a finding if it breaks a rule. A username that
/// the store cannot hold is replaced if `may_rename` is true; otherwise the row is refused.
pub(super) fn ensure_storable(
    round: &mut Round,
    parsed: &mut ParsedRow,
    may_rename: bool,
) -> Result<(), ImportError> {
    let Some(rule) = parsed.username_breaks else { return Ok(()) };
    let candidate = &mut parsed.candidate;
    match Username::parse_imported(&candidate.username, candidate.auth_token) {
        Ok(_) => {
            let message = format!("{:?} {rule}: it is kept, but look-ups do not find it", candidate.username);
            round.note("username_kept", &[candidate.id], &message)
        }
        Err(InvalidUsername::Empty) if may_rename => {
            let name = suffixed("", candidate.id, FIRST_ATTEMPT);
            rename(round, candidate, name, "it was empty")
        }
        Err(InvalidUsername::TooLong) if may_rename => {
            let name = suffixed(&candidate.username, candidate.id, FIRST_ATTEMPT);
            rename(round, candidate, name, "it was longer than 150 characters")
        }
        Err(rule) => round.refuse("username_impossible", &[candidate.id], &format!("its username {rule}")),
    }
}

impl Import {
    /// Resolves usernames that several rows have: the row with the smallest id keeps the username.
    pub(super) async fn resolve_duplicate_usernames(&self, round: &mut Round) -> Result<(), ImportError> {
        let mut duplicates = Duplicates::by_id(SurveyField::Username);
        while let Some((keeper, candidate)) = duplicates.next(&mut round.survey)? {
            let reason = format!("row {} has the same username", keeper.id);
            let rows = [keeper.id, candidate.id];
            self.rename_or_refuse(round, candidate, "duplicate_username", &rows, &reason).await?;
        }
        Ok(())
    }

    /// Renames a candidate or refuses it, as the operator has decided.
    pub(super) async fn rename_or_refuse(
        &self,
        round: &mut Round,
        mut candidate: Candidate,
        kind: &str,
        rows: &[i64],
        reason: &str,
    ) -> Result<Candidate, ImportError> {
        let name = match self.options.on_username_conflict {
            OnUsernameConflict::Fail => None,
            OnUsernameConflict::Suffix => self.find_free_name(round, &candidate).await?,
        };
        match name {
            None => round.refuse(kind, rows, &format!("{:?}: {reason}", candidate.username))?,
            Some(name) => rename(round, &mut candidate, name, reason)?,
        }
        round.survey.update(&candidate)?;
        Ok(candidate)
    }

    /// Returns the first suffixed username that no row and no user has, compared exactly and by username key;
    /// `None` if each of the [`ATTEMPTS_MAX`] names is taken.
    async fn find_free_name(
        &self,
        round: &mut Round,
        candidate: &Candidate,
    ) -> Result<Option<String>, ImportError> {
        for attempt in FIRST_ATTEMPT..=ATTEMPTS_MAX {
            let name = suffixed(&candidate.username, candidate.id, attempt);
            let key = key_of(&name);
            let has_key = match &key {
                Some(key) => round.survey.has_username_key(key)?,
                None => false,
            };
            if !has_key && !round.survey.has_username(&name)? && !self.is_taken(&name, key).await? {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// True if a user of the store has this username or this username key.
    async fn is_taken(&self, name: &str, key: Option<String>) -> Result<bool, ImportError> {
        let Some(store) = &self.store else { return Ok(false) };
        let holders = store.find_holders(&[], Vec::new(), vec![name.to_owned()], key.into_iter().collect());
        Ok(!holders.await?.is_empty())
    }

    /// Resolves username keys that several usernames have: the first row is found by its username. Later
    /// rows keep their usernames, with a key that no look-up uses.
    pub(super) fn resolve_duplicate_username_keys(round: &mut Round) -> Result<(), ImportError> {
        let mut duplicates = Duplicates::by_id(SurveyField::UsernameKey);
        while let Some((keeper, candidate)) = duplicates.next(&mut round.survey)? {
            let rows = [keeper.id, candidate.id];
            remove_username_key(round, candidate, &keeper.username, &rows)?;
        }
        Ok(())
    }
}

/// Removes the username key from a candidate, because another username has the same key.
pub(super) fn remove_username_key(
    round: &mut Round,
    mut candidate: Candidate,
    other: &str,
    rows: &[i64],
) -> Result<(), ImportError> {
    debug_assert!(needs_decision(&candidate), "only new and changed rows are decided");
    candidate.username_key = None;
    round.survey.update(&candidate)?;
    if candidate.username == other {
        return Ok(()); // reported as a conflict of usernames
    }
    let message = format!(
        "{other:?} and {:?} compare equal: both are kept, but look-ups find only the first",
        candidate.username
    );
    round.note("username_like_another", rows, &message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffixed_name_fits_and_is_recognized() {
        assert_eq!(suffixed("sam", 7, 1), "sam-7");
        assert_eq!(suffixed("", 7, 2), "user-7-2");
        let long = suffixed(&"名".repeat(150), 12_345, 1);
        assert_eq!(long.chars().count(), 150);
        assert!(is_suffixed(&long, &"名".repeat(150), 12_345));
        assert!(is_suffixed("sam-7", "sam", 7) && is_suffixed("sam-7-3", "sam", 7));
        assert!(!is_suffixed("sam", "sam", 7) && !is_suffixed("sam-71", "sam", 7));
    }
}
