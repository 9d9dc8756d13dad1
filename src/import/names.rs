//! Names: people keep theirs, letter by letter, as far as two can be told apart.

use super::{
    Import, ImportError, OnUsernameConflict,
    row::Reading,
    survey::{Round, is_new},
};
use crate::{
    domain::{InvalidUsername, USERNAME_CHARACTERS_MAX, Username},
    store::{Candidate, Duplicates, SurveyField},
};

/// What a row without a name is called; its number follows.
const NAMELESS: &str = "user";

/// How often a name with a number behind it may be taken too.
const ATTEMPTS_MAX: u32 = 100;

/// The same name with the row's number behind it, and that of the attempt if it is not the first: the same ones in every run.
fn suffixed(name: &str, row: i64, attempt: u32) -> String {
    let suffix = if attempt == 1 { format!("-{row}") } else { format!("-{row}-{attempt}") };
    let base = if name.is_empty() { NAMELESS } else { name };
    let kept = base.chars().take(USERNAME_CHARACTERS_MAX.saturating_sub(suffix.len()));
    kept.collect::<String>() + &suffix
}

/// Whether `name` is what a row with this number got instead of `wanted`.
pub(super) fn is_suffixed(name: &str, wanted: &str, row: i64) -> bool {
    name.contains(&format!("-{row}"))
        && (1..=ATTEMPTS_MAX).any(|attempt| name == suffixed(wanted, row, attempt))
}

fn key_of(name: &str) -> Option<String> {
    Username::parse(name).ok().map(|name| name.key().to_owned())
}

/// Gives the candidate another name.
fn rename(round: &mut Round, candidate: &mut Candidate, name: String, why: &str) -> Result<(), ImportError> {
    let words = format!("{:?} is {name:?} from now on: {why}", candidate.username);
    round.note("renamed", &[candidate.id], &words, false)?;
    candidate.username_key = key_of(&name);
    candidate.username = name;
    Ok(())
}

/// Sees that a name can stand in the store at all, and notes that it breaks a rule.
pub(super) fn make_possible(
    round: &mut Round,
    reading: &mut Reading,
    renames: bool,
) -> Result<(), ImportError> {
    let Some(rule) = reading.username_breaks else { return Ok(()) };
    let candidate = &mut reading.candidate;
    match Username::keep(&candidate.username, candidate.auth_token) {
        Ok(_) => {
            let words = format!("{:?} {rule}: it is kept, and nobody is found by it", candidate.username);
            round.note("username_kept", &[candidate.id], &words, false)
        }
        Err(InvalidUsername::Empty) if renames => {
            let name = suffixed("", candidate.id, 1);
            rename(round, candidate, name, "it was empty")
        }
        Err(InvalidUsername::TooLong) if renames => {
            let name = suffixed(&candidate.username, candidate.id, 1);
            rename(round, candidate, name, "it was longer than 150 characters")
        }
        Err(rule) => round.refuse("username_impossible", &[candidate.id], &format!("its username {rule}")),
    }
}

impl Import {
    /// Lets every name be there once: of rows with the same letters the one with the smallest key keeps it.
    pub(super) async fn tell_names_apart(&self, round: &mut Round) -> Result<(), ImportError> {
        let mut duplicates = Duplicates::of(SurveyField::Username, false);
        while let Some((keeper, candidate)) = duplicates.next(&mut round.survey)? {
            let why = format!("row {} has the same", keeper.id);
            let rows = [keeper.id, candidate.id];
            self.give_other_name(round, candidate, "duplicate_username", &rows, &why).await?;
        }
        Ok(())
    }

    /// Renames a candidate, or refuses it, as the operator has decided.
    pub(super) async fn give_other_name(
        &self,
        round: &mut Round,
        mut candidate: Candidate,
        kind: &str,
        rows: &[i64],
        why: &str,
    ) -> Result<Candidate, ImportError> {
        let name = match self.options.on_username_conflict {
            OnUsernameConflict::Fail => None,
            OnUsernameConflict::Suffix => self.free_name(round, &candidate).await?,
        };
        match name {
            None => round.refuse(kind, rows, &format!("{:?}: {why}", candidate.username))?,
            Some(name) => rename(round, &mut candidate, name, why)?,
        }
        round.survey.decide(&candidate)?;
        Ok(candidate)
    }

    /// The name with the row's number behind it, which nobody has and which compares equal to nobody's.
    async fn free_name(
        &self,
        round: &mut Round,
        candidate: &Candidate,
    ) -> Result<Option<String>, ImportError> {
        for attempt in 1..=ATTEMPTS_MAX {
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

    async fn is_taken(&self, name: &str, key: Option<String>) -> Result<bool, ImportError> {
        let Some(store) = &self.store else { return Ok(false) };
        let holders = store.find_holders(&[], Vec::new(), vec![name.to_owned()], key.into_iter().collect());
        Ok(!holders.await?.is_empty())
    }

    /// Lets every form that names are compared by be there once: who comes later keeps the name, under a key that nobody looks for.
    pub(super) fn tell_keys_apart(round: &mut Round) -> Result<(), ImportError> {
        let mut duplicates = Duplicates::of(SurveyField::UsernameKey, false);
        while let Some((keeper, candidate)) = duplicates.next(&mut round.survey)? {
            let rows = [keeper.id, candidate.id];
            hide(round, candidate, &keeper.username, &rows)?;
        }
        Ok(())
    }
}

/// Takes the key from a candidate whose name compares equal to another's.
pub(super) fn hide(
    round: &mut Round,
    mut candidate: Candidate,
    other: &str,
    rows: &[i64],
) -> Result<(), ImportError> {
    debug_assert!(is_new(&candidate), "nobody else is decided on");
    candidate.username_key = None;
    round.survey.decide(&candidate)?;
    if candidate.username == other {
        return Ok(()); // a conflict of its own
    }
    let words = format!(
        "{other:?} and {:?} compare equal: both are kept, and only the first is found by its name",
        candidate.username
    );
    round.note("username_like_another", rows, &words, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_behind_a_name_fits_and_is_known_again() {
        assert_eq!(suffixed("sam", 7, 1), "sam-7");
        assert_eq!(suffixed("", 7, 2), "user-7-2");
        let long = suffixed(&"名".repeat(150), 12_345, 1);
        assert_eq!(long.chars().count(), 150);
        assert!(is_suffixed(&long, &"名".repeat(150), 12_345));
        assert!(is_suffixed("sam-7", "sam", 7) && is_suffixed("sam-7-3", "sam", 7));
        assert!(!is_suffixed("sam", "sam", 7) && !is_suffixed("sam-71", "sam", 7));
    }
}
