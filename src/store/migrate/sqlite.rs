//! SQLite migrations. All missing ones run in one transaction.

use diesel::{
    Connection, QueryDsl, RunQueryDsl, SqliteConnection,
    dsl::sql,
    select,
    sql_types::{Bool, Integer},
    sqlite::Sqlite,
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::{
    error::MigrateError,
    versions::{__diesel_schema_migrations, Versions, versions},
};
use crate::database::{Cause, sqlite::SqliteThreads};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

/// `application_id` of the service's files, an arbitrary number. The first migration writes it into the
/// header of the file.
const APPLICATION_ID: i32 = 1_262_093_395;

/// Returns the versions of the migrations of this release.
pub(super) fn needed() -> Result<Versions, MigrateError> {
    versions::<Sqlite>(&MIGRATIONS)
}

/// Returns the versions of the migrations that have run. Refuses a file of another application.
pub(super) async fn applied(threads: &SqliteThreads) -> Result<Versions, MigrateError> {
    // One transaction, so that all reads see the same state: another instance may be migrating.
    threads.on_writer(|connection| connection.transaction(read_applied)).await?
}

fn read_applied(connection: &mut SqliteConnection) -> Result<Versions, MigrateError> {
    refuse_foreign_file(connection)?;
    let has_table = "EXISTS (SELECT 1 FROM sqlite_master WHERE name = '__diesel_schema_migrations')";
    if !select(sql::<Bool>(has_table)).get_result::<bool>(connection)? {
        return Ok(Versions::new());
    }
    let applied = __diesel_schema_migrations::table.select(__diesel_schema_migrations::version);
    let applied: Vec<String> = applied.load(connection)?;
    Ok(applied.into_iter().collect())
}

/// Runs the pending migrations and returns their versions.
pub(super) async fn migrate(threads: &SqliteThreads) -> Result<Vec<String>, MigrateError> {
    let migrated = threads.on_writer(run_pending).await?;
    migrated.map_err(|error| match error {
        MigrateError::Store(error) => MigrateError::Store(threads.with_file(error)),
        error => error,
    })
}

fn run_pending(connection: &mut SqliteConnection) -> Result<Vec<String>, MigrateError> {
    connection.immediate_transaction(|connection| {
        connection
            .run_pending_migrations(MIGRATIONS)
            .map(|versions| versions.iter().map(ToString::to_string).collect())
            .map_err(|error| MigrateError::Broken(Cause::new(error)))
    })
}

fn refuse_foreign_file(connection: &mut SqliteConnection) -> Result<(), MigrateError> {
    let id = "(SELECT application_id FROM pragma_application_id)";
    let id: i32 = select(sql::<Integer>(id)).get_result(connection)?;
    let has_tables = "EXISTS (SELECT 1 FROM sqlite_master \
        WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name <> '__diesel_schema_migrations')";
    let has_tables: bool = select(sql::<Bool>(has_tables)).get_result(connection)?;
    if id == APPLICATION_ID || (id == 0 && !has_tables) {
        Ok(())
    } else {
        Err(MigrateError::Foreign { application_id: id })
    }
}
