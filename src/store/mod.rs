//! The database: one body of queries for SQLite and PostgreSQL.
//!
//! An acknowledged write survives a crash of the service, the database or the machine; what belongs together is written
//! in one transaction, and goes on to its end if the caller leaves. This module knows rows, not rules: what may be
//! changed by whom is decided in `accounts`. Start at [`Store`]; each file beside this one holds the queries of one table.

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
    audit::{AUDIT_PAGE_MAX, AuditFilter, EventPlace, RecordedEvent},
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
    throttle::{Attempts, Counted, KnownAddress, RightPassword, Subject},
    users::Credentials,
    verification::Verification,
};
use self::{
    connection::{Connections, postgres::PostgresPool, read, replicas::Replicas, sqlite::SqliteThreads},
    lookup::Lookup,
};

/// Which engine keeps the data, and how it is used.
#[derive(Debug, Clone)]
pub enum StoreOptions {
    /// A file of SQLite, which is built in.
    Sqlite(SqliteOptions),
    /// A server of PostgreSQL 15 or later.
    Postgres(Box<PostgresOptions>),
    /// The same with replicas, which serve look-ups.
    Replicated {
        /// What everything else is asked of.
        primary: Box<PostgresOptions>,
        /// The replicas.
        replicas: Vec<PostgresOptions>,
        /// How far a replica may be behind and still be asked.
        lag_max: Duration,
    },
}

/// The database. Cheap to clone; connections close with the last clone.
#[derive(Clone)]
pub struct Store {
    connections: Connections,
    lookup: Lookup,
}

impl Store {
    /// Opens the database; call within a runtime. PostgreSQL is first connected to when first asked.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when SQLite's file cannot be opened or created, or trusted roots cannot be read.
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

    /// Asks the database for nothing, to see that it answers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        use diesel_async::RunQueryDsl;
        read!(&self.connections, connection => {
            diesel::sql_query("SELECT 1").execute(connection).await?;
            Ok(())
        })
    }
}
