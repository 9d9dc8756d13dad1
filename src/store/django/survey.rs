//! What is known of the rows of a source while it is decided what becomes of them.
//!
//! A database of SQLite without a name, which only this connection sees and which is gone when it closes: memory stays as small for a
//! million rows as for ten, and duplicates are found by an index. Passwords are not in it.

use diesel::{
    Connection, ExpressionMethods, Insertable, OptionalExtension, QueryDsl, Queryable, QueryableByName,
    RunQueryDsl, Selectable, SelectableHelper, SqliteConnection,
    connection::SimpleConnection,
    sql_query,
    sql_types::{BigInt, Text},
};

use crate::{
    domain::{AuthToken, Email, UserId},
    store::{StoreError, columns::UuidColumn},
};

const TABLES: &str = "
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -8000;
CREATE TABLE candidate (
    id INTEGER PRIMARY KEY, row_token TEXT NOT NULL, auth_token TEXT NOT NULL, email TEXT NOT NULL, username TEXT NOT NULL, username_key TEXT,
    is_verified BOOLEAN NOT NULL, row_digest BLOB NOT NULL, password_digest BLOB NOT NULL, user_id BIGINT, state TEXT NOT NULL,
    unproven INTEGER GENERATED ALWAYS AS (1 - is_verified) VIRTUAL
);
CREATE TABLE refusal (id INTEGER PRIMARY KEY);
CREATE INDEX candidate_auth_token ON candidate (auth_token, unproven, id);
CREATE INDEX candidate_email ON candidate (email, id);
CREATE INDEX candidate_email_verified_first ON candidate (email, unproven, id);
CREATE INDEX candidate_username ON candidate (username, id);
CREATE INDEX candidate_username_key ON candidate (username_key, id);
CREATE INDEX candidate_user_id ON candidate (user_id);
CREATE TABLE finding (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, rows TEXT NOT NULL, words TEXT NOT NULL, is_open BOOLEAN NOT NULL);
CREATE INDEX finding_kind ON finding (kind);
";

diesel::table! {
    use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Text};
    use crate::store::columns::SqlUuid;

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

macro_rules! states {
    ($($(#[$about:meta])* $state:ident = $name:literal,)+) => {
        /// What becomes of a row.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum UserState {
            $($(#[$about])* $state,)+
        }

        impl UserState {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$state,)+];

            /// How a report names it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$state => $name,)+
                }
            }

            fn of(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|state| state.as_str() == name)
            }
        }
    };
}

states! {
    /// It becomes a user.
    New = "new",
    /// It was taken over before, and has changed since: its user is changed too.
    Changed = "changed",
    /// It was taken over before, and its plaintext password may have changed since: that takes a hash to tell.
    Unchecked = "unchecked",
    /// It was taken over before, and is as it was.
    Unchanged = "unchanged",
    /// Its user was there already, with the same `auth_token` and email; they stay as they are.
    AlreadyHere = "already_here",
    /// Its user has changed here since it was taken over; they stay as they are.
    ChangedHere = "changed_here",
    /// Its user was deleted here since it was taken over.
    DeletedHere = "deleted_here",
    /// The operator chooses another row with the same email.
    LeftOut = "left_out",
    /// The operator chose another row before, and this one is as it was.
    LeftOutBefore = "left_out_before",
    /// A conflict that nobody has decided on.
    Refused = "refused",
}

/// A row that can become a user, or has.
#[derive(Clone)]
pub struct Candidate {
    /// Its key in the source.
    pub id: i64,
    /// Its `auth_token` in the source.
    pub row_token: AuthToken,
    /// The `auth_token` of its user: the row's, unless another user has that.
    pub auth_token: AuthToken,
    /// The address, in the form in which it will stand in the store.
    pub email: Email,
    /// The name that its user will have.
    pub username: String,
    /// What the name is compared by; nothing where no rule gives one.
    pub username_key: Option<String>,
    /// Whether the address is proven.
    pub is_verified: bool,
    /// SHA-256 of the row without its password.
    pub row_digest: [u8; 32],
    /// Of its password; keyed if that is plaintext.
    pub password_digest: [u8; 32],
    /// The user that it has become.
    pub user: Option<UserId>,
    /// What becomes of it.
    pub state: UserState,
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

/// What two rows may have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SurveyField {
    /// The UUID.
    AuthToken,
    /// The address.
    Email,
    /// The name, letter by letter.
    Username,
    /// The form that names are compared by.
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

    /// The value of a row, as the survey has it.
    fn value_of(self, candidate: &Candidate) -> String {
        match self {
            Self::AuthToken => candidate.auth_token.to_string(),
            Self::Email => candidate.email.as_str().to_owned(),
            Self::Username => candidate.username.clone(),
            Self::UsernameKey => candidate.username_key.clone().unwrap_or_default(),
        }
    }
}

/// A walk over rows, new or changed, that share a value with another such row.
pub struct Duplicates {
    field: SurveyField,
    verified_first: bool,
    /// The first of those who share the value that the walk is at.
    keeper: Option<Candidate>,
    /// The row that was met last.
    last: Option<Candidate>,
}

impl Duplicates {
    /// From the beginning. The first of those who share a value is a verified one, if that is asked for, then the one with the smallest key.
    #[must_use]
    pub const fn of(field: SurveyField, verified_first: bool) -> Self {
        Self { field, verified_first, keeper: None, last: None }
    }

    /// The next row that shares the value of the first, which is given before it. What is decided of a row that was given changes nothing of the walk.
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

/// What an operator must know of rows.
#[derive(Clone, Queryable, Selectable)]
#[diesel(table_name = finding)]
pub struct Finding {
    /// Its place among the others.
    pub number: i64,
    /// What it is.
    pub kind: String,
    /// The keys of the rows, with commas between; the last is the one that it stops or changes.
    pub rows: String,
    /// What it is of these rows.
    pub words: String,
    /// Whether nobody has decided on it.
    pub is_open: bool,
}

#[derive(QueryableByName)]
struct Member {
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

/// The rows of a source.
pub struct Survey {
    connection: SqliteConnection,
}

impl Survey {
    /// An empty one.
    ///
    /// # Errors
    /// [`StoreError`] when there is no room for it.
    pub fn begin() -> Result<Self, StoreError> {
        // An empty name: SQLite's private file on disk, unlinked from its beginning.
        let mut connection = SqliteConnection::establish("").map_err(StoreError::unavailable)?;
        connection.batch_execute(TABLES)?;
        Ok(Self { connection })
    }

    /// Writes rows down.
    ///
    /// # Errors
    /// [`StoreError`] when there is no room for it; so do all that follow.
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

    /// Writes down what was decided of a row.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn decide(&mut self, candidate: &Candidate) -> Result<(), StoreError> {
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

    /// Writes down that a row has a conflict that nobody has decided on; it goes on to be compared until [`Survey::settle`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn refuse(&mut self, id: i64) -> Result<(), StoreError> {
        sql_query("INSERT OR IGNORE INTO refusal VALUES (?)")
            .bind::<BigInt, _>(id)
            .execute(&mut self.connection)?;
        Ok(())
    }

    /// Lets all rows that were refused be so.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn settle(&mut self) -> Result<(), StoreError> {
        let settle = "UPDATE candidate SET state = ? WHERE id IN (SELECT id FROM refusal)";
        sql_query(settle).bind::<Text, _>(UserState::Refused.as_str()).execute(&mut self.connection)?;
        Ok(())
    }

    /// A row by its key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn find(&mut self, id: i64) -> Result<Option<Candidate>, StoreError> {
        let query = candidate::table.find(id).select(CandidateRow::as_select());
        query.get_result(&mut self.connection).optional()?.map(Candidate::try_from).transpose()
    }

    /// At most `limit` rows in these states in the order of their keys, after `after`.
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

    /// At most `limit` rows in these states in the order of their `auth_token`s, after `after`.
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

    /// Whether there is a row that changes this user.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn changes(&mut self, user: UserId) -> Result<bool, StoreError> {
        let rows = candidate::table
            .filter(candidate::user_id.eq(user.as_i64()))
            .filter(candidate::state.eq(UserState::Changed.as_str()));
        Ok(diesel::select(diesel::dsl::exists(rows)).get_result(&mut self.connection)?)
    }

    /// Whether there is a row with this `auth_token` and key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn has_row(&mut self, (token, id): (AuthToken, i64)) -> Result<bool, StoreError> {
        let row = candidate::table.find(id).filter(candidate::row_token.eq(UuidColumn(*token.as_uuid())));
        Ok(diesel::select(diesel::dsl::exists(row)).get_result(&mut self.connection)?)
    }

    /// Whether a row that is a user, or becomes one, has this email.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn has_email(&mut self, email: &Email) -> Result<bool, StoreError> {
        let is_nobody =
            [UserState::LeftOut, UserState::LeftOutBefore, UserState::DeletedHere].map(UserState::as_str);
        let rows = candidate::table
            .filter(candidate::email.eq(email.as_str()))
            .filter(candidate::state.ne_all(is_nobody));
        Ok(diesel::select(diesel::dsl::exists(rows)).get_result(&mut self.connection)?)
    }

    /// Whether a row has this form of a name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn has_username_key(&mut self, key: &str) -> Result<bool, StoreError> {
        let rows = candidate::table.filter(candidate::username_key.eq(key));
        Ok(diesel::select(diesel::dsl::exists(rows)).get_result(&mut self.connection)?)
    }

    /// Whether a row has this name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn has_username(&mut self, username: &str) -> Result<bool, StoreError> {
        let rows = candidate::table.filter(candidate::username.eq(username));
        Ok(diesel::select(diesel::dsl::exists(rows)).get_result(&mut self.connection)?)
    }

    /// The next row, new or changed, that shares a value with another such row; the first of those who share it comes first: a verified one before
    /// others if that is asked for, then the one with the smaller key. `after` is the one that was given before.
    fn next_duplicate(
        &mut self,
        field: SurveyField,
        verified_first: bool,
        after: Option<&Candidate>,
    ) -> Result<Option<Candidate>, StoreError> {
        let column = field.column();
        // An index has this order, so that all calls together read the rows once.
        let (order, place) = if verified_first {
            (format!("{column}, unproven, id"), "(?1, ?2, ?3)")
        } else {
            (format!("{column}, id"), "(?1, ?3)")
        };
        let decided = "state IN ('new', 'changed')";
        let behind = if after.is_some() {
            format!("AND ({order}) > {place} AND ?2 >= 0")
        } else {
            "AND ?1 = '' AND ?2 = 0 AND ?3 = 0".to_owned()
        };
        let query = format!(
            "SELECT id FROM candidate c WHERE {decided} AND {column} IS NOT NULL {behind} AND EXISTS (SELECT 1 FROM candidate other \
             WHERE other.{column} = c.{column} AND other.id <> c.id AND other.{decided}) ORDER BY {order} LIMIT 1"
        );
        let value = after.map_or_else(String::new, |after| field.value_of(after));
        let query = sql_query(query)
            .bind::<Text, _>(value)
            .bind::<BigInt, _>(after.map_or(0, |after| i64::from(!after.is_verified)))
            .bind::<BigInt, _>(after.map_or(0, |after| after.id));
        match query.get_result::<Member>(&mut self.connection).optional()? {
            Some(member) => self.find(member.id),
            None => Ok(None),
        }
    }

    /// Writes down what an operator must know of rows; an open one stops the import.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn note(&mut self, kind: &str, rows: &str, words: &str, is_open: bool) -> Result<(), StoreError> {
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

    /// At most `limit` findings in the order in which they were noted, after the one with this number.
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

    /// How many findings of each kind there are; only open ones, if that is asked for.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn count_findings(&mut self, only_open: bool) -> Result<Vec<(String, u64)>, StoreError> {
        let open = if only_open { "WHERE is_open" } else { "" };
        self.tally(&format!(
            "SELECT kind AS name, count(*) AS count FROM finding {open} GROUP BY kind ORDER BY kind"
        ))
    }

    /// How many rows there are in each state.
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
