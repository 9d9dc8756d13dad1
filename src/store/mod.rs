//! The database layer. Each query is written once and runs on SQLite and PostgreSQL.
//!
//! An acknowledged write survives a crash of the service, the database or the machine. Rows that belong
//! together are written in one transaction, which completes even if the caller is cancelled. This module
//! contains queries, not business rules: `accounts` decides which changes are allowed. Start at [`Store`].
//! Each other file here holds the queries of one table or of one group of operations; `docs/architecture.md`
//! describes the design.

pub(crate) mod audit_log;
pub(crate) mod columns;
pub(crate) mod connection;
mod error;
mod lookup;
mod migrate;
pub mod schema;
pub(crate) mod tables;

use std::time::Duration;

pub use self::{
    audit_log::log_audit_event,
    columns::{SqlTimestamp, SqlUuid},
    connection::{postgres::PostgresOptions, sqlite::SqliteOptions},
    error::{Cause, Constraint, StoreError},
    lookup::LookupOptions,
    migrate::{MigrateError, Schema},
    tables::{
        AUDIT_PAGE_MAX, AttemptOutcome, Attempts, AuditFilter, CLOCK_DIFFERENCE_MAX, CorrectPassword,
        Counted, Credentials, Delivery, EarlierKeys, EmailChangeRequest, EmailUndo, EventPosition,
        KnownSession, LoginAddress, ManagedUser, NewMail, NewSession, NoticedEvent, OutgoingMail,
        PasswordChange, Purged, RecordedEvent, Registered, Registration, Replay, RequestedLink, Reservation,
        RetentionPeriods, SETTLEMENT_MAX, SessionChange, Settlement, StoredSigningKey, Subject, Tally,
        USERS_PAGE_MAX, UserFilter, Verification,
    },
};
use self::{
    connection::{Connections, postgres::PostgresPool, read, replicas::Replicas, sqlite::SqliteThreads},
    lookup::Lookup,
};
pub(crate) use crate::domain::chain;

/// The database engine and its options.
#[derive(Debug, Clone)]
pub enum StoreOptions {
    /// A SQLite file. SQLite is compiled into the service.
    Sqlite(SqliteOptions),
    /// A PostgreSQL server, version 15 or later.
    Postgres(Box<PostgresOptions>),
    /// A PostgreSQL primary with replicas that serve look-ups by `auth_token`.
    Replicated {
        /// The primary, which serves all other queries, and the look-ups while no replica can be used.
        primary: Box<PostgresOptions>,
        /// The replicas.
        replicas: Vec<PostgresOptions>,
        /// Maximum replication lag. A replica that is further behind serves no look-ups.
        lag_max: Duration,
    },
}

/// The database. Cheap to clone; the connections close when the last clone is dropped.
#[derive(Clone)]
pub struct Store {
    pub(crate) connections: Connections,
    lookup: Lookup,
}

impl Store {
    /// Opens the database. Must be called within a Tokio runtime. SQLite's file is opened at once; PostgreSQL
    /// connections are opened when they are first needed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if SQLite's file cannot be opened or created, or if the TLS root
    /// certificates for PostgreSQL cannot be read.
    pub fn open(options: StoreOptions, lookup: LookupOptions) -> Result<Self, StoreError> {
        let (connections, replicas) = match options {
            StoreOptions::Sqlite(options) => (Connections::Sqlite(SqliteThreads::open(options)?), None),
            StoreOptions::Postgres(options) => (Connections::Postgres(PostgresPool::open(&options)?), None),
            StoreOptions::Replicated { primary, replicas, lag_max } => {
                let pools = replicas.iter().map(PostgresPool::open).collect::<Result<_, _>>()?;
                let primary = PostgresPool::open(&primary)?;
                (Connections::Postgres(primary), Some(Replicas::new(pools, lag_max)))
            }
        };
        let lookup = Lookup::start(&connections, replicas, lookup)?;
        Ok(Self { connections, lookup })
    }

    /// Runs `SELECT 1` to check that the database answers.
    ///
    /// # Errors
    /// [`StoreError`] if the database does not answer.
    pub async fn ping(&self) -> Result<(), StoreError> {
        use diesel_async::RunQueryDsl;
        read!(&self.connections, connection => {
            diesel::sql_query("SELECT 1").execute(connection).await?;
            Ok(())
        })
    }
}
