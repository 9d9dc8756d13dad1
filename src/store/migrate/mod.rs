//! Migrates the database to the schema of this release, and reports which schema it has.
//!
//! Many instances may start at the same time. On PostgreSQL one of them migrates under an advisory lock while
//! the others retry; on SQLite all migrations run in one transaction on the writer.

mod postgres;
mod sqlite;

use std::collections::BTreeSet;

use diesel::{
    QueryDsl,
    backend::Backend,
    migration::{Migration, MigrationSource},
};

use diesel_async::RunQueryDsl;

use super::{
    Store, StoreError,
    connection::{Connections, read},
    error::Cause,
    schema::core_user,
};

/// The schema of a database, compared with the one that this release needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schema {
    /// The schema that this release needs.
    Current,
    /// Versions of the missing migrations.
    Behind(Vec<String>),
    /// Versions of migrations that only a later release has. This release does not know what it would break
    /// in such a schema.
    Ahead(Vec<String>),
}

/// Reasons why a database was not migrated.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database does not answer, or rejected a statement.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A SQLite file of another application.
    #[error("the file belongs to another application (application_id {application_id}): nothing was changed")]
    Foreign {
        /// `application_id` in the header of the file; 0 if the file has tables but no `application_id`.
        application_id: i32,
    },
    /// A later release has migrated the database.
    #[error("the database has migrations that this release does not have ({}): run a later release", .0.join(", "))]
    Ahead(Vec<String>),
    /// The server is too old, or its settings would lose data.
    #[error("{0}")]
    Unsuitable(String),
    /// A migration failed and was rolled back.
    #[error("a migration failed")]
    Broken(#[source] Cause),
}

impl From<diesel::result::Error> for MigrateError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Store(error.into())
    }
}

diesel::table! {
    __diesel_schema_migrations (version) {
        version -> Text,
    }
}

/// Versions of migrations. They sort in the order in which the migrations run.
type Versions = BTreeSet<String>;

impl Store {
    /// Runs the missing migrations and returns their versions. Safe while other instances do the same.
    ///
    /// # Errors
    /// [`MigrateError`]. On SQLite nothing has changed then; on PostgreSQL the migrations before the failed
    /// one stay.
    pub async fn migrate(&self) -> Result<Vec<String>, MigrateError> {
        if let Schema::Ahead(unknown) = self.schema().await? {
            return Err(MigrateError::Ahead(unknown));
        }
        match &self.connections {
            Connections::Sqlite(threads) => sqlite::migrate(threads).await,
            Connections::Postgres(pool) => postgres::migrate(pool).await,
        }
    }

    /// True if no migration has run, so that the database is new.
    ///
    /// # Errors
    /// [`MigrateError`] when the database does not answer or is unsuitable.
    pub async fn is_new(&self) -> Result<bool, MigrateError> {
        Ok(self.applied().await?.is_empty())
    }

    /// True if the database has no users: it is new, its first migrations were interrupted, or no user has
    /// been added yet.
    ///
    /// # Errors
    /// [`MigrateError`] when the database does not answer or is unsuitable.
    pub async fn has_no_users(&self) -> Result<bool, MigrateError> {
        if self.is_new().await? {
            return Ok(true);
        }
        let has_users: bool = read!(&self.connections, connection => {
            Ok(diesel::select(diesel::dsl::exists(core_user::table.select(core_user::id))).get_result(connection).await?)
        })?;
        Ok(!has_users)
    }

    async fn applied(&self) -> Result<Versions, MigrateError> {
        match &self.connections {
            Connections::Sqlite(threads) => sqlite::applied(threads).await,
            Connections::Postgres(pool) => postgres::applied(pool).await,
        }
    }

    /// Compares the schema of the database with the one that this release needs. Changes nothing.
    ///
    /// # Errors
    /// [`MigrateError`] when the database does not answer or is unsuitable.
    pub async fn schema(&self) -> Result<Schema, MigrateError> {
        let needed = match &self.connections {
            Connections::Sqlite(_) => sqlite::needed()?,
            Connections::Postgres(_) => postgres::needed()?,
        };
        let applied = self.applied().await?;
        let only_in = |these: &Versions, those: &Versions| these.difference(those).cloned().collect();
        let (unknown, missing): (Vec<_>, Vec<_>) = (only_in(&applied, &needed), only_in(&needed, &applied));
        Ok(match (unknown.is_empty(), missing.is_empty()) {
            (false, _) => Schema::Ahead(unknown),
            (true, false) => Schema::Behind(missing),
            (true, true) => Schema::Current,
        })
    }

    /// Returns a warning for the operator about each setting of the server with which an acknowledged write
    /// can be lost.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn durability_warnings(&self) -> Result<Vec<String>, StoreError> {
        match &self.connections {
            Connections::Sqlite(_) => Ok(Vec::new()),
            Connections::Postgres(pool) => postgres::durability_warnings(pool).await,
        }
    }
}

fn versions<B: Backend>(migrations: &impl MigrationSource<B>) -> Result<Versions, MigrateError> {
    let migrations = migrations.migrations().map_err(|error| MigrateError::Broken(Cause::new(error)))?;
    Ok(migrations.iter().map(|migration| migration.name().version().to_string()).collect())
}
