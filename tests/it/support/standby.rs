//! A replica of a cluster: a real PostgreSQL standby that replays the WAL of the primary and serves read-only
//! queries.

use std::{ops::Deref, time::Duration};

use super::{
    postgres::{Postgres, PostgresDatabase, program},
    wait::until_blocking,
};

/// Time limit for the replay. On loopback it takes milliseconds; the limit allows for a busy machine.
const REPLAY_LIMIT: Duration = Duration::from_secs(20);

/// A standby. It dereferences to [`Postgres`], so that it can be stopped, started and frozen like any
/// cluster.
pub struct Standby {
    server: Postgres,
}

impl Standby {
    /// Creates a standby from a base backup of `primary`, starts it, and waits until it has caught up.
    pub fn of(primary: &Postgres) -> Self {
        let server = Postgres::create_with(|data, server| {
            let mut command = server.command(program("pg_basebackup"));
            command.args(["-h", "127.0.0.1", "-p", &primary.port().to_string(), "-U", "postgres"]);
            command.arg("-D").arg(data).args(["-R", "-X", "stream", "-c", "fast", "--no-sync"]);
            command
        });
        let standby = Self { server };
        standby.catch_up(primary);
        standby
    }

    /// Returns the URL on this standby of a database of the primary.
    pub fn url(&self, database: &PostgresDatabase) -> String {
        database.url_at(self.port(), "postgres")
    }

    /// Returns `HOST:PORT` as the log of the service shows it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// Waits until the standby has replayed everything that `primary` has committed.
    pub fn catch_up(&self, primary: &Postgres) {
        let committed = primary.psql("postgres", "SELECT pg_current_wal_flush_lsn()");
        self.wait_until(&format!("pg_last_wal_replay_lsn() >= '{committed}'"));
    }

    /// Pauses the replay: the standby still receives the WAL of the primary, but queries do not see it.
    pub fn pause_replay(&self) {
        self.psql("postgres", "SELECT pg_wal_replay_pause()");
        self.wait_until("pg_get_wal_replay_pause_state() = 'paused'");
    }

    /// Resumes the replay after [`Standby::pause_replay`].
    pub fn resume_replay(&self) {
        self.psql("postgres", "SELECT pg_wal_replay_resume()");
    }

    fn wait_until(&self, condition: &str) {
        until_blocking(&format!("{condition} on the standby"), REPLAY_LIMIT, || {
            (self.psql("postgres", &format!("SELECT {condition}")) == "t").then_some(())
        });
    }
}

impl Deref for Standby {
    type Target = Postgres;

    fn deref(&self) -> &Postgres {
        &self.server
    }
}
