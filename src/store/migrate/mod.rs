//! Migrates the database to the schema of this release, and reports which schema it has.
//!
//! Many instances may start at the same time. On PostgreSQL one of them migrates under an advisory lock while
//! the others retry; on SQLite all migrations run in one transaction on the writer.
//!
//! Every function of [`Store`] here fails if the database does not answer; those with a [`MigrateError`] also
//! if it is unsuitable.

#![expect(
    clippy::missing_errors_doc,
    reason = "the documentation of this module describes the common errors"
)]

mod error;
mod postgres;
mod server_warnings;
mod sqlite;
mod versions;

use diesel::{OptionalExtension, QueryDsl};
use diesel_async::RunQueryDsl;

pub use self::error::MigrateError;
use self::versions::{Versions, kairos_schema_compatibility};
use super::{Store, schema::core_user};
use crate::database::{Connections, DatabaseError, read};

/// The schema of a database, compared with the one that this release needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schema {
    /// The schema that this release needs.
    Current,
    /// Versions of the missing migrations.
    Behind(Vec<String>),
    /// Versions of migrations that only a later release has, and that this release may disregard: they add
    /// to the tables, and take away nothing that it uses.
    Compatible(Vec<String>),
    /// Versions of migrations that only a later release has. This release does not know what it would break
    /// in such a schema.
    Ahead(Vec<String>),
}

impl Schema {
    /// True if this release may serve the database.
    #[must_use]
    pub const fn is_usable(&self) -> bool {
        matches!(self, Self::Current | Self::Compatible(_))
    }
}

impl Store {
    /// Runs the missing migrations and returns their versions. Safe while other instances do the same.
    ///
    /// # Errors
    /// [`MigrateError`]. On SQLite nothing has changed then; on PostgreSQL the migrations before the failed
    /// one stay.
    pub async fn migrate(&self) -> Result<Vec<String>, MigrateError> {
        match self.schema().await? {
            Schema::Ahead(unknown) => return Err(MigrateError::Ahead(unknown)),
            Schema::Compatible(_) => return Ok(Vec::new()),
            Schema::Current | Schema::Behind(_) => {}
        }
        match &self.connections {
            Connections::Sqlite(threads) => sqlite::migrate(threads).await,
            Connections::Postgres(pool) => postgres::migrate(pool).await,
        }
    }

    /// True if no migration has run, so that the database is new.
    pub async fn is_new(&self) -> Result<bool, MigrateError> {
        Ok(self.applied().await?.is_empty())
    }

    /// True if the database has no users: it is new, its first migrations were interrupted, or no user has
    /// been added yet.
    pub async fn has_no_users(&self) -> Result<bool, MigrateError> {
        if self.is_new().await? {
            return Ok(true);
        }
        let has_users: bool = read!(&self.connections, connection => {
            Ok(diesel::select(diesel::dsl::exists(core_user::table.select(core_user::id))).get_result(connection).await?)
        })?;
        Ok(!has_users)
    }

    /// Returns the versions of the migrations that have run. Refuses a file of another application and a
    /// server that is too old or cannot store every username.
    async fn applied(&self) -> Result<Versions, MigrateError> {
        match &self.connections {
            Connections::Sqlite(threads) => sqlite::applied(threads).await,
            Connections::Postgres(pool) => postgres::applied(pool).await,
        }
    }

    /// Compares the schema of the database with the one that this release needs. Changes nothing.
    pub async fn schema(&self) -> Result<Schema, MigrateError> {
        let needed = match &self.connections {
            Connections::Sqlite(_) => sqlite::needed()?,
            Connections::Postgres(_) => postgres::needed()?,
        };
        let applied = self.applied().await?;
        let only_in = |these: &Versions, those: &Versions| these.difference(those).cloned().collect();
        let (unknown, missing): (Vec<_>, Vec<_>) = (only_in(&applied, &needed), only_in(&needed, &applied));
        Ok(match (unknown.is_empty(), missing.is_empty()) {
            (false, true) if self.is_compatible_with(needed.last()).await? => Schema::Compatible(unknown),
            (false, _) => Schema::Ahead(unknown),
            (true, false) => Schema::Behind(missing),
            (true, true) => Schema::Current,
        })
    }

    /// True if a release with this last migration may use the tables, which have migrations of a later one.
    async fn is_compatible_with(&self, last: Option<&String>) -> Result<bool, DatabaseError> {
        let oldest: Option<String> = read!(&self.connections, connection => {
            let row = kairos_schema_compatibility::table.select(kairos_schema_compatibility::oldest_compatible);
            Ok(row.get_result(connection).await.optional()?)
        })?;
        Ok(oldest.as_ref().is_some_and(|oldest| last.is_some_and(|last| oldest <= last)))
    }

    /// Returns warnings for the operator about the settings of a PostgreSQL server: with one of them an
    /// acknowledged write can be lost, a pooler shares the connections although `database.pooler` is false,
    /// or the server admits fewer connections than this instance opens. There is no warning about
    /// `synchronous_commit` unless a pooler shares the connections: without one, each connection raises this
    /// setting itself.
    pub async fn server_warnings(&self) -> Result<Vec<String>, DatabaseError> {
        match &self.connections {
            Connections::Sqlite(_) => Ok(Vec::new()),
            Connections::Postgres(pool) => server_warnings::server_warnings(pool).await,
        }
    }
}
