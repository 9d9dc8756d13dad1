//! The database layer. Each query is written once and runs on SQLite and PostgreSQL.
//!
//! An acknowledged write survives a crash of the service, the database or the machine. Rows that belong
//! together are written in one transaction, which completes even if the caller is cancelled. This module
//! contains queries, not business rules: `accounts` decides which changes are allowed. Start at [`Store`].
//! Each other file here holds the queries of one table or of one group of operations; `docs/architecture.md`
//! describes the design.

mod account_changes;
mod audit;
mod backup;
mod columns;
mod connection;
mod copy;
mod django;
mod error;
mod imports;
mod lookup;
mod mails;
mod managed_users;
mod migrate;
mod outbox;
mod purge;
mod registration;
pub mod schema;
mod sessions;
mod signing_keys;
mod throttle;
mod user_states;
mod users;
mod verification;

use std::time::Duration;

pub(crate) use self::error::chain;
pub use self::{
    account_changes::{EmailChangeRequest, PasswordChange},
    audit::{AUDIT_PAGE_MAX, AuditFilter, EventPosition, RecordedEvent},
    backup::BackupError,
    columns::{SqlTimestamp, SqlUuid},
    connection::{
        postgres::PostgresOptions,
        postgres_url::{InvalidPostgresUrl, PostgresUrl},
        sqlite::SqliteOptions,
    },
    copy::{CopiedTable, CopyError, StoreCopy},
    django::{
        Candidate, DjangoError, DjangoRow, DjangoSchema, DjangoSource, DjangoTarget, DjangoUser, Duplicates,
        Finding, StoreReader, Survey, SurveyField, UserState,
    },
    error::{Cause, Constraint, StoreError},
    imports::{Holder, ImportStep, ImportedRow, ImportedUser, Written},
    lookup::LookupOptions,
    mails::{Delivery, NewMail},
    managed_users::{ManagedUser, USERS_PAGE_MAX, UserFilter},
    migrate::{MigrateError, Schema},
    outbox::OutgoingMail,
    purge::{Kept, Purged},
    registration::{Registered, Registration, Replay},
    sessions::{KnownSession, NewSession, SessionChange},
    signing_keys::{EarlierKeys, StoredSigningKey},
    throttle::{Attempts, CorrectPassword, Counted, KnownAddress, Subject},
    users::Credentials,
    verification::Verification,
};
use self::{
    connection::{Connections, postgres::PostgresPool, read, replicas::Replicas, sqlite::SqliteThreads},
    lookup::Lookup,
};

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
    connections: Connections,
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
