//! What two rows, or a row and a user, cannot both have; and what becomes of them as the operator has decided.

use super::{Import, ImportError, OnEmailConflict, OnTokenConflict, names::hide, survey::Round};
use crate::{
    domain::AuthToken,
    store::{Candidate, Duplicates, Holder, SurveyField, UserState},
};

/// Candidates that are compared with the store together.
const PAGE: i64 = 500;

impl Import {
    /// Decides what becomes of every row; gives how many conflicts are open.
    pub(super) async fn decide(&self, round: &mut Round) -> Result<u64, ImportError> {
        self.reconsider_left_out(round).await?;
        self.tell_emails_apart(round)?;
        self.tell_tokens_apart(round)?;
        self.tell_names_apart(round).await?;
        Self::tell_keys_apart(round)?;
        self.compare_with_store(round).await?;
        round.survey.settle()?;
        Ok(round.survey.count_findings(true)?.iter().map(|(_, count)| count).sum())
    }

    /// Lets rows that were left out for another one become users after all, if nobody has their email any more.
    pub(super) async fn reconsider_left_out(&self, round: &mut Round) -> Result<(), ImportError> {
        let mut after = None;
        loop {
            let candidates = round.survey.in_states(&[UserState::LeftOutBefore], after, PAGE)?;
            let Some(last) = candidates.last() else { return Ok(()) };
            after = Some(last.id);
            let holders = self.find_holders(&candidates).await?;
            for mut candidate in candidates {
                let holder = holders.iter().find(|holder| holder.user.email == candidate.email);
                let stays = match holder {
                    // Whose own row is gone is a conflict to be told.
                    Some(holder) if !round.survey.changes(holder.user.id)? => !is_gone(round, holder)?,
                    Some(_) | None => round.survey.has_email(&candidate.email)?,
                };
                if !stays {
                    candidate.state = UserState::New;
                    round.survey.decide(&candidate)?;
                }
            }
        }
    }

    fn tell_emails_apart(&self, round: &mut Round) -> Result<(), ImportError> {
        let verified_first = self.options.on_email_conflict != OnEmailConflict::KeepOldest;
        let mut duplicates = Duplicates::of(SurveyField::Email, verified_first);
        while let Some((keeper, candidate)) = duplicates.next(&mut round.survey)? {
            let rows = [keeper.id, candidate.id];
            let words = format!("{:?}: row {} has the same", candidate.email.as_str(), keeper.id);
            self.give_up_email(round, candidate, "duplicate_email", &rows, &words)?;
        }
        Ok(())
    }

    /// Leaves a row out, or refuses it.
    fn give_up_email(
        &self,
        round: &mut Round,
        mut candidate: Candidate,
        kind: &str,
        rows: &[i64],
        words: &str,
    ) -> Result<(), ImportError> {
        // Who is a user already is not left out by an email that they cannot have.
        if self.options.on_email_conflict == OnEmailConflict::Fail || candidate.user.is_some() {
            return round.refuse(kind, rows, words);
        }
        candidate.state = UserState::LeftOut;
        round.survey.decide(&candidate)?;
        round.note(kind, rows, &format!("{words}; row {} is left out", candidate.id), false)
    }

    fn tell_tokens_apart(&self, round: &mut Round) -> Result<(), ImportError> {
        let mut duplicates = Duplicates::of(SurveyField::AuthToken, true);
        while let Some((keeper, candidate)) = duplicates.next(&mut round.survey)? {
            // Who is a user has it already: whoever else wants it finds them here.
            if candidate.user.is_none() {
                let rows = [keeper.id, candidate.id];
                let why = format!("row {} has the same", keeper.id);
                self.renew_token(round, candidate, &rows, &why)?;
            }
        }
        Ok(())
    }

    fn renew_token(
        &self,
        round: &mut Round,
        mut candidate: Candidate,
        rows: &[i64],
        why: &str,
    ) -> Result<(), ImportError> {
        let old = candidate.auth_token;
        match self.options.on_token_conflict {
            OnTokenConflict::Fail => round.refuse("duplicate_auth_token", rows, &format!("{old}: {why}")),
            OnTokenConflict::Renew => {
                candidate.auth_token = AuthToken::from_random(self.entropy.bytes());
                round.survey.decide(&candidate)?;
                let words =
                    format!("{old} is {} from now on for row {}: {why}", candidate.auth_token, candidate.id);
                round.note("duplicate_auth_token", rows, &words, false)
            }
        }
    }

    /// Finds what users of the store stand in the way.
    async fn compare_with_store(&self, round: &mut Round) -> Result<(), ImportError> {
        let mut after = None;
        loop {
            let candidates = round.survey.in_states(&[UserState::New, UserState::Changed], after, PAGE)?;
            let Some(last) = candidates.last() else { return Ok(()) };
            after = Some(last.id);
            let holders = self.find_holders(&candidates).await?;
            for candidate in candidates {
                self.compare_with(round, candidate, &holders).await?;
            }
        }
    }

    async fn compare_with(
        &self,
        round: &mut Round,
        mut candidate: Candidate,
        holders: &[Holder],
    ) -> Result<(), ImportError> {
        let of = |holder: &&Holder| Some(holder.user.id) != candidate.user;
        let others: Vec<&Holder> = holders.iter().filter(of).collect();
        let row = [candidate.id];
        if let Some(holder) = others.iter().find(|holder| holder.user.email == candidate.email) {
            if holder.user.auth_token == candidate.auth_token && is_gone(round, holder)? {
                candidate.user = Some(holder.user.id);
                candidate.state = UserState::AlreadyHere;
                round.survey.decide(&candidate)?;
                let words = format!("{}: is here already, and stays as they are here", candidate.auth_token);
                return round.note("already_here", &row, &words, false);
            }
            // Who is about to get another email is in nobody's way.
            if !round.survey.changes(holder.user.id)? {
                return self.meet_email_holder(round, candidate, holder);
            }
        }
        if let Some(holder) = others.iter().find(|holder| holder.user.auth_token == candidate.auth_token) {
            if holder.row.is_some() {
                self.renew_token(round, candidate.clone(), &row, "a user here has it")?;
                candidate = round.survey.find(candidate.id)?.unwrap_or(candidate);
            } else {
                let words = format!("{} is a user here with another email", candidate.auth_token);
                round.refuse("auth_token_taken_here", &row, &words)?;
            }
        }
        let by_name = others.iter().find(|holder| holder.user.username.as_str() == candidate.username);
        if let Some(holder) = by_name
            && !round.survey.changes(holder.user.id)?
        {
            let why = "a user here has it";
            candidate = self.give_other_name(round, candidate, "username_taken_here", &row, why).await?;
        }
        let key = candidate.username_key.as_deref();
        if let Some(holder) = others.iter().find(|holder| Some(holder.user.username.key()) == key)
            && !round.survey.changes(holder.user.id)?
        {
            hide(round, candidate, holder.user.username.as_str(), &row)?;
        }
        Ok(())
    }

    fn meet_email_holder(
        &self,
        round: &mut Round,
        candidate: Candidate,
        holder: &Holder,
    ) -> Result<(), ImportError> {
        let row = [candidate.id];
        let token = holder.user.auth_token;
        let words = format!("{:?}: {token}, a user here, has it", candidate.email.as_str());
        let room = format!("`kairos-identity user delete {token}` makes room for it");
        if candidate.is_verified && !holder.user.is_verified {
            let words = format!("{words} and has not verified it, and the row has: {room}");
            return round.refuse("email_taken_here", &row, &words);
        }
        if holder.row.is_some() && is_gone(round, holder)? {
            let words = format!("{words} and came from a row that is not in the source any more: {room}");
            return round.refuse("email_taken_here", &row, &words);
        }
        self.give_up_email(round, candidate, "email_taken_here", &row, &words)
    }
}

/// Whether no row of this source is the user's.
fn is_gone(round: &mut Round, holder: &Holder) -> Result<bool, ImportError> {
    holder.row.map_or(Ok(true), |row| Ok(!round.survey.has_row(row)?))
}
