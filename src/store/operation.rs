//! What an operator asks about the database: its clock, the space of its disk, its replicas.

use std::path::Path;

use diesel::{
    QueryableByName,
    dsl::sql,
    select, sql_query,
    sql_types::{BigInt, Text},
};
use diesel_async::RunQueryDsl;
use rustix::fs::statvfs;

use super::Store;
use crate::{
    database::{Connections, DatabaseError, ReplicaState},
    domain::Timestamp,
};

impl Store {
    /// Returns the time of the clock of PostgreSQL; `None` on SQLite, which has no clock of its own.
    ///
    /// # Errors
    /// [`DatabaseError`] if the server does not answer.
    pub async fn server_time(&self) -> Result<Option<Timestamp>, DatabaseError> {
        let Connections::Postgres(pool) = &self.connections else { return Ok(None) };
        let mut connection = pool.get().await?;
        let query = select(sql::<BigInt>("(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"));
        let micros = query.get_result(&mut connection).await?;
        Ok(Some(Timestamp::from_unix_micros(micros)))
    }

    /// Returns the rights on the tables of this database that the role lacks and docs/production.md grants,
    /// such as `UPDATE, DELETE on core_session, core_user`. Returns none on SQLite.
    ///
    /// # Errors
    /// [`DatabaseError`] if the server does not answer.
    pub async fn missing_rights(&self) -> Result<Vec<String>, DatabaseError> {
        let Connections::Postgres(pool) = &self.connections else { return Ok(Vec::new()) };
        let mut connection = pool.get().await?;
        let missing = "SELECT rights || ' on ' || string_agg(name, ', ' ORDER BY name) AS missing FROM ( \
            SELECT relname AS name, string_agg(privilege, ', ' ORDER BY number) AS rights FROM pg_class, \
            unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS privileges (privilege, number) \
            WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND relname LIKE 'core\\_%' \
            AND NOT has_table_privilege(pg_class.oid, privilege) GROUP BY relname) AS tables \
            GROUP BY rights ORDER BY min(name)";
        let rows: Vec<MissingRights> = sql_query(missing).load(&mut connection).await?;
        Ok(rows.into_iter().map(|row| row.missing).collect())
    }

    /// Returns the free space of the disk of a SQLite file in bytes; `None` if the system does not say, and
    /// on PostgreSQL.
    #[must_use]
    pub fn disk_free(&self) -> Option<u64> {
        match &self.connections {
            Connections::Sqlite(threads) => disk_free(&threads.options().path),
            Connections::Postgres(_) => None,
        }
    }

    /// Waits until the replicas of PostgreSQL had time to be found current, and returns the state of each.
    pub async fn replicas_after_start(&self) -> Vec<ReplicaState> {
        self.lookup.replicas_after_start().await
    }
}

/// The rights that the role lacks on the same tables.
#[derive(QueryableByName)]
struct MissingRights {
    #[diesel(sql_type = Text)]
    missing: String,
}

/// Returns the free space in bytes of the disk of a file, or of the disk on which it can be created; `None`
/// if the system does not say.
#[must_use]
pub fn disk_free(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("."));
    statvfs(existing).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}
