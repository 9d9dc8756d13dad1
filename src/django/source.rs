//! Reads the rows of the table `core_user` of a Django backend, in each schema that the backend has had.

use std::{fmt, path::PathBuf};

use diesel::{
    QueryableByName, sql_query,
    sql_types::{BigInt, Binary, Nullable, Text},
};
use diesel_async::RunQueryDsl;

use super::{
    DjangoError,
    schema::{DjangoSchema, TextRow, columns},
};
use crate::database::{
    DatabaseError, DatabaseOptions,
    session::{Session, on_session},
    sqlite_file::FileId,
};

/// A row as it is stored.
#[derive(Clone)]
pub struct DjangoRow {
    /// Primary key.
    pub id: i64,
    /// Username; `None` if it is NULL or no text. The same applies to the next two.
    pub username: Option<String>,
    /// Email address.
    pub email: Option<String>,
    /// Password in plaintext, or its hash.
    pub password: Option<String>,
    /// Whether the email is verified, as text: `1` or `0`, or whatever else is stored. `None` if it is NULL.
    pub is_verified: Option<String>,
    /// UUID, in one of its text forms; `None` if it is NULL or no text.
    pub auth_token: Option<String>,
    /// Time of creation as `YYYY-MM-DD HH:MM:SS`, with or without a fraction, or whatever else is stored;
    /// `None` if it is NULL, or if the schema has no such column.
    pub created_at: Option<String>,
    /// Time of the last change, in the same format.
    pub updated_at: Option<String>,
}

/// Prints the id only: the other fields are personal data or secrets.
impl fmt::Debug for DjangoRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DjangoRow").field("id", &self.id).finish_non_exhaustive()
    }
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Nullable<Binary>)]
    username: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Binary>)]
    email: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Binary>)]
    password: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Binary>)]
    is_verified: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Binary>)]
    auth_token: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Binary>)]
    created_at: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Binary>)]
    updated_at: Option<Vec<u8>>,
}

impl From<Row> for DjangoRow {
    fn from(row: Row) -> Self {
        let text = |bytes: Option<Vec<u8>>| bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        // A missing value has a meaning of its own, so a value that is not UTF-8 must not look like it.
        let any_text =
            |bytes: Option<Vec<u8>>| bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Self {
            id: row.id,
            username: text(row.username),
            email: text(row.email),
            password: text(row.password),
            is_verified: any_text(row.is_verified),
            auth_token: text(row.auth_token),
            created_at: any_text(row.created_at),
            updated_at: any_text(row.updated_at),
        }
    }
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    value: i64,
}

/// A value that is no text, since it is not UTF-8, in the SQL of each engine.
const NO_TEXT_SQLITE: &str = "X'FF'";
const NO_TEXT_POSTGRES: &str = "'\\xff'::bytea";

/// The columns of [`Row`] besides `id`, each with the expression that returns its bytes.
type Columns = [(&'static str, String); 7];

/// The database of a Django backend, opened for reading.
pub struct DjangoSource {
    session: Session,
    schema: DjangoSchema,
    columns: Columns,
    /// The file of SQLite that was opened.
    file: Option<(PathBuf, FileId)>,
}

impl DjangoSource {
    /// Connects, checks the integrity of a SQLite file, and recognizes the schema of the table.
    ///
    /// # Errors
    /// [`DjangoError`].
    pub async fn open(options: &DatabaseOptions) -> Result<Self, DjangoError> {
        let mut session = Session::read_only(options).await?;
        check_integrity(&mut session).await?;
        let columns = columns(&mut session).await?;
        if columns.is_empty() {
            return Err(DjangoError::NoTable);
        }
        let schema = DjangoSchema::of(&columns)?;
        let encoding = raw_encoding(&mut session).await?;
        let columns = column_expressions(&session, &schema, encoding);
        let file = match options {
            DatabaseOptions::Sqlite(sqlite) => {
                FileId::of(&sqlite.path).ok().map(|id| (sqlite.path.clone(), id))
            }
            _ => None,
        };
        Ok(Self { session, schema, columns, file })
    }

    /// Checks that a SQLite file is still the one that was opened: the rows of one that was moved or replaced
    /// are not those that Django writes.
    ///
    /// # Errors
    /// [`DjangoError::Replaced`].
    pub fn require_same_file(&self) -> Result<(), DjangoError> {
        match &self.file {
            Some((path, id)) if FileId::of(path).ok() != Some(*id) => {
                Err(DjangoError::Replaced(path.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Returns the schema of the table.
    #[must_use]
    pub const fn schema(&self) -> &DjangoSchema {
        &self.schema
    }

    /// Returns the number of rows.
    ///
    /// # Errors
    /// [`DatabaseError`] when the database does not answer.
    pub async fn count(&mut self) -> Result<u64, DatabaseError> {
        let count = self.number("SELECT count(*) AS value FROM core_user").await?;
        Ok(u64::try_from(count.value).unwrap_or_default())
    }

    /// Returns at most `limit` rows in the order of their ids, after `after`. Holds no lock when it returns.
    ///
    /// # Errors
    /// [`DatabaseError`] when the database does not answer.
    pub async fn rows(&mut self, after: Option<i64>, limit: i64) -> Result<Vec<DjangoRow>, DatabaseError> {
        let condition = after.map_or_else(|| "TRUE".to_owned(), |after| format!("id > {after}"));
        self.load(&format!("WHERE {condition} ORDER BY id LIMIT {limit}")).await
    }

    /// Returns the rows that exist among these ids, in the order of their ids.
    ///
    /// # Errors
    /// [`DatabaseError`] when the database does not answer.
    pub async fn rows_with(&mut self, ids: &[i64]) -> Result<Vec<DjangoRow>, DatabaseError> {
        let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
        // PostgreSQL rejects an empty list.
        let ids = if ids.is_empty() { "NULL".to_owned() } else { ids.join(", ") };
        self.load(&format!("WHERE id IN ({ids}) ORDER BY id")).await
    }

    /// Returns the rows that `condition` selects. A text that PostgreSQL cannot convert to UTF-8 is
    /// returned as no text, and stops no other row.
    async fn load(&mut self, condition: &str) -> Result<Vec<DjangoRow>, DatabaseError> {
        let select = select(&self.columns);
        match self.query(&format!("{select} {condition}")).await {
            Err(error) if error.is_text_unconvertible() => {}
            result => return result,
        }
        let ids = sql_query(format!("SELECT CAST(id AS BIGINT) AS value FROM core_user {condition}"));
        let ids: Vec<Number> = on_session!(&mut self.session, connection => { ids.load(connection).await? });
        let mut rows = Vec::with_capacity(ids.len());
        for Number { value: id } in ids {
            match self.query(&format!("{select} WHERE id = {id}")).await {
                Err(error) if error.is_text_unconvertible() => rows.extend(self.convertible_texts(id).await?),
                row => rows.extend(row?),
            }
        }
        Ok(rows)
    }

    /// Returns a row of which some texts cannot be converted, with those as no text.
    async fn convertible_texts(&mut self, id: i64) -> Result<Vec<DjangoRow>, DatabaseError> {
        let mut columns = self.columns.clone();
        for (_, expression) in &mut columns {
            let one = format!("SELECT count({expression}) AS value FROM core_user WHERE id = {id}");
            match self.number(&one).await {
                Err(error) if error.is_text_unconvertible() => {
                    NO_TEXT_POSTGRES.clone_into(expression);
                }
                result => result.map(|_| ())?,
            }
        }
        self.query(&format!("{} WHERE id = {id}", select(&columns))).await
    }

    async fn number(&mut self, query: &str) -> Result<Number, DatabaseError> {
        Ok(on_session!(&mut self.session, connection => { sql_query(query).get_result(connection).await? }))
    }

    async fn query(&mut self, query: &str) -> Result<Vec<DjangoRow>, DatabaseError> {
        let rows: Vec<Row> =
            on_session!(&mut self.session, connection => { sql_query(query).load(connection).await? });
        Ok(rows.into_iter().map(DjangoRow::from).collect())
    }
}

/// Checks the integrity of a SQLite file.
async fn check_integrity(session: &mut Session) -> Result<(), DjangoError> {
    let Session::Sqlite(connection) = session else { return Ok(()) };
    let check = sql_query("SELECT quick_check AS value FROM pragma_quick_check LIMIT 1");
    let result: TextRow = check.get_result(connection).await?;
    if result.value == "ok" { Ok(()) } else { Err(DjangoError::Damaged(result.value.replace('\n', " "))) }
}

/// Returns the encoding for `convert_to`, which turns a text into bytes. A database without an encoding
/// (`SQL_ASCII`) may hold texts that are not UTF-8. They are read as they are, so that one of them stops its
/// own row only.
async fn raw_encoding(session: &mut Session) -> Result<&'static str, DatabaseError> {
    let Session::Postgres(connection) = session else { return Ok("UTF8") };
    let encoding = sql_query("SELECT current_setting('server_encoding') AS value");
    let encoding: EncodingRow = encoding.get_result(&mut **connection).await?;
    Ok(if encoding.value == "SQL_ASCII" { "SQL_ASCII" } else { "UTF8" })
}

#[derive(QueryableByName)]
struct EncodingRow {
    #[diesel(sql_type = Text)]
    value: String,
}

/// Returns the expressions of the columns. Both engines return the same bytes for the same values.
fn column_expressions(session: &Session, schema: &DjangoSchema, encoding: &str) -> Columns {
    let is_sqlite = session.is_sqlite();
    let text = |column: &str| {
        if is_sqlite {
            // Django stores no bytes in these columns: they are not taken as the text that they may be.
            format!("CASE typeof({column}) WHEN 'blob' THEN {NO_TEXT_SQLITE} ELSE CAST({column} AS BLOB) END")
        } else {
            format!("convert_to({column}::text, '{encoding}')")
        }
    };
    let time = |column: &str, exists: bool| match (exists, is_sqlite) {
        (false, _) => text("NULL"),
        (true, true) => text(column),
        (true, false) => text(&postgres_time(column)),
    };
    let flag = if is_sqlite { text("is_verified") } else { text(POSTGRES_FLAG) };
    [
        ("username", text(schema.username)),
        ("email", text("email")),
        ("password", text("password")),
        ("is_verified", flag),
        ("auth_token", text(schema.auth_token)),
        ("created_at", time("created_at", schema.has_created_at)),
        ("updated_at", time("updated_at", schema.has_updated_at)),
    ]
}

/// Returns the SELECT of a row with these columns, without a condition.
fn select(columns: &Columns) -> String {
    let columns: Vec<String> = columns.iter().map(|(name, value)| format!("{value} AS {name}")).collect();
    format!("SELECT CAST(id AS BIGINT) AS id, {} FROM core_user", columns.join(", "))
}

/// A boolean of PostgreSQL as SQLite stores it. Whatever is no boolean keeps its text.
const POSTGRES_FLAG: &str = "(CASE WHEN pg_typeof(is_verified) = 'boolean'::regtype \
    THEN (CASE is_verified::text WHEN 'true' THEN '1' WHEN 'false' THEN '0' END) ELSE is_verified::text END)";

/// Returns the expression of a time of PostgreSQL in Django's format. Times that have no such form keep their
/// own: `infinity`, `-infinity`, and those before Christ.
///
/// Django writes a `timestamp` without time zone if `USE_TZ = False`. It is read as UTC, whatever time zone
/// the server is set to.
fn postgres_time(column: &str) -> String {
    let utc = format!(
        "(CASE WHEN pg_typeof({column}) = 'timestamp'::regtype THEN {column}::timestamp \
         ELSE {column}::timestamptz AT TIME ZONE 'UTC' END)"
    );
    format!(
        "(CASE WHEN {column} IS NULL THEN NULL WHEN NOT isfinite({utc}) OR extract(year FROM {utc}) < 1 \
         THEN {utc}::text ELSE to_char({utc}, 'YYYY-MM-DD HH24:MI:SS.US') END)"
    )
}
