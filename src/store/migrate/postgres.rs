//! PostgreSQL migrations, which run under an advisory lock, and the requirements on the server.

use std::time::Duration;

use diesel::{
    QueryDsl, QueryableByName,
    dsl::sql,
    pg::Pg,
    select, sql_query,
    sql_types::{BigInt, Bool, Nullable, Text},
};
use diesel_async::{AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::{
    error::MigrateError,
    versions::{__diesel_schema_migrations, Versions, versions},
};
use crate::database::{Cause, DatabaseError, postgres::PostgresPool};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// Key of the advisory lock: "KIDS", a NUL and "mig" in ASCII. Other applications on the same database should
/// not use it.
const ADVISORY_LOCK: i64 = 0x4B49_4453_006D_6967;

/// Interval between attempts to take the lock. A session that waits for the lock would block a
/// `CREATE INDEX CONCURRENTLY` of the instance that holds it.
const LOCK_RETRY: Duration = Duration::from_millis(100);

/// The oldest version of PostgreSQL that is tested, in the format of `server_version_num`.
const VERSION_MIN: i32 = 150_000;

/// Returns the versions of the migrations of this release.
pub(super) fn needed() -> Result<Versions, MigrateError> {
    versions::<Pg>(&MIGRATIONS)
}

/// Returns the versions of the migrations that have run. Refuses a server that the service cannot use.
pub(super) async fn applied(pool: &PostgresPool) -> Result<Versions, MigrateError> {
    let mut connection = pool.get().await?;
    refuse_unsuitable_server(&mut connection).await?;
    let has_table = select(sql::<Bool>("to_regclass('__diesel_schema_migrations') IS NOT NULL"));
    if !has_table.get_result::<bool>(&mut connection).await? {
        // A role that may use no schema sees none of the tables.
        refuse_role_without_schema(&sql_query(ROLE_RIGHTS).get_result(&mut connection).await?)?;
        return Ok(Versions::new());
    }
    let applied = __diesel_schema_migrations::table.select(__diesel_schema_migrations::version);
    let applied: Vec<String> = applied.load(&mut connection).await?;
    Ok(applied.into_iter().collect())
}

async fn refuse_unsuitable_server(connection: &mut AsyncPgConnection) -> Result<(), MigrateError> {
    let version = setting(connection, "server_version_num").await?;
    if version.parse::<i32>().is_ok_and(|version| version < VERSION_MIN) {
        let (needed, found) = (VERSION_MIN / 10_000, setting(connection, "server_version").await?);
        return Err(MigrateError::Unsuitable(format!(
            "PostgreSQL {needed} or later is required, but the server runs {found}"
        )));
    }
    let encoding = setting(connection, "server_encoding").await?;
    if encoding != "UTF8" {
        let refusal = format!(
            "the encoding of the database must be UTF8, not {encoding}: it cannot store every username"
        );
        return Err(MigrateError::Unsuitable(refusal));
    }
    Ok(())
}

/// Returns the value of a setting of the server.
pub(super) async fn setting(connection: &mut AsyncPgConnection, name: &str) -> Result<String, DatabaseError> {
    let query = select(sql::<Text>("current_setting(").bind::<Text, _>(name).sql(")"));
    Ok(query.get_result(connection).await?)
}

/// Runs the pending migrations under the advisory lock and returns their versions. Uses a connection outside
/// the pool, so the lock is released when it closes.
pub(super) async fn migrate(pool: &PostgresPool) -> Result<Vec<String>, MigrateError> {
    let mut connection = pool.detach().await?;
    // A migration may take longer than a request, and may wait for requests of the previous release, which
    // still runs.
    connection.batch_execute("SET statement_timeout = 0; SET lock_timeout = 0").await?;
    lock(&mut connection).await?;
    refuse_role_without_rights(&mut connection).await?;
    let migrated = tokio::spawn(async move {
        let mut harness = AsyncMigrationHarness::new(connection);
        let versions = harness.run_pending_migrations(MIGRATIONS).map_err(Cause::new)?;
        Ok(versions.iter().map(ToString::to_string).collect())
    });
    migrated.await.map_err(DatabaseError::unavailable)?.map_err(MigrateError::Broken)
}

/// What the role of a connection may do with the tables. The names are quoted where SQL requires it.
#[derive(QueryableByName)]
struct RoleRights {
    #[diesel(sql_type = Text)]
    role: String,
    /// The schema of new tables; empty if there is none.
    #[diesel(sql_type = Text)]
    schema: String,
    #[diesel(sql_type = Bool)]
    may_create: bool,
    /// The owner of the tables, if they exist and the role does not have the rights of their owner.
    #[diesel(sql_type = Nullable<Text>)]
    other_owner: Option<String>,
}

const ROLE_RIGHTS: &str = "SELECT quote_ident(current_user) AS role, coalesce(quote_ident(current_schema()), '') AS schema, \
     coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create, \
     (SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class \
      WHERE oid = to_regclass('__diesel_schema_migrations') AND NOT pg_has_role(relowner, 'USAGE')) AS other_owner";

/// Refuses a role that has no schema for its tables.
fn refuse_role_without_schema(rights: &RoleRights) -> Result<(), MigrateError> {
    if !rights.schema.is_empty() {
        return Ok(());
    }
    let role = &rights.role;
    Err(MigrateError::Unsuitable(format!(
        "no schema of the search_path exists, or the role {role} may use none of them: correct the search_path, or run \
         GRANT USAGE ON SCHEMA public TO {role}"
    )))
}

/// Refuses a role that cannot migrate: it must own the tables, and have the right to create more.
async fn refuse_role_without_rights(connection: &mut AsyncPgConnection) -> Result<(), MigrateError> {
    let rights: RoleRights = sql_query(ROLE_RIGHTS).get_result(connection).await?;
    refuse_role_without_schema(&rights)?;
    let RoleRights { role, schema, may_create, other_owner } = rights;
    if let Some(owner) = other_owner {
        return Err(MigrateError::Unsuitable(format!(
            "the tables belong to the role {owner}, and {role} may not change them: migrate as {owner}"
        )));
    }
    if !may_create {
        return Err(MigrateError::Unsuitable(format!(
            "the role {role} may not create tables in the schema {schema}: migrate as the owner of the database, or \
             run GRANT CREATE ON SCHEMA {schema} TO {role}"
        )));
    }
    Ok(())
}

async fn lock(connection: &mut AsyncPgConnection) -> Result<(), DatabaseError> {
    let mut is_logged = false;
    loop {
        let query = select(sql::<Bool>("pg_try_advisory_lock(").bind::<BigInt, _>(ADVISORY_LOCK).sql(")"));
        if query.get_result::<bool>(connection).await? {
            return Ok(());
        }
        if !is_logged {
            tracing::info!("Waiting for another instance that is migrating the database");
            is_logged = true;
        }
        tokio::time::sleep(LOCK_RETRY).await;
    }
}
