//! The first half of a round: reads every row and compares it with the record of its earlier import.

use std::collections::{BTreeMap, HashMap};

use super::{
    Import, ImportError, OnUsernameConflict, Progress,
    error::of_source,
    names,
    records::{Holder, ImportedRow},
    round::{ROWS_PER_READ, Round, needs_decision},
    row::{ParsedRow, is_too_long},
};
use super::{
    candidate::{Candidate, SourceRow, UserState},
    survey::Survey,
};
use crate::{
    django::{DjangoRow, DjangoSource},
    domain::{AuthToken, PasswordHash, User},
    password::StoredPassword,
};

impl Import {
    /// Reads all rows of the source into a new survey.
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
            without_times: 0,
            now: self.env.clock.now(),
        };
        source.require_same_file()?;
        progress.begin("reading", source.count().await.map_err(of_source)?);
        let mut after = None;
        loop {
            let rows = source.rows(after, ROWS_PER_READ).await.map_err(of_source)?;
            let Some(last) = rows.last() else { break };
            after = Some(last.id);
            self.read_page(&mut round, &rows).await?;
            progress.advance(rows.len() as u64);
        }
        progress.end();
        Ok(round)
    }

    /// Parses rows, compares them with the records of earlier imports, and adds them to the survey.
    async fn read_page(&self, round: &mut Round, rows: &[DjangoRow]) -> Result<(), ImportError> {
        let mut parsed_rows = Vec::with_capacity(rows.len());
        for row in rows {
            round.rows += 1;
            match ParsedRow::parse(row, &self.key) {
                Ok(parsed) => parsed_rows.push((row, parsed)),
                Err(reason) => {
                    round.unreadable += 1;
                    round.refuse("unreadable", &[row.id], &reason.to_string())?;
                }
            }
        }
        let tokens: Vec<AuthToken> =
            parsed_rows.iter().map(|(_, parsed)| parsed.candidate.auth_token).collect();
        let remembered = self.find_imported(&tokens).await?;

        let mut candidates = Vec::with_capacity(parsed_rows.len());
        for (row, mut parsed) in parsed_rows {
            let key = SourceRow { auth_token: parsed.candidate.auth_token, id: row.id };
            let remembered = remembered.get(&key);
            compare(row, &mut parsed, remembered);
            self.note_row(round, row, &mut parsed, remembered)?;
            *round.passwords.entry(parsed.password.name()).or_default() += 1;
            round.without_times += u64::from(parsed.times == (None, None));
            candidates.push(parsed.candidate);
        }
        round.survey.add(&candidates)?;
        Ok(())
    }

    /// Records findings about a row, whether it becomes a user now or has become one before. A new or changed
    /// row with a username that the store cannot hold gets another one, or is refused.
    fn note_row(
        &self,
        round: &mut Round,
        row: &DjangoRow,
        parsed: &mut ParsedRow,
        remembered: Option<&ImportedRow>,
    ) -> Result<(), ImportError> {
        match parsed.candidate.state {
            UserState::ChangedHere => return note_changed_row(round, row, parsed, remembered),
            UserState::DeletedHere => return Ok(()),
            UserState::LeftOutBefore => {
                let message = format!("{:?}: left out by an earlier run", parsed.candidate.email.as_str());
                return round.note("left_out_before", &[row.id], &message);
            }
            _ => {}
        }
        note_email(round, row, parsed)?;
        if parsed.has_text_flag {
            let text = row.is_verified.as_deref().unwrap_or_default();
            let message = format!(
                "its is_verified is the text {text:?}: it is read as {}",
                parsed.candidate.is_verified
            );
            round.note("is_verified_text", &[row.id], &message)?;
        }
        note_password(round, row, parsed)?;
        if let Some((user, _)) = remembered.and_then(|remembered| remembered.user.as_ref()) {
            note_earlier_changes(round, row, parsed, user)?;
        }
        if needs_decision(&parsed.candidate) {
            let may_rename = self.options.on_username_conflict == OnUsernameConflict::Suffix;
            names::ensure_storable(round, parsed, may_rename)?;
        }
        Ok(())
    }

    /// Returns the import records of rows with these `auth_token`s.
    pub(super) async fn find_imported(
        &self,
        tokens: &[AuthToken],
    ) -> Result<HashMap<SourceRow, ImportedRow>, ImportError> {
        let Some(store) = &self.store else { return Ok(HashMap::new()) };
        let rows = store.find_imported(tokens).await?;
        Ok(rows.into_iter().map(|row| (row.source_row, row)).collect())
    }

    /// Returns the users that have a value in common with one of the candidates.
    pub(super) async fn find_holders(&self, candidates: &[Candidate]) -> Result<Vec<Holder>, ImportError> {
        let Some(store) = &self.store else { return Ok(Vec::new()) };
        let tokens: Vec<AuthToken> = candidates.iter().map(|candidate| candidate.auth_token).collect();
        let emails = candidates.iter().map(|candidate| candidate.email.as_str().to_owned()).collect();
        let usernames = candidates.iter().map(|candidate| candidate.username.clone()).collect();
        let keys = candidates.iter().filter_map(|candidate| candidate.username_key.clone()).collect();
        Ok(store.find_holders(&tokens, emails, usernames, keys).await?)
    }
}

/// Records that the email is kept although it breaks a rule, or is stored in another form.
fn note_email(round: &mut Round, row: &DjangoRow, parsed: &ParsedRow) -> Result<(), ImportError> {
    let email = parsed.candidate.email.as_str();
    if let Some(rule) = parsed.email_breaks {
        let message = format!("{email:?} {rule}: it is kept; the user can log in with it but gets no mail");
        return round.note("email_kept", &[row.id], &message);
    }
    if row.email.as_deref() != Some(email) {
        let message = format!("{:?} is stored as {email:?}", row.email.as_deref().unwrap_or_default());
        round.note("email_respelled", &[row.id], &message)?;
    }
    Ok(())
}

/// Records what the user or the operator must know about the password.
fn note_password(round: &mut Round, row: &DjangoRow, parsed: &ParsedRow) -> Result<(), ImportError> {
    let plaintext = row.password.as_deref().unwrap_or_default();
    let (kind, message) = match parsed.password {
        StoredPassword::Hash("md5") => ("weak_hash", "md5: it is replaced at the next login"),
        StoredPassword::TooExpensive => {
            ("expensive_hash", "its cost exceeds the limit of this service: the user needs a password reset")
        }
        StoredPassword::Unusable => ("no_password", "it is unusable: the user needs a password reset"),
        StoredPassword::Empty => ("no_password", "it is empty: the user needs a password reset"),
        StoredPassword::Plaintext if is_too_long(plaintext) => {
            ("no_password", "it is longer than 4096 bytes: the user needs a password reset")
        }
        StoredPassword::Plaintext if StoredPassword::resembles_hash(plaintext) => (
            "password_like_hash",
            "it looks like a hash but has no supported format: it is imported as a plaintext password",
        ),
        StoredPassword::Hash(_) | StoredPassword::Plaintext => return Ok(()),
    };
    round.note(kind, &[row.id], message)
}

/// Records that an earlier run gave the user another `auth_token` or username than the row has.
fn note_earlier_changes(
    round: &mut Round,
    row: &DjangoRow,
    parsed: &ParsedRow,
    user: &User,
) -> Result<(), ImportError> {
    let candidate = &parsed.candidate;
    if user.auth_token != candidate.row_token {
        let message = format!("{} is {} in the store", candidate.row_token, user.auth_token);
        round.note("renewed_before", &[row.id], &message)?;
    }
    let wanted = row.username.as_deref().unwrap_or_default();
    if user.username.as_str() != wanted && candidate.state != UserState::Changed {
        let message = format!("{wanted:?} is {:?} in the store", user.username.as_str());
        round.note("renamed_before", &[row.id], &message)?;
    }
    Ok(())
}

/// True if the row has the password of its earlier import, or its user's own hash, as after an export to
/// Django and back. A plaintext password that was recorded under another secret key counts as another one.
fn is_same_password(
    row: &DjangoRow,
    candidate: &Candidate,
    remembered: &ImportedRow,
    hash: &PasswordHash,
) -> bool {
    remembered.password_digest == candidate.password_digest || row.password.as_deref() == Some(hash.expose())
}

/// Records a finding if a row has changed whose user has changed here.
fn note_changed_row(
    round: &mut Round,
    row: &DjangoRow,
    parsed: &ParsedRow,
    remembered: Option<&ImportedRow>,
) -> Result<(), ImportError> {
    let Some(remembered) = remembered else { return Ok(()) };
    let Some((_, hash)) = &remembered.user else { return Ok(()) };
    let (kind, message) = if remembered.row_digest != parsed.candidate.row_digest {
        ("changed_on_both_sides", "the row and its user have both changed: the user stays unchanged")
    } else if is_same_password(row, &parsed.candidate, remembered, hash) {
        return Ok(());
    } else if parsed.password == StoredPassword::Plaintext {
        // Its digest may have been made with another key, and the user's hash may be that of a new password.
        (
            "password_not_compared",
            "its user has changed: whether the password of the row has changed too is unknown; the user stays unchanged",
        )
    } else {
        (
            "changed_on_both_sides",
            "the password of the row and its user have both changed: the user stays unchanged",
        )
    };
    round.note(kind, &[row.id], message)
}

/// Compares a row with the record of its earlier import and sets its state. If its user still exists, also
/// sets the user, the user's `auth_token` and, where the user keeps it, the username. A row without a record
/// stays new.
fn compare(row: &DjangoRow, parsed: &mut ParsedRow, remembered: Option<&ImportedRow>) {
    let Some(remembered) = remembered else { return };
    let candidate = &mut parsed.candidate;
    let is_same_row = remembered.row_digest == candidate.row_digest;
    let Some((user, hash)) = &remembered.user else {
        candidate.state = match (remembered.is_left_out, is_same_row) {
            (true, true) => UserState::LeftOutBefore,
            (true, false) => UserState::New,
            (false, _) => UserState::DeletedHere,
        };
        return;
    };
    candidate.user = Some(user.id);
    candidate.auth_token = user.auth_token;
    // The user keeps the username that an earlier run has chosen for the row.
    if is_same_row || names::is_suffixed(user.username.as_str(), &candidate.username, candidate.id) {
        user.username.as_str().clone_into(&mut candidate.username);
        candidate.username_key = Some(user.username.key().to_owned());
    }
    let is_same_password = is_same_password(row, candidate, remembered, hash);
    candidate.state = if remembered.is_changed_since_import() {
        UserState::ChangedHere
    } else if !is_same_row {
        UserState::Changed
    } else if is_same_password {
        UserState::Unchanged
    } else if parsed.password == StoredPassword::Plaintext {
        UserState::Unchecked
    } else {
        UserState::Changed
    };
}
