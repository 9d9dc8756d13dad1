//! The tables of the service. Each query is written once and runs on SQLite and PostgreSQL; `database` holds
//! the connections.
//!
//! An acknowledged write survives a crash of the service, the database or the machine. Rows that belong
//! together are written in one transaction, which completes even if the caller is cancelled. This module
//! contains queries, not business rules: `accounts` decides which changes are allowed. Start at [`Store`].
//! Each other file here holds the queries of one table or of one group of operations; `docs/architecture.md`
//! describes the design.

mod health;
mod lookup;
mod migrate;
pub mod schema;
pub(crate) mod tables;

use self::lookup::Lookup;
pub use self::{
    lookup::LookupOptions,
    migrate::{MigrateError, Schema},
    tables::{
        AUDIT_PAGE_MAX, Admission, AttemptOutcome, Attempts, AuditFilter, CLOCK_DIFFERENCE_MAX,
        CorrectPassword, Credentials, Delivery, EarlierKeys, EmailChangeRequest, EmailUndo, EventPosition,
        KnownSession, LinkOwner, LoginAddress, ManagedUser, NewMail, NewSession, NoticedEvent, OutgoingMail,
        PasswordChange, Purged, RecordedEvent, Registered, Registration, Replay, RequestedLink, Reservation,
        RetentionPeriods, SETTLEMENT_MAX, SessionChange, Settlement, StoredSigningKey, Subject, Tally,
        USERS_PAGE_MAX, UserFilter, Verification,
    },
};
use crate::database::{
    Connections, DatabaseError, DatabaseOptions, postgres::PostgresPool, replicas::Replicas,
    sqlite::SqliteThreads,
};

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
    /// [`DatabaseError::Unavailable`] if SQLite's file cannot be opened or created, or if the TLS root
    /// certificates for PostgreSQL cannot be read.
    pub fn open(options: DatabaseOptions, lookup: LookupOptions) -> Result<Self, DatabaseError> {
        let (connections, replicas) = match options {
            DatabaseOptions::Sqlite(options) => (Connections::Sqlite(SqliteThreads::open(options)?), None),
            DatabaseOptions::Postgres(options) => {
                (Connections::Postgres(PostgresPool::open(&options)?), None)
            }
            DatabaseOptions::Replicated { primary, replicas, lag_max } => {
                let pools = replicas.iter().map(PostgresPool::open).collect::<Result<_, _>>()?;
                let primary = PostgresPool::open(&primary)?;
                (Connections::Postgres(primary), Some(Replicas::new(pools, lag_max)))
            }
        };
        let lookup = Lookup::start(&connections, replicas, lookup)?;
        Ok(Self { connections, lookup })
    }
}
