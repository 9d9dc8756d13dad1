//! Bringing the database to the schema of this release, and telling which schema it has.
//!
//! Many instances may start at once: on PostgreSQL one of them migrates under an advisory lock while the others try
//! again; on SQLite all migrations run in one transaction on the writer.

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

/// The schema of a database, compared with what this release needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schema {
    /// Just what is needed.
    Current,
    /// Migrations are missing, by version.
    Behind(Vec<String>),
    /// A later release has migrated it, by version: this one does not know what it would break.
    Ahead(Vec<String>),
}

/// Why a database was not migrated.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database does not answer, or refused a statement.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of SQLite that something else made.
    #[error("the file belongs to another application (application_id {application_id}): nothing was changed")]
    Foreign {
        /// What stands in the file's header; 0 when it has tables but no mark.
        application_id: i32,
    },
    /// A later release has migrated it.
    #[error("the database has migrations that this release does not know ({}): run a later release", .0.join(", "))]
    Ahead(Vec<String>),
    /// The server is too old or was set up in a way that would lose data.
    #[error("{0}")]
    Unsuitable(String),
    /// A migration broke; it was rolled back.
    #[error("a migration broke")]
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

/// Versions of migrations; they sort in the order in which they run.
type Versions = BTreeSet<String>;

impl Store {
    /// Runs the migrations that are missing; gives their versions. Safe while other instances do the same.
    ///
    /// # Errors
    /// [`MigrateError`]; on SQLite nothing was changed then, on PostgreSQL nothing by the migration that broke.
    pub async fn migrate(&self) -> Result<Vec<String>, MigrateError> {
        if let Schema::Ahead(unknown) = self.schema().await? {
            return Err(MigrateError::Ahead(unknown));
        }
        match &self.connections {
            Connections::Sqlite(threads) => sqlite::migrate(threads).await,
            Connections::Postgres(pool) => postgres::migrate(pool).await,
        }
    }

    /// Whether no migration has run: the database is new.
    ///
    /// # Errors
    /// [`MigrateError`] when the database does not answer or is unsuitable.
    pub async fn is_new(&self) -> Result<bool, MigrateError> {
        Ok(self.applied().await?.is_empty())
    }

    /// Whether nobody has been written into it: it is new, its first migrations were stopped, or its users are still to come.
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

    /// Compares the database's schema with the one this release needs; changes nothing.
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

    /// Settings of the server that break the promise that an acknowledged write survives, in words for an operator.
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
