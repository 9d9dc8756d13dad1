//! One connection of its own, for a command that works through a whole database: to another application's, or from one store to another.
//!
//! Its statements run where they are asked for, those of SQLite at once: nobody else is served by the process meanwhile.

use diesel::{Connection, SqliteConnection, connection::SimpleConnection};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::{
    postgres::{PostgresOptions, PostgresPool},
    sqlite::{self, InlineConnection, SqliteOptions},
};
use crate::store::{StoreError, StoreOptions};

/// What would end the path of a `file:` URI.
const NOT_IN_A_PATH: &AsciiSet = &CONTROLS.add(b'?').add(b'#').add(b'%');

/// A connection to either engine.
pub enum Session {
    /// To a file.
    Sqlite(InlineConnection),
    /// To a server.
    Postgres(Box<AsyncPgConnection>),
}

/// Runs `$body` on the connection of a session.
macro_rules! on_session {
    ($session:expr, $connection:ident => $body:block) => {
        match $session {
            $crate::store::connection::session::Session::Sqlite($connection) => $body,
            $crate::store::connection::session::Session::Postgres(boxed) => {
                let $connection: &mut diesel_async::AsyncPgConnection = boxed;
                $body
            }
        }
    };
}
pub(crate) use on_session;

impl Session {
    /// A connection that only reads, and changes nothing of a file of SQLite, not even its journal.
    pub async fn read_only(options: &StoreOptions) -> Result<Self, StoreError> {
        match options {
            StoreOptions::Sqlite(options) => read_only_sqlite(options).map(Self::Sqlite),
            StoreOptions::Postgres(_) | StoreOptions::Replicated { .. } => postgres(options).await,
        }
    }

    /// A connection that writes to a database of another application, and leaves its settings as they are; a missing file of SQLite is made.
    pub async fn foreign(options: &StoreOptions) -> Result<Self, StoreError> {
        match options {
            StoreOptions::Sqlite(options) => sqlite::open_as_it_is(options).map(Self::Sqlite),
            StoreOptions::Postgres(_) | StoreOptions::Replicated { .. } => Self::read_write(options).await,
        }
    }

    /// A connection that writes; a missing file of SQLite is made if the options say so.
    pub async fn read_write(options: &StoreOptions) -> Result<Self, StoreError> {
        match options {
            StoreOptions::Sqlite(options) => sqlite::open_writer(options).map(Self::Sqlite),
            StoreOptions::Postgres(_) | StoreOptions::Replicated { .. } => postgres(options).await,
        }
    }

    /// Lets everything that is read from now on be of this moment.
    pub async fn begin_snapshot(&mut self) -> Result<(), StoreError> {
        let begin = match self {
            // SQLite's snapshot begins with the first read.
            Self::Sqlite(_) => "BEGIN; SELECT count(*) FROM sqlite_master",
            Self::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        self.run(begin).await?;
        self.lift_limits().await
    }

    /// Begins to write: what follows is done by [`Session::commit`], or not at all.
    pub async fn begin(&mut self) -> Result<(), StoreError> {
        let begin = if self.is_sqlite() { "BEGIN IMMEDIATE" } else { "BEGIN" };
        self.run(begin).await?;
        self.lift_limits().await
    }

    /// Rows are copied by the thousand: limits that are made for requests do not hold in this transaction.
    async fn lift_limits(&mut self) -> Result<(), StoreError> {
        if self.is_sqlite() {
            return Ok(());
        }
        self.run("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0").await
    }

    /// Makes what was written stay.
    pub async fn commit(&mut self) -> Result<(), StoreError> {
        self.run("COMMIT").await
    }

    /// Which of the two it is.
    pub const fn is_sqlite(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    /// Lets the next row that gets its `id` by itself have one that no row has.
    pub async fn advance_id(&mut self, table: &str) -> Result<(), StoreError> {
        if self.is_sqlite() {
            return Ok(()); // AUTOINCREMENT has seen the rows
        }
        let next = "SELECT setval(pg_get_serial_sequence('TABLE', 'id'), greatest(max(id), 1), max(id) IS NOT NULL) FROM TABLE";
        self.run(&next.replace("TABLE", table)).await
    }

    /// Runs statements that answer nothing.
    pub async fn run(&mut self, statements: &str) -> Result<(), StoreError> {
        on_session!(self, connection => { Ok(connection.batch_execute(statements).await?) })
    }
}

/// Leaves no setting on the connection: there may be a pooler between, which gives it to others afterwards. What a transaction needs is set for it
/// alone.
async fn postgres(options: &StoreOptions) -> Result<Session, StoreError> {
    let (StoreOptions::Postgres(options) | StoreOptions::Replicated { primary: options, .. }) = options
    else {
        return Err(StoreError::unavailable("this is a file of SQLite"));
    };
    let plain = PostgresOptions { is_pooled: true, ..(**options).clone() };
    let connection = PostgresPool::open(&plain)?.connect().await?;
    Ok(Session::Postgres(Box::new(connection)))
}

fn read_only_sqlite(options: &SqliteOptions) -> Result<InlineConnection, StoreError> {
    let path = &options.path;
    if !path.is_file() {
        return Err(StoreError::unavailable(format!("there is no database file {}", path.display())));
    }
    let text = path.to_str().ok_or_else(|| StoreError::unavailable("the path is not UTF-8"))?;
    let text = if text.starts_with('/') { text.to_owned() } else { format!("./{text}") };
    let uri = format!("file:{}?mode=ro", utf8_percent_encode(&text, NOT_IN_A_PATH));
    let pragmas =
        format!("PRAGMA busy_timeout = {}; PRAGMA query_only = ON;", options.busy_timeout.as_millis());
    let opened = SqliteConnection::establish(&uri).map_err(|error| sqlite::in_file(path, &error))?;
    let mut connection = opened;
    connection.batch_execute(&pragmas).map_err(|error| sqlite::in_file(path, &error))?;
    Ok(sqlite::inline(connection))
}
