//! Conflicts: values that two rows, or a row and a user, cannot both have. They are resolved as the operator
//! has decided.

use super::{
    Import, ImportError, OnEmailConflict, OnTokenConflict,
    candidate::{Candidate, UserState},
    names::remove_username_key,
    records::Holder,
    round::Round,
    row::digest_of_hash,
    survey::{Duplicates, SurveyField},
};
use crate::domain::AuthToken;

/// Number of rows that are compared with the store together.
const CANDIDATES_PER_READ: i64 = 500;

impl Import {
    /// Decides what becomes of every row. Returns the number of open conflicts.
    pub(super) async fn decide(&self, round: &mut Round) -> Result<u64, ImportError> {
        self.reconsider_left_out(round).await?;
        self.resolve_duplicate_emails(round)?;
        self.resolve_duplicate_tokens(round)?;
        self.resolve_duplicate_usernames(round).await?;
        Self::resolve_duplicate_username_keys(round)?;
        self.compare_with_store(round).await?;
        round.survey.apply_refusals()?;
        Ok(round.survey.count_open_findings()?.iter().map(|(_, count)| count).sum())
    }

    /// Makes rows that an earlier run left out new again if no user or row has their email any more.
    pub(super) async fn reconsider_left_out(&self, round: &mut Round) -> Result<(), ImportError> {
        let mut after = None;
        loop {
            let candidates =
                round.survey.in_states(&[UserState::LeftOutBefore], after, CANDIDATES_PER_READ)?;
            let Some(last) = candidates.last() else { return Ok(()) };
            after = Some(last.id);
            let holders = self.find_holders(&candidates).await?;
            for mut candidate in candidates {
                let holder = holders.iter().find(|holder| holder.user.email == candidate.email);
                let stays = match holder {
                    // If the holder's own row is gone from the source, the row becomes new, so that the
                    // conflict is reported.
                    Some(holder) if !round.survey.has_change_of(holder.user.id)? => {
                        !is_absent_from_source(round, holder)?
                    }
                    Some(_) | None => round.survey.has_email(&candidate.email)?,
                };
                if !stays {
                    candidate.state = UserState::New;
                    round.survey.update(&candidate)?;
                }
            }
        }
    }

    /// Compares rows with their users: rows that no import has recorded, as those of an export, and rows
    /// whose users have changed here since their import.
    pub(super) async fn compare_with_users(&self, round: &mut Round) -> Result<(), ImportError> {
        let mut after = None;
        loop {
            let states = &[UserState::New, UserState::ChangedHere];
            let candidates = round.survey.in_states(states, after, CANDIDATES_PER_READ)?;
            let Some(last) = candidates.last() else { return Ok(()) };
            after = Some(last.id);
            let holders = self.find_holders(&candidates).await?;
            for mut candidate in candidates {
                for holder in &holders {
                    let is_recorded = candidate.user == Some(holder.user.id);
                    if is_recorded || is_already_here(round, &candidate, holder)? {
                        candidate.state = match (is_equal(&candidate, holder), is_recorded) {
                            (true, _) => UserState::AlreadyHere,
                            (false, true) => UserState::ChangedHere,
                            (false, false) => UserState::Changed,
                        };
                        candidate.user = Some(holder.user.id);
                        round.survey.update(&candidate)?;
                    }
                }
            }
        }
    }

    /// Resolves emails that several rows have.
    fn resolve_duplicate_emails(&self, round: &mut Round) -> Result<(), ImportError> {
        // With `Fail` no row is left out: the order then only decides which row the report names as the one
        // in conflict.
        let mut duplicates = match self.options.on_email_conflict {
            OnEmailConflict::KeepOldest => Duplicates::by_id(SurveyField::Email),
            OnEmailConflict::Fail | OnEmailConflict::KeepVerified => {
                Duplicates::verified_first(SurveyField::Email)
            }
        };
        while let Some((keeper, candidate)) = duplicates.next(&mut round.survey)? {
            let rows = [keeper.id, candidate.id];
            let message = format!("{:?}: row {} has the same email", candidate.email.as_str(), keeper.id);
            self.leave_out_or_refuse(round, candidate, "duplicate_email", &rows, &message)?;
        }
        Ok(())
    }

    /// Leaves a row out or refuses it, as the operator has decided.
    fn leave_out_or_refuse(
        &self,
        round: &mut Round,
        mut candidate: Candidate,
        kind: &str,
        rows: &[i64],
        message: &str,
    ) -> Result<(), ImportError> {
        // A row that already has a user is refused instead of left out.
        if self.options.on_email_conflict == OnEmailConflict::Fail || candidate.user.is_some() {
            return round.refuse(kind, rows, message);
        }
        candidate.state = UserState::LeftOut;
        round.survey.update(&candidate)?;
        round.note(kind, rows, &format!("{message}; row {} is left out", candidate.id))
    }

    /// Resolves `auth_token`s that several rows have.
    fn resolve_duplicate_tokens(&self, round: &mut Round) -> Result<(), ImportError> {
        let mut duplicates = Duplicates::verified_first(SurveyField::AuthToken);
        while let Some((keeper, candidate)) = duplicates.next(&mut round.survey)? {
            // A row that already has a user keeps the `auth_token`. Others are compared with that user in
            // `compare_with_store`.
            if candidate.user.is_none() {
                let rows = [keeper.id, candidate.id];
                let reason = format!("row {} has the same auth_token", keeper.id);
                self.renew_token(round, candidate, &rows, &reason)?;
            }
        }
        Ok(())
    }

    /// Gives a row a new `auth_token` or refuses it, as the operator has decided.
    fn renew_token(
        &self,
        round: &mut Round,
        mut candidate: Candidate,
        rows: &[i64],
        reason: &str,
    ) -> Result<(), ImportError> {
        let old = candidate.auth_token;
        match self.options.on_token_conflict {
            OnTokenConflict::Fail => round.refuse("duplicate_auth_token", rows, &format!("{old}: {reason}")),
            OnTokenConflict::Renew => {
                candidate.auth_token = AuthToken::from_random(self.env.entropy.bytes());
                round.survey.update(&candidate)?;
                let message = format!(
                    "row {} gets the new auth_token {} instead of {old}: {reason}",
                    candidate.id, candidate.auth_token
                );
                round.note("duplicate_auth_token", rows, &message)
            }
        }
    }

    /// Finds the conflicts between rows and users of the store.
    async fn compare_with_store(&self, round: &mut Round) -> Result<(), ImportError> {
        let mut after = None;
        loop {
            let candidates =
                round.survey.in_states(&[UserState::New, UserState::Changed], after, CANDIDATES_PER_READ)?;
            let Some(last) = candidates.last() else { return Ok(()) };
            after = Some(last.id);
            let holders = self.find_holders(&candidates).await?;
            for candidate in candidates {
                self.compare_with(round, candidate, &holders).await?;
            }
        }
    }

    /// Finds the conflicts between a row and the users that have a value in common with it.
    async fn compare_with(
        &self,
        round: &mut Round,
        mut candidate: Candidate,
        holders: &[Holder],
    ) -> Result<(), ImportError> {
        let is_other = |holder: &&Holder| Some(holder.user.id) != candidate.user;
        let others: Vec<&Holder> = holders.iter().filter(is_other).collect();
        let row = [candidate.id];
        if let Some(holder) = others.iter().find(|holder| holder.user.email == candidate.email) {
            if is_already_here(round, &candidate, holder)? {
                candidate.user = Some(holder.user.id);
                candidate.state = UserState::AlreadyHere;
                round.survey.update(&candidate)?;
                let message =
                    format!("user {} is already in the store and stays unchanged", candidate.auth_token);
                return round.note("already_here", &row, &message);
            }
            // A user that is about to get another email is not in the way.
            if !round.survey.has_change_of(holder.user.id)? {
                return self.resolve_taken_email(round, candidate, holder);
            }
        }
        if let Some(holder) = others.iter().find(|holder| holder.user.auth_token == candidate.auth_token) {
            if holder.source_row.is_some() {
                self.renew_token(round, candidate.clone(), &row, "a user in the store has it")?;
                candidate = round.survey.find(candidate.id)?.unwrap_or(candidate);
            } else {
                let message = format!("user {} in the store has another email", candidate.auth_token);
                round.refuse("auth_token_taken_here", &row, &message)?;
            }
        }
        let by_name = others.iter().find(|holder| holder.user.username.as_str() == candidate.username);
        if let Some(holder) = by_name
            && !round.survey.has_change_of(holder.user.id)?
        {
            let reason = "a user in the store has it";
            candidate = self.rename_or_refuse(round, candidate, "username_taken_here", &row, reason).await?;
        }
        let key = candidate.username_key.as_deref();
        if let Some(holder) = others.iter().find(|holder| Some(holder.user.username.key()) == key)
            && !round.survey.has_change_of(holder.user.id)?
        {
            remove_username_key(round, candidate, holder.user.username.as_str(), &row)?;
        }
        Ok(())
    }

    /// Resolves an email that a row and a user of the store have.
    fn resolve_taken_email(
        &self,
        round: &mut Round,
        candidate: Candidate,
        holder: &Holder,
    ) -> Result<(), ImportError> {
        let row = [candidate.id];
        let token = holder.user.auth_token;
        let message = format!("{:?}: user {token} in the store has it", candidate.email.as_str());
        let way_out = format!("`kairos-identity user delete {token}` frees the email");
        if candidate.is_verified && !holder.user.is_verified {
            let message = format!("{message} and has not verified it, but the row has: {way_out}");
            return round.refuse("email_taken_here", &row, &message);
        }
        if holder.source_row.is_some() && is_absent_from_source(round, holder)? {
            let message =
                format!("{message} and was imported from a row that is no longer in the source: {way_out}");
            return round.refuse("email_taken_here", &row, &message);
        }
        self.leave_out_or_refuse(round, candidate, "email_taken_here", &row, &message)
    }
}

/// True if the row is as an export writes the user. The password of a disabled user is not compared, because
/// an export replaces it.
fn is_equal(candidate: &Candidate, holder: &Holder) -> bool {
    let Holder { user, password, .. } = holder;
    candidate.auth_token == user.auth_token
        && candidate.email == user.email
        && candidate.username == user.username.as_str()
        && candidate.is_verified == user.is_verified
        && (user.is_disabled || candidate.password_digest == digest_of_hash(password.expose()))
}

/// True if the holder is the row's own user, although no import has recorded the row.
fn is_already_here(round: &mut Round, candidate: &Candidate, holder: &Holder) -> Result<bool, ImportError> {
    let is_same_user = holder.user.email == candidate.email && holder.user.auth_token == candidate.auth_token;
    Ok(is_same_user && is_absent_from_source(round, holder)?)
}

/// True if the source has no row of the user: the row was deleted, or the user was not imported.
fn is_absent_from_source(round: &mut Round, holder: &Holder) -> Result<bool, ImportError> {
    holder.source_row.map_or(Ok(true), |row| Ok(!round.survey.has_row(row)?))
}
