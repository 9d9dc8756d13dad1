//! Changes that an operator makes to the state of a user: verified, disabled (`core_disabled_user`) and
//! deleted.

use diesel::{ExpressionMethods, QueryDsl};
use diesel_async::RunQueryDsl;

use super::{
    audit::AuditStatements,
    links::LinkStatements,
    new_mail::{NewMail, NoticedEvent},
    sessions::SessionStatements,
    users::UserStatements,
};
use crate::{
    database::{DatabaseError, columns::TimestampColumn, write},
    domain::{AuditEvent, User, UserId},
    store::{Store, schema::core_disabled_user},
};

impl Store {
    /// Marks the user's email as verified, at the time of the event, and records the event. `set_verified`
    /// also deletes the network addresses from which the user has begun sessions. Changes and records nothing
    /// if the email is already verified. Returns the user, or `None` if the user was deleted.
    pub async fn mark_verified(
        &self,
        user: UserId,
        event: AuditEvent,
    ) -> Result<Option<User>, DatabaseError> {
        write!(&self.connections, connection, recorded => {
            let Some(user) = connection.lock_user(user).await? else { return Ok(None) };
            if user.is_verified {
                return Ok(Some(user));
            }
            let verified = connection.set_verified(user.id, true, event.at).await?;
            connection.record(event, recorded).await?;
            Ok(Some(verified))
        })
    }

    /// Marks the user's email as not verified, revokes all sessions and voids all links except those that
    /// undo an email change. Enqueues `link`, which verifies the email, unless the user is disabled or has
    /// another email by now. Otherwise as [`Store::mark_verified`].
    pub async fn mark_unverified(
        &self,
        user: UserId,
        link: NewMail,
        event: AuditEvent,
    ) -> Result<Option<User>, DatabaseError> {
        let now = event.at;
        write!(&self.connections, connection, recorded => {
            let Some(user) = connection.lock_user(user).await? else { return Ok(None) };
            if !user.is_verified {
                return Ok(Some(user));
            }
            let user = connection.set_verified(user.id, false, now).await?;
            connection.revoke_access(user.id, now).await?;
            // The link is for the email that the user had when the link was made. A disabled user gets a link
            // when an operator enables the user again.
            if link.recipient == user.email && !connection.is_user_disabled(user.id).await? {
                connection.enqueue_mail(user.id, &link, now).await?;
            }
            connection.record(event, recorded).await?;
            Ok(Some(user))
        })
    }

    /// Disables a user from the time of the event: revokes all sessions, deletes the known addresses, voids
    /// all links except those that undo an email change, records the event and enqueues its notice. Changes
    /// nothing if the user is already disabled. Returns false if the user was deleted.
    pub async fn disable_user(
        &self,
        user: UserId,
        event: impl Into<NoticedEvent>,
    ) -> Result<bool, DatabaseError> {
        let noticed = event.into();
        let now = noticed.event.at;
        write!(&self.connections, connection, recorded => {
            let Some(user) = connection.lock_user(user).await? else { return Ok(false) };
            if connection.is_user_disabled(user.id).await? {
                return Ok(true);
            }
            diesel::insert_into(core_disabled_user::table)
                .values((core_disabled_user::user_id.eq(user.id.as_i64()), core_disabled_user::disabled_at.eq(TimestampColumn(now))))
                .execute(connection)
                .await?;
            connection.revoke_access(user.id, now).await?;
            if let Some(notice) = noticed.notice_to(&user) {
                connection.enqueue_mail(user.id, notice, now).await?;
            }
            connection.record(noticed.event, recorded).await?;
            Ok(true)
        })
    }

    /// Deletes a user with their sessions, links, mails and registration requests, records the event and
    /// enqueues its notice. Returns false if the user does not exist.
    pub async fn delete_user(
        &self,
        user: UserId,
        event: impl Into<NoticedEvent>,
    ) -> Result<bool, DatabaseError> {
        let event = event.into();
        write!(&self.connections, connection, recorded => {
            let Some(user) = connection.lock_user(user).await? else { return Ok(false) };
            connection.delete_with_notice(&user, event, recorded).await?;
            Ok(true)
        })
    }

    /// Enables a disabled user and records the event. Returns false if the user was not disabled or does not
    /// exist. Enqueues a verification link if the user's email is not verified; without a link, the next
    /// purge could delete the user as abandoned.
    pub async fn enable_user(
        &self,
        user: UserId,
        link: NewMail,
        event: AuditEvent,
    ) -> Result<bool, DatabaseError> {
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
