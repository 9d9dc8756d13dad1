//! A single connection for a command that works through a whole database: that of another application, or a
//! store that is copied or exported.
//!
//! Statements run in the task of the caller; those of SQLite block its thread. The process serves no callers
//! meanwhile.

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};

use super::{
    postgres::PostgresPool,
    postgres_connect::PostgresOptions,
    sqlite_close::OpenConnection,
    sqlite_connection::{InlineConnection, inline},
    sqlite_open::{self, Open},
};
use crate::database::{DatabaseError, DatabaseOptions};

/// A connection to either engine.
pub enum Session {
    /// To a SQLite file.
    Sqlite(OpenConnection<InlineConnection>),
    /// To a PostgreSQL server.
    Postgres(Box<AsyncPgConnection>),
}

/// Runs `$body` on the connection of a session.
macro_rules! on_session {
    ($session:expr, $connection:ident => $body:block) => {
        match $session {
            $crate::database::session::Session::Sqlite(open) => {
                let $connection: &mut $crate::database::sqlite_connection::InlineConnection = open;
                $body
            }
            $crate::database::session::Session::Postgres(boxed) => {
                let $connection: &mut diesel_async::AsyncPgConnection = boxed;
                $body
            }
        }
    };
}
pub(crate) use on_session;

impl Session {
    /// Opens a connection that only reads. It opens a SQLite file in read-only mode and does not change its
    /// journal mode.
    pub async fn read_only(options: &DatabaseOptions) -> Result<Self, DatabaseError> {
        Self::open(options, sqlite_open::open_read_only).await
    }

    /// Opens a connection that writes to a database of another application and keeps its settings, such as
    /// the journal mode. A missing SQLite file is created if the options say so.
    pub async fn foreign(options: &DatabaseOptions) -> Result<Self, DatabaseError> {
        Self::open(options, sqlite_open::open_foreign).await
    }

    /// Opens a connection that writes to a store. A missing SQLite file is created if the options say so.
    pub async fn read_write(options: &DatabaseOptions) -> Result<Self, DatabaseError> {
        Self::open(options, sqlite_open::open_writer).await
    }

    async fn open(options: &DatabaseOptions, open_sqlite: Open) -> Result<Self, DatabaseError> {
        match options {
            DatabaseOptions::Sqlite(options) => Ok(Self::Sqlite(open_sqlite(options)?.map(inline))),
            DatabaseOptions::Postgres(options) | DatabaseOptions::Replicated { primary: options, .. } => {
                // Without session settings: a pooler in between may pass the connection to other clients
                // afterwards. A transaction sets what it needs for itself (`SET LOCAL`).
                let plain = PostgresOptions { is_pooled: true, ..(**options).clone() };
                let connection = PostgresPool::open(&plain)?.connect().await?;
                Ok(Self::Postgres(Box::new(connection)))
            }
        }
    }

    /// Starts a transaction whose reads all see the database as it is now.
    pub async fn begin_snapshot(&mut self) -> Result<(), DatabaseError> {
        let begin = match self {
            // SQLite takes its snapshot at the first read.
            Self::Sqlite(_) => "BEGIN; SELECT count(*) FROM sqlite_master",
            Self::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        self.run(begin).await?;
        self.lift_limits().await
    }

    /// Starts a write transaction. [`Session::commit`] commits it; if the session is dropped first, it is
    /// rolled back.
    pub async fn begin(&mut self) -> Result<(), DatabaseError> {
        let begin = if self.is_sqlite() { "BEGIN IMMEDIATE" } else { "BEGIN ISOLATION LEVEL READ COMMITTED" };
        self.run(begin).await?;
        self.lift_limits().await
    }

    /// Lifts the time limits for this transaction, which may copy thousands of rows. On this connection they
    /// come from the settings of the server, or from another client of a pooler.
    async fn lift_limits(&mut self) -> Result<(), DatabaseError> {
        if self.is_sqlite() {
            return Ok(());
        }
        self.run("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0").await
    }

    /// Commits the transaction.
    pub async fn commit(&mut self) -> Result<(), DatabaseError> {
        self.run("COMMIT").await
    }

    /// True if this is a connection to SQLite.
    pub const fn is_sqlite(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    /// Sets the sequence of `table.id` so that the next generated `id` is larger than all in the table.
    pub async fn advance_id(&mut self, table: &str) -> Result<(), DatabaseError> {
        if self.is_sqlite() {
            return Ok(()); // AUTOINCREMENT already follows the inserted ids
        }
        let next = "SELECT setval(pg_get_serial_sequence('TABLE', 'id'), greatest(max(id), 1), max(id) IS NOT NULL) FROM TABLE";
        self.run(&next.replace("TABLE", table)).await
    }

    /// Runs statements that return no rows.
    pub async fn run(&mut self, statements: &str) -> Result<(), DatabaseError> {
        on_session!(self, connection => { Ok(connection.batch_execute(statements).await?) })
    }
}
