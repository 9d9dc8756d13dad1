//! `[database]`

use std::path::PathBuf;

use super::{
    database_url::{DatabaseUrl, DatabaseUrls, redacted_urls},
    number::{Count, Span},
    section::section,
    setting::Flag,
    url_text::redacted,
};

section! {
    /// The database. SQLite is built in; PostgreSQL must be version 15 or later.
    DatabaseSettings in "database" {
        /// The database: `sqlite:///folder/file`, `sqlite://relative/file` or
        /// `postgres://user:password@host:port/database`. Connections to PostgreSQL use TLS and verify the
        /// certificate. `?sslmode=disable` turns TLS off; without an `sslmode` it is also off on loopback and
        /// on Unix sockets. `?sslrootcert=FILE` names the root certificates to trust. A PostgreSQL URL has
        /// the form that libpq reads: several hosts (`postgres://h1:p1,h2:p2/database`) are tried in their
        /// order, beginning with the one used last, each for `database.connect-timeout`; `?host=/folder`
        /// names the folder of a Unix socket. Of several hosts, one that accepts writes is used, and left
        /// when it no longer does; `?target_session_attrs=VALUE` demands something else.
        #[flag(Flag::of_every_command(
            "database-url", "URL",
            "The database: sqlite:///folder/file, sqlite://relative/file or \
             postgres://user:password@host/database",
        ))]
        #[secret(redacted)]
        url: DatabaseUrl = "sqlite://data/kairos-identity.sqlite3",
        /// A file that contains `database.url`, so that its password appears in no environment and no process
        /// list.
        url_file: Option<PathBuf> = "",
        /// PostgreSQL: the URLs of read replicas, in the form of `database.url`, separated by commas. Each
        /// URL has one host. Replicas serve look-ups (`ResolveToken`, `ResolveTokens`) only. A token that a
        /// replica does not find is looked up on the primary. Each replica gets a connection for each lane
        /// (`lookup.lanes`), and up to as many more for a moment. The role needs `SELECT` on `core_user` and
        /// `kairos_heartbeat`: a replica is used while it shows the row that this instance writes into
        /// `kairos_heartbeat` of the primary every 5 s. The log says at the start which replicas are used,
        /// and why others are not.
        #[secret(redacted_urls)]
        read_urls: DatabaseUrls = "",
        /// A file that contains `database.read-urls`, separated by commas or line breaks, so that their
        /// passwords appear in no environment and no process list.
        read_urls_file: Option<PathBuf> = "",
        /// PostgreSQL: the maximum lag of a replica. A look-up sees each change after at most this time plus
        /// 0.5 to 0.9 s (measured with `1s`), because a replica that lags further or does not answer is still
        /// used until the next probe shows it. It is taken out of use within 2 s, and is used again once it
        /// has recovered. While the primary does not answer, the lag is judged by the last positions that the
        /// primary reported.
        replica_lag_max: Span<100, 3_600_000> = "1s",
        /// PostgreSQL: set this to true if connections pass through PgBouncer in transaction mode. The
        /// service then sets no session parameters, since they would affect other clients, except the time
        /// zone and the encoding, which PgBouncer tracks; docs/pgbouncer.md lists the parameters that the
        /// role needs instead.
        pooler: bool = "false",
        /// PostgreSQL: how long `serve` and `migrate` wait for a server that cannot be reached or does not
        /// accept connections yet, with a line in the log every second. Any other error, such as a wrong
        /// password or a missing database, ends the start at once. `0s`: do not wait.
        startup_wait: Span<0, 3_600_000> = "60s",
        /// How long no row is deleted because of its age, after the clock has jumped forward by an hour or
        /// more, or after a start that finds a day without any stored event. An operator can correct a wrong
        /// clock in this time. Meanwhile no registration replaces an earlier one that was never verified.
        /// `0s`: never pause.
        deletion_pause: Span<0, 2_592_000_000> = "24h",
        /// PostgreSQL: maximum number of pooled connections on which writes run. Reads have an eighth more
        /// (at least two), on which they go on while writes hang, as behind a synchronous standby that is
        /// gone. Look-ups by `auth_token` have connections of their own, one for each lane (`lookup.lanes`,
        /// by default one for each thread), and for a moment after connections were lost up to as many more.
        /// Beyond them there may be one that monitors replication if there are replicas, and two that check
        /// the server if the URL has several hosts.
        pool_size: Count<1, 1_000> = "16",
        /// PostgreSQL: time limit for opening a connection to one address of a host. Of a name with several
        /// addresses, the first four are tried.
        connect_timeout: Span<50, 60_000> = "1s",
        /// PostgreSQL: how long a call waits for a connection before it fails with `UNAVAILABLE`.
        acquire_timeout: Span<50, 60_000> = "1s",
        /// PostgreSQL: time limit of a statement, its waits for locks included.
        statement_timeout: Span<50, 600_000> = "3s",
        /// PostgreSQL: time after which an unused connection is closed.
        idle_timeout: Span<1_000, 86_400_000> = "10m",
        /// PostgreSQL: maximum age of a connection, so that load spreads out again after a failover.
        connection_lifetime: Span<1_000, 86_400_000> = "30m",
        /// SQLite: number of threads that read. Look-ups by `auth_token` have their own connections. More
        /// threads than cores only wait for each other.
        sqlite_readers: Count<1, 16> = "2",
        /// SQLite: how long a statement waits for a lock of another process. The time that a write has waited
        /// for its turn counts too, so writes behind a lock fail together. Look-ups by `auth_token` wait at
        /// most 100 ms.
        sqlite_busy_timeout: Span<0, 60_000> = "5s",
        /// SQLite: maximum number of reads that wait, and also of writes that wait; beyond it calls fail with
        /// `OVERLOADED`.
        sqlite_queue_length: Count<1, 100_000> = "1024",
    }
}
