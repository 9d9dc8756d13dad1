//! The first half of a round: reading every row, and what is remembered of it.

use std::collections::{BTreeMap, HashMap};

use super::{
    Import, ImportError, OnUsernameConflict, Progress,
    error::of_source,
    names,
    row::{Reading, is_too_long},
};
use crate::{
    domain::{AuthToken, Timestamp},
    password::StoredPassword,
    store::{Candidate, DjangoRow, DjangoSource, Holder, ImportedRow, Survey, UserState},
};

/// Rows that are read together.
pub(super) const PAGE: i64 = 1_000;

/// All that is known of the source at one moment.
pub(super) struct Round {
    pub(super) survey: Survey,
    /// How many rows there are of each kind of password.
    pub(super) passwords: BTreeMap<&'static str, u64>,
    pub(super) rows: u64,
    /// Rows of which no user can be made.
    pub(super) unreadable: u64,
    /// Rows without times of their own.
    pub(super) timeless: u64,
    /// When it began: the time of rows that have none.
    pub(super) now: Timestamp,
}

impl Import {
    /// Reads the source.
    pub(super) async fn begin_round(
        &self,
        source: &mut DjangoSource,
        progress: &mut impl Progress,
    ) -> Result<Round, ImportError> {
        let mut round = Round {
            survey: Survey::begin()?,
            passwords: BTreeMap::new(),
            rows: 0,
            unreadable: 0,
            timeless: 0,
            now: self.clock.now(),
        };
        progress.begin("reading", source.count().await.map_err(of_source)?);
        let mut after = None;
        loop {
            let rows = source.rows(after, PAGE).await.map_err(of_source)?;
            let Some(last) = rows.last() else { break };
            after = Some(last.id);
            self.read_page(&mut round, &rows).await?;
            progress.advance(rows.len() as u64);
        }
        progress.end();
        Ok(round)
    }

    async fn read_page(&self, round: &mut Round, rows: &[DjangoRow]) -> Result<(), ImportError> {
        let mut readings = Vec::with_capacity(rows.len());
        for row in rows {
            round.rows += 1;
            match Reading::of(row, self.key.as_deref()) {
                Ok(reading) => readings.push((row, reading)),
                Err(reason) => {
                    round.unreadable += 1;
                    round.refuse("unreadable", &[row.id], &reason.to_string())?;
                }
            }
        }
        let tokens: Vec<AuthToken> =
            readings.iter().map(|(_, reading)| reading.candidate.auth_token).collect();
        let remembered = self.find_imported(&tokens).await?;

        let mut candidates = Vec::with_capacity(readings.len());
        for (row, mut reading) in readings {
            let key = (reading.candidate.auth_token, row.id);
            compare(&mut reading, remembered.get(&key));
            if is_new(&reading.candidate) {
                self.tell(round, row, &mut reading)?;
            }
            *round.passwords.entry(reading.password.name()).or_default() += 1;
            round.timeless += u64::from(reading.times == (None, None));
            candidates.push(reading.candidate);
        }
        round.survey.add(&candidates)?;
        Ok(())
    }

    /// Notes what an operator should know of a row that becomes a user.
    fn tell(&self, round: &mut Round, row: &DjangoRow, reading: &mut Reading) -> Result<(), ImportError> {
        let row_id = &[row.id];
        let email = reading.candidate.email.as_str();
        if let Some(rule) = reading.email_breaks {
            let words =
                format!("{email:?} {rule}: it is kept, its owner can log in with it, and no mail reaches it");
            round.note("email_kept", row_id, &words, false)?;
        } else if row.email.as_deref() != Some(email) {
            let words = format!("{:?} is {email:?} from now on", row.email.as_deref().unwrap_or_default());
            round.note("email_respelled", row_id, &words, false)?;
        }
        let is_too_long = row.password.as_deref().is_some_and(is_too_long);
        let finding = match reading.password {
            StoredPassword::Hash("md5") => Some(("weak_hash", "md5: until their next login")),
            StoredPassword::TooExpensive => {
                Some(("expensive_hash", "it is not computed here: they need a reset"))
            }
            StoredPassword::Unusable => Some(("no_password", "it is unusable: they need a reset")),
            StoredPassword::Empty => Some(("no_password", "it is empty: they need a reset")),
            StoredPassword::Plaintext if is_too_long => {
                Some(("no_password", "it is longer than 4096 bytes: they need a reset"))
            }
            StoredPassword::Hash(_) | StoredPassword::Plaintext => None,
        };
        if let Some((kind, words)) = finding {
            round.note(kind, row_id, words, false)?;
        }
        let renames = self.options.on_username_conflict == OnUsernameConflict::Suffix;
        names::make_possible(round, reading, renames)
    }

    /// What is remembered of rows with these `auth_token`s.
    pub(super) async fn find_imported(
        &self,
        tokens: &[AuthToken],
    ) -> Result<HashMap<(AuthToken, i64), ImportedRow>, ImportError> {
        let Some(store) = &self.store else { return Ok(HashMap::new()) };
        let rows = store.find_imported(tokens).await?;
        Ok(rows.into_iter().map(|row| ((row.auth_token, row.source_id), row)).collect())
    }

    /// Users who have something in common with one of the candidates.
    pub(super) async fn find_holders(&self, candidates: &[Candidate]) -> Result<Vec<Holder>, ImportError> {
        let Some(store) = &self.store else { return Ok(Vec::new()) };
        let tokens: Vec<AuthToken> = candidates.iter().map(|candidate| candidate.auth_token).collect();
        let emails = candidates.iter().map(|candidate| candidate.email.as_str().to_owned()).collect();
        let usernames = candidates.iter().map(|candidate| candidate.username.clone()).collect();
        let keys = candidates.iter().filter_map(|candidate| candidate.username_key.clone()).collect();
        Ok(store.find_holders(&tokens, emails, usernames, keys).await?)
    }
}

impl Round {
    /// Notes something of rows; what is open stops the import.
    pub(super) fn note(
        &mut self,
        kind: &str,
        rows: &[i64],
        words: &str,
        is_open: bool,
    ) -> Result<(), ImportError> {
        let rows: Vec<String> = rows.iter().map(i64::to_string).collect();
        Ok(self.survey.note(kind, &rows.join(","), words, is_open)?)
    }

    /// Notes a conflict of the last of these rows that nobody has decided on: the row is kept out, and what else is wrong with it is still found.
    pub(super) fn refuse(&mut self, kind: &str, rows: &[i64], words: &str) -> Result<(), ImportError> {
        if let Some(row) = rows.last() {
            self.survey.refuse(*row)?;
        }
        self.note(kind, rows, words, true)
    }
}

/// Whether it is to be decided what becomes of it.
pub(super) fn is_new(candidate: &Candidate) -> bool {
    matches!(candidate.state, UserState::New | UserState::Changed)
}

/// Says what becomes of a row by what is remembered of it.
fn compare(reading: &mut Reading, remembered: Option<&ImportedRow>) {
    let Some(remembered) = remembered else { return };
    let candidate = &mut reading.candidate;
    let is_same_row = remembered.row_digest == candidate.row_digest;
    let Some((user, _)) = &remembered.user else {
        candidate.state = match (remembered.is_left_out, is_same_row) {
            (true, true) => UserState::LeftOutBefore,
            (true, false) => UserState::New,
            (false, _) => UserState::DeletedHere,
        };
        return;
    };
    candidate.user = Some(user.id);
    candidate.auth_token = user.auth_token;
    if names::is_suffixed(user.username.as_str(), &candidate.username, candidate.id) {
        user.username.as_str().clone_into(&mut candidate.username);
        candidate.username_key = Some(user.username.key().to_owned());
    }
    candidate.state = if remembered.is_changed_here() {
        UserState::ChangedHere
    } else if !is_same_row {
        UserState::Changed
    } else {
        match (remembered.password_digest, candidate.password_digest) {
            (Some(then), Some(now)) if then == now => UserState::Unchanged,
            (Some(_), Some(_)) => UserState::Changed,
            _ if reading.password == StoredPassword::Plaintext => UserState::Unchecked,
            _ => UserState::Changed,
        }
    };
}
