//! Fills a database with users.

use std::{fmt::Write, time::Duration};

use clap::Args;
use diesel::{Connection, SqliteConnection, connection::SimpleConnection};
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use kairos_identity::{
    domain::NewPassword,
    env::Env,
    password::{PasswordOptions, Passwords},
};

use crate::{
    Failure,
    tokens::{PASSWORD, auth_token, email},
};

const ROWS_PER_STATEMENT: u64 = 1_000;

#[derive(Debug, Args)]
pub struct Seed {
    /// Database: sqlite://... or postgres://..., migrated and without these users
    #[arg(long)]
    database_url: String,
    /// Number of users
    #[arg(long)]
    users: u64,
    /// Number of the first user
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// bcrypt cost of the hash of the users' password
    #[arg(long, default_value_t = 12)]
    cost: u32,
}

impl Seed {
    pub async fn run(self) -> Result<(), Failure> {
        let passwords = Passwords::start(
            PasswordOptions {
                cost: self.cost,
                threads: 1,
                queue_length: 1,
                refusal_time_max: Duration::ZERO,
            },
            Env::system(),
        )?;
        let password = NewPassword::parse(PASSWORD.to_owned(), 1).map_err(|refusal| refusal.to_string())?;
        let hash = passwords.hash(&password).await?.expose().to_owned();
        let statements = (self.from..self.from + self.users)
            .step_by(1_000)
            .map(|first| insert(first, ROWS_PER_STATEMENT.min(self.from + self.users - first), &hash));
        if let Some(path) = self.database_url.strip_prefix("sqlite://") {
            let mut connection = SqliteConnection::establish(path)?;
            connection
                .batch_execute("PRAGMA busy_timeout = 60000; PRAGMA cache_size = -200000; BEGIN IMMEDIATE")?;
            for statement in statements {
                connection.batch_execute(&statement)?;
            }
            connection.batch_execute("COMMIT; ANALYZE; PRAGMA wal_checkpoint(TRUNCATE)")?;
        } else {
            let mut connection = AsyncPgConnection::establish(&self.database_url).await?;
            connection.batch_execute("SET synchronous_commit = off").await?;
            for statement in statements {
                connection.batch_execute(&statement).await?;
            }
            connection.batch_execute("VACUUM ANALYZE core_user").await?;
            connection.batch_execute("CHECKPOINT").await?;
        }
        Ok(())
    }
}

fn insert(first: u64, count: u64, hash: &str) -> String {
    let mut sql = String::from(
        "INSERT INTO core_user (username, username_key, email, password, is_verified, auth_token, created_at, updated_at) VALUES ",
    );
    for user in first..first + count {
        let separator = if user == first { "" } else { ", " };
        let (token, email) = (auth_token(user), email(user));
        let _ = write!(
            sql,
            "{separator}('User {user}', 'user {user}', '{email}', '{hash}', TRUE, '{token}', \
             '2026-01-01 00:00:00.000001', '2026-01-02 00:00:00.000002')"
        );
    }
    sql
}
