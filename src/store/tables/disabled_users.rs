//! Changes that an operator makes to the state of a user: disabled (`core_disabled_user`) and verified.

use diesel::{ExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper};
use diesel_async::RunQueryDsl;

use super::{
    audit::record,
    mails::{NewMail, post, void_links},
    sessions::end_sessions_of,
    users::UserRow,
};
use crate::domain::{AuditEvent, MailTokenPurpose, User, UserId};
use crate::store::{
    Store, StoreError,
    columns::TimestampColumn,
    connection::write,
    schema::{core_disabled_user, core_user},
};

/// Query condition: true if the user is disabled. `$user` is an id or a column.
macro_rules! is_disabled {
    ($user:expr) => {{
        use $crate::store::schema::core_disabled_user;
        diesel::dsl::exists(core_disabled_user::table.filter(core_disabled_user::user_id.eq($user)))
    }};
}
pub(super) use is_disabled;

/// Locks a user's row and returns the user, or `None` if the user was deleted. Other data about the user must
/// be read after this lock: what a transaction read before may have changed while it waited.
macro_rules! lock_user {
    ($connection:expr, $user:expr) => {{
        use $crate::store::{schema::core_user, tables::users::UserRow};
        let user: $crate::domain::UserId = $user;
        // An UPDATE that changes nothing locks the row on both engines.
        diesel::update(core_user::table.find(user.as_i64()))
            .set(core_user::is_verified.eq(core_user::is_verified))
            .returning(UserRow::as_returning())
            .get_result($connection)
            .await
            .optional()?
            .map($crate::domain::User::from)
    }};
}
pub(super) use lock_user;

impl Store {
    /// Marks the user's email as verified, at the time of the event. Records the event if the user changed.
    /// Returns the user and whether it changed, or `None` if the user was deleted.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn mark_verified(
        &self,
        user: UserId,
        event: AuditEvent,
    ) -> Result<Option<(User, bool)>, StoreError> {
        self.set_verified(user, true, None, event).await
    }

    /// Marks the user's email as not verified, ends all sessions and voids all links. Enqueues a new
    /// verification link, unless the user is disabled or has another email by now. Otherwise as
    /// [`Store::mark_verified`].
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn mark_unverified(
        &self,
        user: UserId,
        link: NewMail,
        event: AuditEvent,
    ) -> Result<Option<(User, bool)>, StoreError> {
        self.set_verified(user, false, Some(link), event).await
    }

    async fn set_verified(
        &self,
        user: UserId,
        is_verified: bool,
        link: Option<NewMail>,
        event: AuditEvent,
    ) -> Result<Option<(User, bool)>, StoreError> {
        let now = event.at;
        write!(&self.connections, connection => {
            let Some(user) = lock_user!(connection, user) else { return Ok(None) };
            if user.is_verified == is_verified {
                return Ok(Some((user, false)));
            }
            let user: UserRow = diesel::update(core_user::table.find(user.id.as_i64()))
                .set((core_user::is_verified.eq(is_verified), core_user::updated_at.eq(TimestampColumn(now))))
                .returning(UserRow::as_returning())
                .get_result(connection)
                .await?;
            let user = User::from(user);
            if !is_verified {
                for purpose in MailTokenPurpose::ALL {
                    void_links!(connection, user.id, purpose, now);
                }
                end_sessions_of!(connection, user.id.as_i64(), None);
            }
            let is_disabled: bool =
                diesel::select(is_disabled!(user.id.as_i64())).get_result(connection).await?;
            // The link is for the email that the user had when the link was made. A disabled user gets a link
            // when an operator enables the user again.
            if let Some(link) = link.filter(|link| !is_disabled && link.recipient == user.email) {
                post!(connection, user.id, &link, now);
            }
            record!(connection, event);
            Ok(Some((user, true)))
        })
    }

    /// Disables a user from the time of the event: ends all sessions, voids all links and records the event.
    /// Returns true if the user was enabled before, false if the user was already disabled, and `None` if the
    /// user was deleted.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn disable_user(&self, user: UserId, event: AuditEvent) -> Result<Option<bool>, StoreError> {
        let now = event.at;
        write!(&self.connections, connection => {
            let Some(user) = lock_user!(connection, user) else { return Ok(None) };
            let id = user.id.as_i64();
            if diesel::select(is_disabled!(id)).get_result::<bool>(connection).await? {
                return Ok(Some(false));
            }
            diesel::insert_into(core_disabled_user::table)
                .values((core_disabled_user::user_id.eq(id), core_disabled_user::disabled_at.eq(TimestampColumn(now))))
                .execute(connection)
                .await?;
            for purpose in MailTokenPurpose::ALL {
                void_links!(connection, user.id, purpose, now);
            }
            end_sessions_of!(connection, id, None);
            record!(connection, event);
            Ok(Some(true))
        })
    }

    /// Enables a disabled user and records the event. Returns false if the user was not disabled or does not
    /// exist. Enqueues a verification link if the user's email is not verified; without a link, the next
    /// purge could delete the user as abandoned.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn enable_user(
        &self,
        user: UserId,
        link: NewMail,
        event: AuditEvent,
    ) -> Result<bool, StoreError> {
        write!(&self.connections, connection => {
            let Some(user) = lock_user!(connection, user) else { return Ok(false) };
            let disabled = core_disabled_user::table.find(user.id.as_i64());
            if diesel::delete(disabled).execute(connection).await? == 0 {
                return Ok(false);
            }
            if !user.is_verified && link.recipient == user.email {
                post!(connection, user.id, &link, event.at);
            }
            record!(connection, event);
            Ok(true)
        })
    }
}
