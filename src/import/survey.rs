//! A temporary database with the rows of a source, used while the import decides what to do with each.
//!
//! It is an unnamed SQLite database, which only its connection can see and which is deleted when that closes.
//! Memory use therefore does not grow with the number of rows, and an index finds duplicates. It holds
//! digests of passwords, but no passwords.

use diesel::{
    Connection, ExpressionMethods, Insertable, OptionalExtension, QueryDsl, Queryable, QueryableByName,
    RunQueryDsl, Selectable, SelectableHelper, SqliteConnection,
    connection::SimpleConnection,
    sql_query,
    sql_types::{BigInt, Text},
};

use super::candidate::{Candidate, UserState};
use crate::{
    domain::{AuthToken, Email, UserId},
    store::{StoreError, columns::UuidColumn},
};

const TABLES: &str = "
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -8000;
CREATE TABLE candidate (
    id INTEGER PRIMARY KEY, row_token TEXT NOT NULL, auth_token TEXT NOT NULL, email TEXT NOT NULL, username TEXT NOT NULL, username_key TEXT,
    is_verified BOOLEAN NOT NULL, row_digest BLOB NOT NULL, password_digest BLOB NOT NULL, user_id BIGINT, state TEXT NOT NULL,
    unverified INTEGER GENERATED ALWAYS AS (1 - is_verified) VIRTUAL
);
CREATE TABLE refusal (id INTEGER PRIMARY KEY);
CREATE INDEX candidate_auth_token ON candidate (auth_token, unverified, id);
CREATE INDEX candidate_email ON candidate (email, id);
CREATE INDEX candidate_email_verified_first ON candidate (email, unverified, id);
CREATE INDEX candidate_username ON candidate (username, id);
CREATE INDEX candidate_username_key ON candidate (username_key, id);
CREATE INDEX candidate_user_id ON candidate (user_id);
CREATE TABLE finding (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, rows TEXT NOT NULL, words TEXT NOT NULL, is_open BOOLEAN NOT NULL);
CREATE INDEX finding_kind ON finding (kind);
";

diesel::table! {
    use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Text};
    use crate::store::SqlUuid;

    candidate (id) {
        id -> BigInt,
        row_token -> SqlUuid,
        auth_token -> SqlUuid,
        email -> Text,
        username -> Text,
        username_key -> Nullable<Text>,
        is_verified -> Bool,
        row_digest -> Binary,
        password_digest -> Binary,
        user_id -> Nullable<BigInt>,
        state -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Bool, Text};

    finding (number) {
        number -> BigInt,
        kind -> Text,
        rows -> Text,
        words -> Text,
        is_open -> Bool,
    }
}

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
    type Error = StoreError;

    fn try_from(row: CandidateRow) -> Result<Self, StoreError> {
        let corrupt = |column| StoreError::Corrupt { table: "candidate", column };
        let digest = |bytes: Vec<u8>| <[u8; 32]>::try_from(bytes).map_err(|_| corrupt("digest"));
        Ok(Self {
            id: row.id,
            row_token: AuthToken::from_uuid(row.row_token.0),
            auth_token: AuthToken::from_uuid(row.auth_token.0),
            email: Email::from_stored(row.email),
            username: row.username,
            username_key: row.username_key,
            is_verified: row.is_verified,
            row_digest: digest(row.row_digest)?,
            password_digest: digest(row.password_digest)?,
            user: row.user_id.map(UserId::from_i64),
            state: UserState::of(&row.state).ok_or_else(|| corrupt("state"))?,
        })
    }
}

/// A field in which two rows may have the same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SurveyField {
    /// The `auth_token`.
    AuthToken,
    /// The email address.
    Email,
    /// The username, character by character.
    Username,
    /// The comparison form of the username.
    UsernameKey,
}

impl SurveyField {
    const fn column(self) -> &'static str {
        match self {
            Self::AuthToken => "auth_token",
            Self::Email => "email",
            Self::Username => "username",
            Self::UsernameKey => "username_key",
        }
    }

    /// Returns the value of a row as the survey stores it.
    fn value_of(self, candidate: &Candidate) -> String {
        match self {
            Self::AuthToken => candidate.auth_token.to_string(),
            Self::Email => candidate.email.as_str().to_owned(),
            Self::Username => candidate.username.clone(),
            Self::UsernameKey => candidate.username_key.clone().unwrap_or_default(),
        }
    }
}

/// An iteration over the new and changed rows that share a value with another such row.
pub struct Duplicates {
    field: SurveyField,
    verified_first: bool,
    /// The first row with the current value.
    keeper: Option<Candidate>,
    /// The row that was visited last.
    last: Option<Candidate>,
}

impl Duplicates {
    /// Starts the iteration. Of the rows with the same value, verified ones come first if `verified_first` is
    /// set, then the one with the smaller id.
    #[must_use]
    pub const fn of(field: SurveyField, verified_first: bool) -> Self {
        Self { field, verified_first, keeper: None, last: None }
    }

    /// Returns the first row with a value, and the next row that has the same value. A decision about a row
    /// that was already returned does not change the iteration.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn next(&mut self, survey: &mut Survey) -> Result<Option<(Candidate, Candidate)>, StoreError> {
        while let Some(candidate) =
            survey.next_duplicate(self.field, self.verified_first, self.last.as_ref())?
        {
            self.last = Some(candidate.clone());
            let value = self.field.value_of(&candidate);
            match self.keeper.as_ref().filter(|keeper| self.field.value_of(keeper) == value) {
                Some(keeper) => return Ok(Some((keeper.clone(), candidate))),
                None => self.keeper = Some(candidate),
            }
        }
        Ok(None)
    }
}

/// Something about rows that the operator must see.
#[derive(Clone, Queryable, Selectable)]
#[diesel(table_name = finding)]
pub struct Finding {
    /// Sequence number.
    pub number: i64,
    /// Kind of the finding.
    pub kind: String,
    /// Ids of the rows, separated by commas. The last one is the row that is stopped or changed.
    pub rows: String,
    /// Description of the finding.
    pub words: String,
    /// True if this is a conflict that the operator has not decided.
    pub is_open: bool,
}

#[derive(QueryableByName)]
struct IdRow {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

#[derive(QueryableByName)]
struct Tally {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// The rows of a source, and the findings about them.
pub struct Survey {
    connection: SqliteConnection,
}

impl Survey {
    /// Creates an empty survey.
    ///
    /// # Errors
    /// [`StoreError`] when the temporary database cannot be created.
    pub fn begin() -> Result<Self, StoreError> {
        // With an empty name SQLite creates a private file on disk, unlinked from the start.
        let mut connection = SqliteConnection::establish("").map_err(StoreError::unavailable)?;
        connection.batch_execute(TABLES)?;
        Ok(Self { connection })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// [`StoreError`] when the disk is full. The same applies to the other methods.
    pub fn add(&mut self, candidates: &[Candidate]) -> Result<(), StoreError> {
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
    /// [`StoreError`].
    pub fn update(&mut self, candidate: &Candidate) -> Result<(), StoreError> {
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
    /// [`StoreError`].
    pub fn refuse(&mut self, id: i64) -> Result<(), StoreError> {
        sql_query("INSERT OR IGNORE INTO refusal VALUES (?)")
            .bind::<BigInt, _>(id)
            .execute(&mut self.connection)?;
        Ok(())
    }

    /// Sets the state of all refused rows to [`UserState::Refused`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn apply_refusals(&mut self) -> Result<(), StoreError> {
        let update = "UPDATE candidate SET state = ? WHERE id IN (SELECT id FROM refusal)";
        sql_query(update).bind::<Text, _>(UserState::Refused.as_str()).execute(&mut self.connection)?;
        Ok(())
    }

    /// Returns the row with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn find(&mut self, id: i64) -> Result<Option<Candidate>, StoreError> {
        let query = candidate::table.find(id).select(CandidateRow::as_select());
        query.get_result(&mut self.connection).optional()?.map(Candidate::try_from).transpose()
    }

    /// Returns at most `limit` rows in these states in the order of their ids, after `after`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn in_states(
        &mut self,
        states: &[UserState],
        after: Option<i64>,
        limit: i64,
    ) -> Result<Vec<Candidate>, StoreError> {
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
    /// [`StoreError`].
    pub fn in_token_order(
        &mut self,
        states: &[UserState],
        after: Option<AuthToken>,
        limit: i64,
    ) -> Result<Vec<Candidate>, StoreError> {
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
    /// [`StoreError`].
    pub fn has_change_of(&mut self, user: UserId) -> Result<bool, StoreError> {
        let rows = candidate::table
            .filter(candidate::user_id.eq(user.as_i64()))
            .filter(candidate::state.eq(UserState::Changed.as_str()));
        Ok(diesel::select(diesel::dsl::exists(rows)).get_result(&mut self.connection)?)
    }

    /// True if there is a row with this `auth_token` and id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn has_row(&mut self, (token, id): (AuthToken, i64)) -> Result<bool, StoreError> {
        let row = candidate::table.find(id).filter(candidate::row_token.eq(UuidColumn(*token.as_uuid())));
        Ok(diesel::select(diesel::dsl::exists(row)).get_result(&mut self.connection)?)
    }

    /// True if a row that is a user, or becomes one, has this email.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn has_email(&mut self, email: &Email) -> Result<bool, StoreError> {
        let without_user =
            [UserState::LeftOut, UserState::LeftOutBefore, UserState::DeletedHere].map(UserState::as_str);
        let rows = candidate::table
            .filter(candidate::email.eq(email.as_str()))
            .filter(candidate::state.ne_all(without_user));
        Ok(diesel::select(diesel::dsl::exists(rows)).get_result(&mut self.connection)?)
    }

    /// True if a row has this comparison form of the username.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn has_username_key(&mut self, key: &str) -> Result<bool, StoreError> {
        let rows = candidate::table.filter(candidate::username_key.eq(key));
        Ok(diesel::select(diesel::dsl::exists(rows)).get_result(&mut self.connection)?)
    }

    /// True if a row has this username.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn has_username(&mut self, username: &str) -> Result<bool, StoreError> {
        let rows = candidate::table.filter(candidate::username.eq(username));
        Ok(diesel::select(diesel::dsl::exists(rows)).get_result(&mut self.connection)?)
    }

    /// Returns the next new or changed row that shares a value with another such row, in the order that
    /// [`Duplicates::of`] describes. `after` is the row that was returned before.
    fn next_duplicate(
        &mut self,
        field: SurveyField,
        verified_first: bool,
        after: Option<&Candidate>,
    ) -> Result<Option<Candidate>, StoreError> {
        let column = field.column();
        // An index has this order, so that all calls together read the rows once.
        let (order, values) = if verified_first {
            (format!("{column}, unverified, id"), "(?1, ?2, ?3)")
        } else {
            (format!("{column}, id"), "(?1, ?3)")
        };
        let eligible = "state IN ('new', 'changed')";
        let after_condition = if after.is_some() {
            format!("AND ({order}) > {values} AND ?2 >= 0")
        } else {
            "AND ?1 = '' AND ?2 = 0 AND ?3 = 0".to_owned()
        };
        let query = format!(
            "SELECT id FROM candidate c WHERE {eligible} AND {column} IS NOT NULL {after_condition} AND EXISTS (SELECT 1 FROM candidate other \
             WHERE other.{column} = c.{column} AND other.id <> c.id AND other.{eligible}) ORDER BY {order} LIMIT 1"
        );
        let value = after.map_or_else(String::new, |after| field.value_of(after));
        let query = sql_query(query)
            .bind::<Text, _>(value)
            .bind::<BigInt, _>(after.map_or(0, |after| i64::from(!after.is_verified)))
            .bind::<BigInt, _>(after.map_or(0, |after| after.id));
        match query.get_result::<IdRow>(&mut self.connection).optional()? {
            Some(row) => self.find(row.id),
            None => Ok(None),
        }
    }

    /// Records a finding about rows. An open finding stops the import.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add_finding(
        &mut self,
        kind: &str,
        rows: &str,
        words: &str,
        is_open: bool,
    ) -> Result<(), StoreError> {
        diesel::insert_into(finding::table)
            .values((
                finding::kind.eq(kind),
                finding::rows.eq(rows),
                finding::words.eq(words),
                finding::is_open.eq(is_open),
            ))
            .execute(&mut self.connection)?;
        Ok(())
    }

    /// Returns at most `limit` findings in the order in which they were recorded, after the one with the
    /// number `after`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn findings(&mut self, after: i64, limit: i64) -> Result<Vec<Finding>, StoreError> {
        let query = finding::table
            .filter(finding::number.gt(after))
            .order(finding::number)
            .limit(limit)
            .select(Finding::as_select());
        Ok(query.load(&mut self.connection)?)
    }

    /// Returns the number of findings of each kind; with `only_open`, of open ones.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn count_findings(&mut self, only_open: bool) -> Result<Vec<(String, u64)>, StoreError> {
        let open = if only_open { "WHERE is_open" } else { "" };
        self.tally(&format!(
            "SELECT kind AS name, count(*) AS count FROM finding {open} GROUP BY kind ORDER BY kind"
        ))
    }

    /// Returns the number of rows in each state.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn count_states(&mut self) -> Result<Vec<(String, u64)>, StoreError> {
        self.tally("SELECT state AS name, count(*) AS count FROM candidate GROUP BY state ORDER BY state")
    }

    fn tally(&mut self, query: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let rows: Vec<Tally> = sql_query(query).load(&mut self.connection)?;
        Ok(rows.into_iter().map(|row| (row.name, u64::try_from(row.count).unwrap_or_default())).collect())
    }
}
