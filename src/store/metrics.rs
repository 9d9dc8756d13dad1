//! The metrics of the database and of the look-ups.

use std::{fs, path::Path, sync::Arc};

use super::{Store, operation::disk_free};
use crate::{
    database::{Connections, postgres::PostgresPool, sqlite::SqliteThreads, sqlite_file::with_suffix},
    metrics::{Registry, Unit, register_gauge, register_total},
};

impl Store {
    /// Adds the metrics of the database and of the look-ups to a registry.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.lookup.register_metrics(registry);
        let failures = match &self.connections {
            Connections::Sqlite(threads) => {
                register_sqlite(registry, threads);
                threads.disk_full_failures().clone()
            }
            Connections::Postgres(pool) => {
                register_postgres(registry, pool);
                pool.disk_full_failures().clone()
            }
        };
        register_total(
            registry,
            "database_disk_full_failures",
            "Number of writes that failed because the disk of the database is full",
            move || failures.count(),
        );
    }
}

fn register_sqlite(registry: &mut Registry, threads: &SqliteThreads) {
    let path: Arc<Path> = Arc::from(threads.options().path.as_path());
    let bytes = || Some(Unit::Bytes);
    let file = Arc::clone(&path);
    let help = "Size of the SQLite file";
    register_gauge(registry, "sqlite_file_size", help, bytes(), move || file_size(&file));
    let wal = with_suffix(&path, "-wal");
    let help = "Size of the write-ahead log of SQLite; it grows while a reader keeps an old snapshot";
    register_gauge(registry, "sqlite_wal_size", help, bytes(), move || file_size(&wal));
    let help =
        "Space of the disk of the SQLite file that the user of this process may still write; NaN if unknown";
    register_gauge(registry, "sqlite_disk_free", help, bytes(), move || {
        #[expect(clippy::cast_precision_loss, reason = "more digits are of no use")]
        disk_free(&path).map_or(f64::NAN, |bytes| bytes as f64)
    });
}

/// Returns the size of a file; 0 if there is none.
fn file_size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn register_postgres(registry: &mut Registry, pool: &PostgresPool) {
    type Read = fn(&PostgresPool) -> usize;
    let gauges: [(&str, &str, Read); 4] = [
        ("database_connections_used", "Number of connections to PostgreSQL that an operation uses", |pool| {
            pool.usage().used
        }),
        ("database_connections_idle", "Number of open connections to PostgreSQL that are free", |pool| {
            pool.usage().idle
        }),
        (
            "database_connections_limit",
            "Largest number of connections to PostgreSQL, without those of look-ups by auth_token",
            |pool| pool.usage().max,
        ),
        ("database_connections_waiting", "Number of operations that wait for a connection", |pool| {
            pool.usage().waiting
        }),
    ];
    for (name, help, read) in gauges {
        let pool = pool.clone();
        register_gauge(registry, name, help, None, move || read(&pool));
    }
}
