//! The rows of the source in the survey, and what was decided about each.

use diesel::{
    Connection, ExpressionMethods, Insertable, OptionalExtension, QueryDsl, Queryable, RunQueryDsl,
    Selectable, SelectableHelper, sql_query,
    sql_types::{BigInt, Text},
};

use super::{
    super::candidate::{Candidate, SourceRow, UserState},
    Survey,
    tables::candidate,
};
use crate::{
    database::{DatabaseError, columns::UuidColumn},
    domain::{AuthToken, Email, UserId},
};

#[derive(Insertable, Queryable, Selectable)]
#[diesel(table_name = candidate)]
struct CandidateRow {
    id: i64,
    row_token: UuidColumn,
    auth_token: UuidColumn,
    email: String,
    username: String,
    username_key: Option<String>,
    is_verified: bool,
    row_digest: Vec<u8>,
    password_digest: Vec<u8>,
    user_id: Option<i64>,
    state: String,
}

impl From<&Candidate> for CandidateRow {
    fn from(candidate: &Candidate) -> Self {
        Self {
            id: candidate.id,
            row_token: UuidColumn(*candidate.row_token.as_uuid()),
            auth_token: UuidColumn(*candidate.auth_token.as_uuid()),
            email: candidate.email.as_str().to_owned(),
            username: candidate.username.clone(),
            username_key: candidate.username_key.clone(),
            is_verified: candidate.is_verified,
            row_digest: candidate.row_digest.to_vec(),
            password_digest: candidate.password_digest.to_vec(),
            user_id: candidate.user.map(UserId::as_i64),
            state: candidate.state.as_str().to_owned(),
        }
    }
}

impl TryFrom<CandidateRow> for Candidate {
    type Error = DatabaseError;

    fn try_from(row: CandidateRow) -> Result<Self, DatabaseError> {
        let corrupt = |column| DatabaseError::Corrupt { table: "candidate", column };
        let digest = |bytes: Vec<u8>, column| <[u8; 32]>::try_from(bytes).map_err(|_| corrupt(column));
        Ok(Self {
            id: row.id,
            row_token: AuthToken::from_uuid(row.row_token.0),
            auth_token: AuthToken::from_uuid(row.auth_token.0),
            email: Email::from_stored(row.email),
            username: row.username,
            username_key: row.username_key,
            is_verified: row.is_verified,
            row_digest: digest(row.row_digest, "row_digest")?,
            password_digest: digest(row.password_digest, "password_digest")?,
            user: row.user_id.map(UserId::from_i64),
            state: UserState::of(&row.state).ok_or_else(|| corrupt("state"))?,
        })
    }
}

impl Survey {
    /// Adds rows.
    ///
    /// # Errors
    /// [`DatabaseError`] when the disk is full. The same applies to the other methods.
    pub fn add(&mut self, candidates: &[Candidate]) -> Result<(), DatabaseError> {
        self.connection.transaction(|connection| {
            for candidate in candidates {
                diesel::insert_into(candidate::table)
                    .values(CandidateRow::from(candidate))
                    .execute(connection)?;
            }
            Ok(())
        })
    }

    /// Stores what was decided about a row.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn update(&mut self, candidate: &Candidate) -> Result<(), DatabaseError> {
        let row = CandidateRow::from(candidate);
        diesel::update(candidate::table.find(row.id))
            .set((
                candidate::auth_token.eq(row.auth_token),
                candidate::username.eq(row.username),
                candidate::username_key.eq(row.username_key),
                candidate::user_id.eq(row.user_id),
                candidate::state.eq(row.state),
            ))
            .execute(&mut self.connection)?;
        Ok(())
    }

    /// Records that a row is in a conflict that the operator has not decided. The row is still compared with
    /// others until [`Survey::apply_refusals`].
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn refuse(&mut self, id: i64) -> Result<(), DatabaseError> {
        sql_query("INSERT OR IGNORE INTO refusal VALUES (?)")
            .bind::<BigInt, _>(id)
            .execute(&mut self.connection)?;
        Ok(())
    }

    /// Sets the state of all refused rows to [`UserState::Refused`].
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn apply_refusals(&mut self) -> Result<(), DatabaseError> {
        let update = "UPDATE candidate SET state = ? WHERE id IN (SELECT id FROM refusal)";
        sql_query(update).bind::<Text, _>(UserState::Refused.as_str()).execute(&mut self.connection)?;
        Ok(())
    }

    /// Returns the row with this id.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn find(&mut self, id: i64) -> Result<Option<Candidate>, DatabaseError> {
        let query = candidate::table.find(id).select(CandidateRow::as_select());
        query.get_result(&mut self.connection).optional()?.map(Candidate::try_from).transpose()
    }

    /// Returns at most `limit` rows in these states in the order of their ids, after `after`.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn in_states(
        &mut self,
        states: &[UserState],
        after: Option<i64>,
        limit: i64,
    ) -> Result<Vec<Candidate>, DatabaseError> {
        let states: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
        let query = candidate::table
            .filter(candidate::id.gt(after.unwrap_or(i64::MIN)))
            .filter(candidate::state.eq_any(states))
            .order(candidate::id)
            .limit(limit)
            .select(CandidateRow::as_select());
        query.load(&mut self.connection)?.into_iter().map(Candidate::try_from).collect()
    }

    /// Returns at most `limit` rows in these states in the order of their `auth_token`s, after `after`.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn in_token_order(
        &mut self,
        states: &[UserState],
        after: Option<AuthToken>,
        limit: i64,
    ) -> Result<Vec<Candidate>, DatabaseError> {
        let states: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
        let mut query = candidate::table
            .filter(candidate::state.eq_any(states))
            .order(candidate::auth_token)
            .limit(limit)
            .select(CandidateRow::as_select())
            .into_boxed();
        if let Some(after) = after {
            query = query.filter(candidate::auth_token.gt(UuidColumn(*after.as_uuid())));
        }
        query.load(&mut self.connection)?.into_iter().map(Candidate::try_from).collect()
    }

    /// True if a row changes this user.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn has_change_of(&mut self, user: UserId) -> Result<bool, DatabaseError> {
        let rows = candidate::table
            .filter(candidate::user_id.eq(user.as_i64()))
            .filter(candidate::state.eq(UserState::Changed.as_str()));
        Ok(diesel::select(diesel::dsl::exists(rows)).get_result(&mut self.connection)?)
    }

    /// True if the survey has this row of the source.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn has_row(&mut self, row: SourceRow) -> Result<bool, DatabaseError> {
        let token = UuidColumn(*row.auth_token.as_uuid());
        let row = candidate::table.find(row.id).filter(candidate::row_token.eq(token));
        Ok(diesel::select(diesel::dsl::exists(row)).get_result(&mut self.connection)?)
    }

    /// True if a row with this `auth_token` has its user in the store although no import has recorded it.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn is_already_here(&mut self, token: AuthToken) -> Result<bool, DatabaseError> {
        let rows = candidate::table
            .filter(candidate::auth_token.eq(UuidColumn(*token.as_uuid())))
            .filter(candidate::state.eq(UserState::AlreadyHere.as_str()));
        Ok(diesel::select(diesel::dsl::exists(rows)).get_result(&mut self.connection)?)
    }

    /// True if a row that is a user, or becomes one, has this email.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn has_email(&mut self, email: &Email) -> Result<bool, DatabaseError> {
        let without_user =
            [UserState::LeftOut, UserState::LeftOutBefore, UserState::DeletedHere].map(UserState::as_str);
        let rows = candidate::table
            .filter(candidate::email.eq(email.as_str()))
            .filter(candidate::state.ne_all(without_user));
        Ok(diesel::select(diesel::dsl::exists(rows)).get_result(&mut self.connection)?)
    }

    /// True if a row has this username key.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn has_username_key(&mut self, key: &str) -> Result<bool, DatabaseError> {
        let rows = candidate::table.filter(candidate::username_key.eq(key));
        Ok(diesel::select(diesel::dsl::exists(rows)).get_result(&mut self.connection)?)
    }

    /// True if a row has this username.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn has_username(&mut self, username: &str) -> Result<bool, DatabaseError> {
        let rows = candidate::table.filter(candidate::username.eq(username));
        Ok(diesel::select(diesel::dsl::exists(rows)).get_result(&mut self.connection)?)
    }

    /// Returns the number of rows in each state.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn count_states(&mut self) -> Result<Vec<(String, u64)>, DatabaseError> {
        self.tally("SELECT state AS name, count(*) AS count FROM candidate GROUP BY state ORDER BY state")
    }
}
