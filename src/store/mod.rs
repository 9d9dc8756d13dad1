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
mod metrics;
mod migrate;
mod operation;
pub mod schema;
pub(crate) mod tables;

use std::time::Duration;

use tokio::runtime::Handle;

use self::lookup::Lookup;
pub use self::{
    lookup::LookupOptions,
    migrate::{MigrateError, Schema},
    operation::disk_free,
    tables::{
        AUDIT_PAGE_MAX, Admission, AttemptOutcome, Attempts, AuditFilter, CLOCK_DIFFERENCE_MAX,
        CorrectPassword, Credentials, Delivery, EarlierKeys, EmailChangeRequest, EmailUndo, EventPosition,
        KnownSession, LinkOwner, LoginAddress, MailBacklog, ManagedUser, NewMail, NewSession, NoticedEvent,
        OlderLinks, OutgoingMail, PasswordChange, Purged, RecordedEvent, Registered, Registration, Replay,
        RequestedLink, Reservation, RetentionPeriods, SETTLEMENT_MAX, SealedCount, SealedToken,
        SessionChange, Settlement, StoredSigningKey, Subject, Tally, USERS_PAGE_MAX, UserFilter,
        Verification,
    },
};
use crate::database::{
    Connections, DatabaseError, DatabaseOptions, PostgresOptions, postgres::PostgresPool, replicas::Replicas,
    sqlite::SqliteThreads,
};

/// The database. Cheap to clone. SQLite's connections close when the last clone is dropped. PostgreSQL's
/// pooled connections do not: they close after `database.idle-timeout`, or when the runtime ends.
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
        Self::open_on(options, lookup, &[Handle::current()])
    }

    /// Opens the database as [`Store::open`] does, with the look-ups on these runtimes, of which there must
    /// be at least one. Callers on a single-threaded runtime are answered on its thread.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_on(
        options: DatabaseOptions,
        lookup: LookupOptions,
        runtimes: &[Handle],
    ) -> Result<Self, DatabaseError> {
        let (primary, replicas, lag_max) = match options {
            DatabaseOptions::Sqlite(options) => {
                let threads = SqliteThreads::open(options)?;
                let lookup = Lookup::on_sqlite(&threads, lookup, runtimes)?;
                return Ok(Self { connections: Connections::Sqlite(threads), lookup });
            }
            DatabaseOptions::Postgres(options) => (options, Vec::new(), Duration::ZERO),
            DatabaseOptions::Replicated { primary, replicas, lag_max } => (primary, replicas, lag_max),
        };
        let pool = PostgresPool::open(&primary)?;
        // Replicas serve only look-ups, so each has a connection for each lane.
        let lanes = lookup.lanes_on_postgres(runtimes);
        let of_replica = |options: &PostgresOptions| {
            PostgresPool::open(&PostgresOptions { pool_size: lanes, ..options.clone() })
        };
        let replicas = replicas.iter().map(of_replica).collect::<Result<Vec<_>, _>>()?;
        let replicas = (!replicas.is_empty()).then(|| Replicas::new(replicas, pool.clone(), lag_max));
        // Look-ups have connections of their own, one for each lane. So look-ups go on while all other
        // connections wait for commits that hang.
        let lookup = Lookup::on_postgres(&pool, &primary, replicas, lookup, runtimes)?;
        Ok(Self { connections: Connections::Postgres(pool), lookup })
    }
}
