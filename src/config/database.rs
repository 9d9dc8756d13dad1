//! `[database]`

use std::path::PathBuf;

use super::{
    database_url::{DatabaseUrl, DatabaseUrls},
    setting::section,
    value::{Count, Span},
};

section! {
    /// The store. SQLite is built in; PostgreSQL must be 15 or later.
    DatabaseSettings in "database" {
        /// Where the data is: `sqlite:///folder/file`, `sqlite://relative/file` or `postgres://user:password@host:port/database`.
        /// PostgreSQL is spoken to over TLS, and its certificate checked, unless it is on loopback or `?sslmode=disable`
        /// says otherwise; `?sslrootcert=FILE` names the roots to trust.
        url: DatabaseUrl = "sqlite://data/kairos-identity.sqlite3",
        /// A file that holds the URL, so that its password is in no environment and no process list.
        url_file: Option<PathBuf> = "",
        /// PostgreSQL: replicas, which serve look-ups (`ResolveToken`, `ResolveTokens`) only, as URLs like `database.url`
        /// with commas between. Whom a replica does not know, the primary is asked. Each replica gets
        /// `database.pool-size` connections at most.
        read_urls: DatabaseUrls = "",
        /// A file that holds them, so that their passwords are in no environment and no process list.
        read_urls_file: Option<PathBuf> = "",
        /// PostgreSQL: how far a replica may be behind, and so how late a look-up may see a change. One that is further behind,
        /// or does not answer, is left out within 2 s and taken back by itself. While the primary is silent, a replica that
        /// has what the primary wrote last goes on.
        replica_lag_max: Span<100, 3_600_000> = "1s",
        /// PostgreSQL: whether there is PgBouncer in transaction mode between, so that settings would reach others:
        /// docs/pgbouncer.md says what the role must have instead.
        pooler: bool = "false",
        /// PostgreSQL: how many connections at most. Beyond them, `lookup.lanes` more for a moment where connections were lost,
        /// and one for the watch over replicas.
        pool_size: Count<1, 1_000> = "16",
        /// PostgreSQL: how long a connection may take to be made.
        connect_timeout: Span<50, 60_000> = "1s",
        /// PostgreSQL: how long a call may wait for a connection before it is `UNAVAILABLE`.
        acquire_timeout: Span<50, 60_000> = "1s",
        /// PostgreSQL: how long a statement may run.
        statement_timeout: Span<50, 600_000> = "3s",
        /// PostgreSQL: after how long unused a connection is closed.
        idle_timeout: Span<1_000, 86_400_000> = "10m",
        /// PostgreSQL: after how long a connection is closed in any case, so that load spreads out after a failover.
        connection_lifetime: Span<1_000, 86_400_000> = "30m",
        /// SQLite: how many threads read, look-ups apart. More than there are cores only wait for each other.
        sqlite_readers: Count<1, 16> = "2",
        /// SQLite: how long a statement waits for another process that writes.
        sqlite_busy_timeout: Span<0, 60_000> = "5s",
        /// SQLite: how many reads, and as many writes, may wait before calls are `OVERLOADED`.
        sqlite_queue_length: Count<1, 100_000> = "1024",
    }
}
