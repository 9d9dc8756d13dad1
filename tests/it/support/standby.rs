//! A replica of a cluster: a real standby, which replays what the primary streams to it and answers what only reads.

use std::{ops::Deref, time::Duration};

use super::{
    postgres::{Postgres, PostgresDatabase, program},
    wait::until_blocking,
};

/// What is written on loopback is replayed in milliseconds; this is for a busy machine.
const REPLAY_LIMIT: Duration = Duration::from_secs(20);

/// A standby; what it shares with every cluster, such as being stopped and frozen, is [`Postgres`]'s.
pub struct Standby {
    server: Postgres,
}

impl Standby {
    /// A running one, made from a base backup of `primary`.
    pub fn of(primary: &Postgres) -> Self {
        let server = Postgres::made_with(|data, server| {
            let mut command = server.command(program("pg_basebackup"));
            command.args(["-h", "127.0.0.1", "-p", &primary.port().to_string(), "-U", "postgres"]);
            command.arg("-D").arg(data).args(["-R", "-X", "stream", "-c", "fast", "--no-sync"]);
            command
        });
        let standby = Self { server };
        standby.catch_up(primary);
        standby
    }

    /// Where a database of the primary's is here.
    pub fn url(&self, database: &PostgresDatabase) -> String {
        database.url_at(self.port(), "postgres")
    }

    /// `HOST:PORT`, as the service's log names it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// Waits until all that `primary` has committed is seen here.
    pub fn catch_up(&self, primary: &Postgres) {
        let committed = primary.psql("postgres", "SELECT pg_current_wal_flush_lsn()");
        self.wait_until(&format!("pg_last_wal_replay_lsn() >= '{committed}'"));
    }

    /// From here on receives what the primary writes and does not show it.
    pub fn pause_replay(&self) {
        self.psql("postgres", "SELECT pg_wal_replay_pause()");
        self.wait_until("pg_get_wal_replay_pause_state() = 'paused'");
    }

    /// Ends [`Standby::pause_replay`].
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
