//! The second half of a round: writes what was decided.

use std::collections::HashMap;

use futures_util::future::try_join_all;
use tokio_util::sync::CancellationToken;

use super::{
    Import, ImportError, Progress,
    candidate::{Candidate, SourceRow, UserState},
    error::of_source,
    records::{ImportStep, ImportedRow, ImportedUser},
    report::Totals,
    round::Round,
    row::{ParsedRow, is_stored_unchanged},
};
use crate::{
    database::DatabaseError,
    django::{DjangoRow, DjangoSource},
    domain::{AuditEvent, AuditKind, Password, PasswordHash, Username},
    entropy::Entropy,
    password::{StoredPassword, Verdict},
    store::Store,
};

/// Number of rows that are read together, and largest number in one transaction. Such a transaction takes
/// some hundred round trips to a server that may be far away.
pub const ROWS_PER_TRANSACTION: u16 = 100;

/// Characters that follow the `!` of an unusable password in Django.
const UNUSABLE_LETTERS: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
/// Number of these characters (`UNUSABLE_PASSWORD_SUFFIX_LENGTH` of Django).
const UNUSABLE_LENGTH: usize = 40;

/// Resource that the audit events name.
const RESOURCE: &str = "import django";

/// A row that is to be written.
struct Pending {
    candidate: Candidate,
    parsed: ParsedRow,
    /// The password of the row as it is stored: a hash or plaintext.
    stored: String,
    /// The record of the row's earlier import; loaded only if the password may have changed.
    remembered: Option<ImportedRow>,
}

impl Import {
    /// Writes all rows of the round. Returns false if `stop` was triggered before the end.
    pub(super) async fn apply(
        &self,
        source: &mut DjangoSource,
        round: &mut Round,
        totals: &mut Totals,
        progress: &mut impl Progress,
        stop: &CancellationToken,
    ) -> Result<bool, ImportError> {
        let Some(store) = &self.store else { return Ok(true) };
        // Rows that release an email or username are applied before rows that claim it.
        let parts: [&[UserState]; 2] = [
            &[UserState::Changed],
            &[UserState::New, UserState::Unchecked, UserState::AlreadyHere, UserState::LeftOut],
        ];
        // The rows that changed during an earlier round are read again in this one.
        totals.changed_meanwhile = 0;
        let counts = round.survey.count_states()?;
        let is_written =
            |name: &str| parts.iter().any(|states| states.iter().any(|state| state.as_str() == name));
        progress.begin(
            "writing",
            counts.iter().filter(|(name, _)| is_written(name)).map(|(_, count)| count).sum(),
        );
        for states in parts {
            let mut after = None;
            loop {
                let candidates = round.survey.in_states(states, after, i64::from(ROWS_PER_TRANSACTION))?;
                let Some(last) = candidates.last() else { break };
                after = Some(last.id);
                let pending = self.reread(source, candidates, totals).await?;
                if !self.write_page(store, round, pending, totals, progress, stop).await? {
                    progress.end();
                    return Ok(false);
                }
            }
        }
        progress.end();
        Ok(true)
    }

    /// Reads the rows again. Those that have changed since the survey read them are left to the next round.
    async fn reread(
        &self,
        source: &mut DjangoSource,
        candidates: Vec<Candidate>,
        totals: &mut Totals,
    ) -> Result<Vec<Pending>, ImportError> {
        let ids: Vec<i64> = candidates.iter().map(|candidate| candidate.id).collect();
        let rows = source.rows_with(&ids).await.map_err(of_source)?;
        let mut rows: HashMap<i64, DjangoRow> = rows.into_iter().map(|row| (row.id, row)).collect();
        let to_compare = candidates.iter().filter(|candidate| may_have_new_password(candidate));
        let tokens: Vec<_> = to_compare
            .filter_map(|candidate| rows.contains_key(&candidate.id).then_some(candidate.row_token))
            .collect();
        let mut remembered =
            if tokens.is_empty() { HashMap::new() } else { self.find_imported(&tokens).await? };

        let mut pending = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let row = rows.remove(&candidate.id);
            let parsed = row.as_ref().and_then(|row| ParsedRow::parse(row, &self.key).ok());
            let unchanged = parsed.filter(|parsed| {
                parsed.candidate.row_digest == candidate.row_digest
                    && parsed.candidate.password_digest == candidate.password_digest
            });
            let (Some(parsed), Some(stored)) = (unchanged, row.and_then(|row| row.password)) else {
                totals.changed_meanwhile += 1;
                continue;
            };
            let remembered =
                remembered.remove(&SourceRow { auth_token: parsed.candidate.auth_token, id: candidate.id });
            pending.push(Pending { candidate, parsed, stored, remembered });
        }
        Ok(pending)
    }

    /// Writes all rows but the new and unchecked ones with plaintext passwords, and then these. They are
    /// hashed and written in parts of `hashes_per_batch`, so that a killed process loses at most the work of
    /// one part. Returns false if `stop` was triggered before the end.
    async fn write_page(
        &self,
        store: &Store,
        round: &Round,
        pending: Vec<Pending>,
        totals: &mut Totals,
        progress: &mut impl Progress,
        stop: &CancellationToken,
    ) -> Result<bool, ImportError> {
        // Changed rows are written together even if they must be hashed, since one may claim an email or
        // username that another one releases.
        let is_hashed_in_parts = |pending: &Pending| {
            pending.parsed.password == StoredPassword::Plaintext
                && matches!(pending.candidate.state, UserState::New | UserState::Unchecked)
        };
        let (to_hash, others): (Vec<_>, Vec<_>) = pending.into_iter().partition(is_hashed_in_parts);
        let mut parts = vec![others];
        let mut to_hash = to_hash.into_iter().peekable();
        while to_hash.peek().is_some() {
            parts.push(to_hash.by_ref().take(self.options.hashes_per_batch.max(1)).collect());
        }
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            if stop.is_cancelled() {
                return Ok(false);
            }
            let rows = part.len() as u64;
            let steps = try_join_all(part.into_iter().map(|pending| self.step(round, pending))).await?;
            self.write(store, steps, totals).await?;
            progress.advance(rows);
        }
        Ok(true)
    }

    /// Writes steps in one transaction. If another user has one of the emails or usernames, each step gets a
    /// transaction of its own, and those that cannot be written are left to the next round.
    async fn write(
        &self,
        store: &Store,
        steps: Vec<ImportStep>,
        totals: &mut Totals,
    ) -> Result<(), ImportError> {
        match self.write_together(store, steps.clone(), totals).await {
            Err(DatabaseError::NotUnique(_)) if steps.len() > 1 => {
                for step in steps {
                    match self.write_together(store, vec![step], totals).await {
                        Err(DatabaseError::NotUnique(_)) => totals.changed_meanwhile += 1,
                        written => written?,
                    }
                }
                Ok(())
            }
            Err(DatabaseError::NotUnique(_)) => {
                totals.changed_meanwhile += 1;
                Ok(())
            }
            written => Ok(written?),
        }
    }

    /// Writes steps in one transaction, and adds them to the totals.
    async fn write_together(
        &self,
        store: &Store,
        steps: Vec<ImportStep>,
        totals: &mut Totals,
    ) -> Result<(), DatabaseError> {
        let event =
            |kind| AuditEvent::new(self.env.clock.now(), kind, self.origin.clone()).with_resource(RESOURCE);
        let (created, changed) = (event(AuditKind::UserCreated), event(AuditKind::UserUpdated));
        let written = store.write_imported(steps, created, changed).await?;
        totals.written.inserted += written.inserted;
        totals.written.updated += written.updated;
        // The kept users were changed or deleted here in the meantime: the next round decides again.
        totals.changed_meanwhile += u64::from(written.kept);
        Ok(())
    }

    /// Returns the operation for a row, after hashing its password if it is needed and plaintext.
    async fn step(&self, round: &Round, pending: Pending) -> Result<ImportStep, ImportError> {
        let Pending { candidate, parsed, stored, remembered } = pending;
        let source_row = SourceRow { auth_token: parsed.candidate.auth_token, id: candidate.id };
        let user = |password| imported_user(&candidate, &parsed, source_row, password, round);
        Ok(match (candidate.state, candidate.user) {
            (UserState::Changed, Some(id)) => {
                ImportStep::Update(id, user(self.changed_password(&parsed, stored, remembered).await?))
            }
            (UserState::Unchecked, Some(id)) => {
                match self.changed_password(&parsed, stored, remembered).await? {
                    Some(password) => ImportStep::Update(id, user(Some(password))),
                    None => ImportStep::Confirm(user(None)),
                }
            }
            (UserState::AlreadyHere, Some(id)) => ImportStep::Adopt(id, user(None)),
            (UserState::LeftOut, _) => ImportStep::LeaveOut(user(None)),
            _ => ImportStep::Insert(user(Some(self.password(&parsed, &stored).await?))),
        })
    }

    /// Returns the value for the password column.
    async fn password(&self, parsed: &ParsedRow, stored: &str) -> Result<PasswordHash, ImportError> {
        if is_stored_unchanged(parsed.password) {
            return Ok(PasswordHash::from_stored(stored.to_owned()));
        }
        match Password::parse(stored.to_owned()) {
            Ok(password) => Ok(self.passwords.rehash(&password).await?),
            // Empty, or longer than a login accepts.
            Err(_) => Ok(unusable_password(&self.env.entropy)),
        }
    }

    /// Returns the value for the password column if the password of the row has changed since its import,
    /// otherwise `None`. A plaintext password with another digest is compared with the hash of the user,
    /// since the digest may have been made with another key.
    async fn changed_password(
        &self,
        parsed: &ParsedRow,
        stored: String,
        remembered: Option<ImportedRow>,
    ) -> Result<Option<PasswordHash>, ImportError> {
        let earlier = remembered.as_ref().map(|row| row.password_digest);
        let current = remembered.as_ref().and_then(|row| row.user.as_ref()).map(|(_, hash)| hash.expose());
        let is_same = earlier == Some(parsed.candidate.password_digest)
            || current == Some(stored.as_str())
            || (parsed.password == StoredPassword::Plaintext
                && self.is_password_of(&stored, remembered).await?);
        if is_same { Ok(None) } else { self.password(parsed, &stored).await.map(Some) }
    }

    /// True if `plaintext` is the password of the user that the row became at its earlier import.
    async fn is_password_of(
        &self,
        plaintext: &str,
        remembered: Option<ImportedRow>,
    ) -> Result<bool, ImportError> {
        let Some((_, hash)) = remembered.and_then(|remembered| remembered.user) else { return Ok(false) };
        let Ok(password) = Password::parse(plaintext.to_owned()) else { return Ok(false) };
        let slot = self.passwords.reserve()?;
        let verdict = self.passwords.verify(slot, &password, Some(hash)).await?;
        Ok(matches!(verdict, Verdict::Correct { .. }))
    }
}

/// True if the password of the row may have changed since its import.
const fn may_have_new_password(candidate: &Candidate) -> bool {
    matches!(candidate.state, UserState::Changed | UserState::Unchecked)
}

/// Returns a random unusable password in the format of Django's `set_unusable_password`.
pub(super) fn unusable_password(entropy: &Entropy) -> PasswordHash {
    let random: [u8; UNUSABLE_LENGTH] = entropy.bytes();
    // 256 is not a multiple of 62, so some characters are slightly more likely. The text is not a secret.
    let letters =
        random.iter().filter_map(|byte| UNUSABLE_LETTERS.get(usize::from(*byte) % UNUSABLE_LETTERS.len()));
    PasswordHash::from_stored(format!("!{}", letters.map(|letter| char::from(*letter)).collect::<String>()))
}

/// Returns the user to write for a row. A username without a key gets one that no look-up uses.
fn imported_user(
    candidate: &Candidate,
    parsed: &ParsedRow,
    source_row: SourceRow,
    password: Option<PasswordHash>,
    round: &Round,
) -> ImportedUser {
    let key = candidate.username_key.clone();
    let (created_at, updated_at) = parsed.times_or(round.now);
    let unused_key = || {
        Username::parse_imported(&candidate.username, candidate.auth_token)
            .ok()
            .map(|name| name.key().to_owned())
    };
    ImportedUser {
        source_row,
        auth_token: candidate.auth_token,
        username: candidate.username.clone(),
        username_key: key.or_else(unused_key).unwrap_or_default(),
        email: candidate.email.clone(),
        password,
        is_verified: candidate.is_verified,
        created_at,
        updated_at,
        row_digest: candidate.row_digest,
        password_digest: candidate.password_digest,
    }
}
