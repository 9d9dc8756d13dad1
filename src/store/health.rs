//! Checks what the database can do now, for the health service: log users in, look users up, write.

#![expect(clippy::missing_errors_doc, reason = "every check fails with the error that a call would have met")]

use diesel::{ExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper};
use diesel_async::RunQueryDsl;

use super::{
    Store,
    schema::{core_mail_outbox, core_mail_token, core_session, core_throttle, core_user},
    tables::users::UserRow,
};
use crate::{
    database::{Connections, DatabaseError, read},
    domain::{AuthToken, User},
};

/// The rights on PostgreSQL's tables without which users cannot register, verify their email, log in or get
/// mails.
const RIGHTS: &[(&str, &str)] = &[
    ("core_user", "SELECT"),
    ("core_user", "INSERT"),
    ("core_user", "UPDATE"),
    ("core_user", "DELETE"),
    ("core_session", "SELECT"),
    ("core_session", "INSERT"),
    ("core_session", "UPDATE"),
    ("core_session", "DELETE"),
    ("core_throttle", "SELECT"),
    ("core_throttle", "INSERT"),
    ("core_throttle", "UPDATE"),
    ("core_throttle", "DELETE"),
    ("core_password_attempt", "SELECT"),
    ("core_password_attempt", "INSERT"),
    ("core_password_attempt", "DELETE"),
    ("core_registration_request", "SELECT"),
    ("core_registration_request", "INSERT"),
    ("core_registration_request", "DELETE"),
    ("core_known_address", "SELECT"),
    ("core_known_address", "INSERT"),
    ("core_known_address", "DELETE"),
    ("core_mail_token", "SELECT"),
    ("core_mail_token", "INSERT"),
    ("core_mail_token", "UPDATE"),
    ("core_mail_outbox", "SELECT"),
    ("core_mail_outbox", "INSERT"),
    ("core_mail_outbox", "UPDATE"),
    ("core_mail_outbox", "DELETE"),
    ("core_disabled_user", "SELECT"),
    ("core_imported_user", "SELECT"),
    ("core_signing_key", "SELECT"),
    ("core_audit_event", "INSERT"),
];

impl Store {
    /// Reads a user and the password hash as a login does: from the table, and by the index on the email.
    /// Returns the `auth_token` of the user; `None` if there are no users.
    pub async fn check_logins(&self) -> Result<Option<AuthToken>, DatabaseError> {
        read!(&self.connections, connection => {
            let first: Option<UserRow> = core_user::table
                .order(core_user::id)
                .select(UserRow::as_select())
                .first(connection)
                .await
                .optional()?;
            let Some(user) = first.map(User::from) else { return Ok(None) };
            let by_email = core_user::table.filter(core_user::email.eq(user.email.as_str().to_owned()));
            let _: Option<String> = by_email.select(core_user::password).get_result(connection).await.optional()?;
            Ok(Some(user.auth_token))
        })
    }

    /// Looks a user up in the same way as the calls do: by a lane, and on a replica if one is in use.
    pub async fn check_look_ups(&self, user: AuthToken) -> Result<(), DatabaseError> {
        self.find_user_by_auth_token(user).await.map(drop)
    }

    /// Writes to the disk of the database without changing a row, and reads the tables that a login writes
    /// to, so that an unreadable page is noticed. On PostgreSQL, also checks the rights of a registration and
    /// of a login and takes their locks, so that a missing right and a table lock of another client are
    /// noticed.
    pub async fn check_writes(&self) -> Result<(), DatabaseError> {
        match &self.connections {
            Connections::Sqlite(threads) => threads.check_writes().await?,
            Connections::Postgres(pool) => pool.check_writes(RIGHTS).await?,
        }
        self.read_written_tables().await
    }

    /// Reads a row of the tables that a login writes to, besides those of [`Store::check_logins`].
    async fn read_written_tables(&self) -> Result<(), DatabaseError> {
        read!(&self.connections, connection => {
            // The columns are in no index, which would be read instead of the table.
            let _: Option<String> = core_session::table.select(core_session::caller).first(connection).await.optional()?;
            let _: Option<i32> = core_throttle::table.select(core_throttle::attempts).first(connection).await.optional()?;
            let _: Option<String> = core_mail_token::table.select(core_mail_token::email).first(connection).await.optional()?;
            let _: Option<String> = core_mail_outbox::table.select(core_mail_outbox::recipient).first(connection).await.optional()?;
            Ok(())
        })
    }

    /// Returns the number of transactions that SQLite's writer has committed, without those of write checks.
    /// Returns `None` on PostgreSQL, where no queue makes a write wait for all earlier ones.
    #[must_use]
    pub fn committed_by_writer(&self) -> Option<u64> {
        match &self.connections {
            Connections::Sqlite(threads) => Some(threads.commits()),
            Connections::Postgres(_) => None,
        }
    }

    /// Returns the number of writes that failed since the start because the disk is full. On a full disk the
    /// write check may still succeed: it adds no page to a table.
    #[must_use]
    pub fn disk_full_failures(&self) -> u64 {
        match &self.connections {
            Connections::Sqlite(threads) => threads.disk_full_failures().count(),
            Connections::Postgres(pool) => pool.disk_full_failures().count(),
        }
    }

    /// True if the last check of a SQLite file found that it was moved, deleted, replaced or overwritten.
    /// False on PostgreSQL.
    #[must_use]
    pub fn is_file_lost(&self) -> bool {
        match &self.connections {
            Connections::Sqlite(threads) => threads.file().require_present().is_err(),
            Connections::Postgres(_) => false,
        }
    }

    /// Watches a SQLite file until the future is dropped: notices that it was moved, deleted or replaced, and
    /// warns of readers that keep its WAL from being checkpointed. Returns at once on PostgreSQL.
    pub async fn watch_file(&self) {
        if let Connections::Sqlite(threads) = &self.connections {
            threads.watch().await;
        }
    }
}
