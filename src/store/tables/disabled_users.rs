//! Changes that an operator makes to the state of a user: disabled (`core_disabled_user`) and verified.

use diesel::{ExpressionMethods, QueryDsl};
use diesel_async::RunQueryDsl;

use super::{
    audit::AuditStatements, links::LinkStatements, outbox::NewMail, sessions::SessionStatements,
    users::UserStatements,
};
use crate::{
    domain::{AuditEvent, User, UserId},
    store::{Store, StoreError, columns::TimestampColumn, connection::write, schema::core_disabled_user},
};

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
        write!(&self.connections, connection, recorded => {
            let Some(user) = connection.lock_user(user).await? else { return Ok(None) };
            if user.is_verified == is_verified {
                return Ok(Some((user, false)));
            }
            let user = connection.set_verified(user.id, is_verified, now).await?;
            if !is_verified {
                connection.void_all_links(user.id, now).await?;
                connection.delete_sessions_of(user.id, None).await?;
            }
            let is_disabled = connection.is_user_disabled(user.id).await?;
            // The link is for the email that the user had when the link was made. A disabled user gets a link
            // when an operator enables the user again.
            if let Some(link) = link.filter(|link| !is_disabled && link.recipient == user.email) {
                connection.enqueue_mail(user.id, &link, now).await?;
            }
            connection.record(event, recorded).await?;
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
        write!(&self.connections, connection, recorded => {
            let Some(user) = connection.lock_user(user).await? else { return Ok(None) };
            if connection.is_user_disabled(user.id).await? {
                return Ok(Some(false));
            }
            diesel::insert_into(core_disabled_user::table)
                .values((core_disabled_user::user_id.eq(user.id.as_i64()), core_disabled_user::disabled_at.eq(TimestampColumn(now))))
                .execute(connection)
                .await?;
            connection.void_all_links(user.id, now).await?;
            connection.delete_sessions_of(user.id, None).await?;
            connection.record(event, recorded).await?;
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
        write!(&self.connections, connection, recorded => {
            let Some(user) = connection.lock_user(user).await? else { return Ok(false) };
            let disabled = core_disabled_user::table.find(user.id.as_i64());
            if diesel::delete(disabled).execute(connection).await? == 0 {
                return Ok(false);
            }
            if !user.is_verified && link.recipient == user.email {
                connection.enqueue_mail(user.id, &link, event.at).await?;
            }
            connection.record(event, recorded).await?;
            Ok(true)
        })
    }
}
