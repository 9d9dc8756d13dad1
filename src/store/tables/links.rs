//! Queries of `core_mail_token`: the links that are mailed to users, each for one purpose and one address.

use std::time::Duration;

use diesel::{
    BoolExpressionMethods, ExpressionMethods, Insertable, OptionalExtension, QueryDsl, SelectableHelper,
};
use diesel_async::RunQueryDsl;

use super::{
    audit::AuditStatements,
    new_mail::{NewMail, NewOutboxRow, NoticedEvent},
    users::{UserRow, UserStatements},
};
use crate::{
    database::{DatabaseError, audit_log::RecordedEvents, columns::TimestampColumn, read, statements, write},
    domain::{AuditEvent, Email, MailKind, MailTokenDigest, MailTokenPurpose, Timestamp, User, UserId},
    store::{
        Store,
        schema::{core_mail_outbox, core_mail_token, core_user},
    },
};

/// Maximum time by which the creation of a link may be ahead of the clock. The clocks of instances differ by
/// less, and so does a clock that is wrong by a time zone.
const CREATED_AHEAD_MAX: Duration = Duration::from_hours(24);

/// The result of following a verification link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verification {
    /// The email is now verified. The token is used up, unless it is the `auth_token` in a link of the Django
    /// backend.
    Verified(User),
    /// The email was already verified.
    AlreadyVerified,
    /// The token is unknown, expired, void, for another purpose, or for an address that is no longer the
    /// user's email; or the user is disabled.
    Invalid,
}

/// The user that a link is created for.
#[derive(Debug, Clone, Copy)]
pub struct LinkOwner<'a> {
    /// The email of the user.
    pub email: &'a Email,
    /// The id that the user must have; `None` allows any.
    pub id: Option<UserId>,
}

/// Which older links of the same purpose a requested link leaves valid.
#[derive(Debug, Clone, Copy, Default)]
pub struct OlderLinks {
    /// A valid link that was created at this time or later is kept instead of creating another one.
    pub kept_since: Option<Timestamp>,
    /// True if the links that were mailed stay valid, because the mail of the new one may have to wait.
    pub mailed_stay_valid: bool,
}

/// The result of requesting a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestedLink {
    /// The link was created for this user. Older ones are void unless [`OlderLinks`] keeps them.
    Created(User),
    /// The user has a recent link, which stays valid; no link was created.
    Kept,
    /// There is no user who may have such a link.
    NoUser,
}

#[derive(Insertable)]
#[diesel(table_name = core_mail_token)]
struct NewMailTokenRow {
    user_id: i64,
    purpose: &'static str,
    email: String,
    digest: Vec<u8>,
    created_at: TimestampColumn,
    expires_at: TimestampColumn,
}

impl NewMailTokenRow {
    /// Returns the row of the link's token, or `None` for a mail without a link.
    fn of(user: UserId, mail: &NewMail, now: Timestamp) -> Option<Self> {
        let (purpose, digest) = mail.kind.purpose().zip(mail.digest)?;
        Some(Self {
            user_id: user.as_i64(),
            purpose: purpose.as_str(),
            email: mail.recipient.as_str().to_owned(),
            digest: digest.as_bytes().to_vec(),
            created_at: TimestampColumn(now),
            expires_at: TimestampColumn(mail.expires_at),
        })
    }
}

statements! {
    /// Statements on mailed links that are part of larger transactions.
    pub(crate) trait LinkStatements {
        /// Inserts the token of a mail's link, and enqueues the mail unless the calling service sends it
        /// itself.
        async fn enqueue_mail(&mut self, user: UserId, mail: &NewMail, now: Timestamp) -> Result<(), DatabaseError> {
            if let Some(token) = NewMailTokenRow::of(user, mail, now) {
                diesel::insert_into(core_mail_token::table).values(token).execute(self).await?;
            }
            if let Some(mail) = NewOutboxRow::of(Some(user), mail, now) {
                diesel::insert_into(core_mail_outbox::table).values(mail).execute(self).await?;
            }
            Ok(())
        }

        /// Deletes a user with all rows that belong to the user, records the event, and enqueues the notice.
        /// The row of the notice does not belong to the user, so it outlives the deletion.
        async fn delete_with_notice(
            &mut self,
            user: &User,
            noticed: NoticedEvent,
            recorded: &mut RecordedEvents,
        ) -> Result<(), DatabaseError> {
            diesel::delete(core_user::table.find(user.id.as_i64())).execute(self).await?;
            let notice = noticed.notice_to(user);
            if let Some(notice) = notice.and_then(|notice| NewOutboxRow::of(None, notice, noticed.event.at)) {
                diesel::insert_into(core_mail_outbox::table).values(notice).execute(self).await?;
            }
            self.record(noticed.event, recorded).await
        }

        /// Voids a user's unused links for one purpose, whether their mails were sent or not, and cancels the
        /// mails that are still waiting.
        async fn void_links(
            &mut self,
            user: UserId,
            purpose: MailTokenPurpose,
            now: Timestamp,
        ) -> Result<(), DatabaseError> {
            let unused = core_mail_token::table
                .filter(core_mail_token::user_id.eq(user.as_i64()))
                .filter(core_mail_token::purpose.eq(purpose.as_str()))
                .filter(is_unused_link());
            diesel::update(unused)
                .set(core_mail_token::voided_at.eq(Some(TimestampColumn(now))))
                .execute(self)
                .await?;
            self.cancel_waiting_mails(user, purpose, now).await
        }

        /// Cancels the waiting mails with a user's links for one purpose, and erases their tokens. Does not
        /// void the links: one whose mail is never sent cannot be used.
        async fn cancel_waiting_mails(
            &mut self,
            user: UserId,
            purpose: MailTokenPurpose,
            now: Timestamp,
        ) -> Result<(), DatabaseError> {
            let waiting = core_mail_outbox::table
                .filter(core_mail_outbox::user_id.eq(user.as_i64()))
                .filter(core_mail_outbox::kind.eq(MailKind::of_purpose(purpose).as_str()))
                .filter(core_mail_outbox::next_attempt_at.is_not_null());
            diesel::update(waiting)
                .set((
                    core_mail_outbox::next_attempt_at.eq(None::<TimestampColumn>),
                    core_mail_outbox::sealed_token.eq(None::<Vec<u8>>),
                    core_mail_outbox::gave_up_at.eq(Some(TimestampColumn(now))),
                    core_mail_outbox::last_error.eq(Some("cancelled: its link was voided or replaced")),
                ))
                .execute(self)
                .await?;
            Ok(())
        }

        /// Voids a user's unused links for every purpose except those that undo an email change. An intruder
        /// who has changed the email must not be able to void the link that undoes it.
        async fn void_account_links(&mut self, user: UserId, now: Timestamp) -> Result<(), DatabaseError> {
            for purpose in MailTokenPurpose::ALL {
                if purpose != MailTokenPurpose::UndoEmailChange {
                    self.void_links(user, purpose, now).await?;
                }
            }
            Ok(())
        }

        /// Voids a user's unused links that undo an email change and were created after this link.
        async fn void_later_undo_links(
            &mut self,
            user: UserId,
            link: MailTokenDigest,
            now: Timestamp,
        ) -> Result<(), DatabaseError> {
            let id: i64 = core_mail_token::table
                .filter(core_mail_token::digest.eq(link.as_bytes().to_vec()))
                .select(core_mail_token::id)
                .get_result(self)
                .await?;
            let later = core_mail_token::table
                .filter(core_mail_token::user_id.eq(user.as_i64()))
                .filter(core_mail_token::purpose.eq(MailTokenPurpose::UndoEmailChange.as_str()))
                .filter(core_mail_token::id.gt(id))
                .filter(is_unused_link());
            diesel::update(later)
                .set(core_mail_token::voided_at.eq(Some(TimestampColumn(now))))
                .execute(self)
                .await?;
            Ok(())
        }

        /// Uses up a user's link for this purpose. Returns the address that the link was mailed to, or `None`
        /// if the link is unknown, used, void, expired, or for another user or purpose.
        async fn use_link(
            &mut self,
            user: UserId,
            token: MailTokenDigest,
            purpose: MailTokenPurpose,
            now: Timestamp,
        ) -> Result<Option<Email>, DatabaseError> {
            let usable = core_mail_token::table
                .filter(core_mail_token::user_id.eq(user.as_i64()))
                .filter(is_usable_link(token.as_bytes().to_vec(), purpose.as_str(), TimestampColumn(now), latest_creation(now)));
            let mailed_to: Option<String> = diesel::update(usable)
                .set(core_mail_token::used_at.eq(Some(TimestampColumn(now))))
                .returning(core_mail_token::email)
                .get_result(self)
                .await
                .optional()?;
            Ok(mailed_to.map(Email::from_stored))
        }

        /// True if a link for this purpose was created for the user's email at `since` or later, and is valid
        /// at `now`.
        async fn has_recent_link(
            &mut self,
            user: &User,
            purpose: MailTokenPurpose,
            since: Timestamp,
            now: Timestamp,
        ) -> Result<bool, DatabaseError> {
            let recent = core_mail_token::table
                .filter(core_mail_token::user_id.eq(user.id.as_i64()))
                .filter(core_mail_token::purpose.eq(purpose.as_str()))
                .filter(core_mail_token::email.eq(user.email.as_str().to_owned()))
                .filter(core_mail_token::created_at.ge(TimestampColumn(since)))
                .filter(core_mail_token::created_at.le(latest_creation(now)))
                .filter(core_mail_token::expires_at.gt(TimestampColumn(now)))
                .filter(is_unused_link());
            Ok(diesel::select(diesel::dsl::exists(recent)).get_result(self).await?)
        }

        /// Locks the owner of a link. Every change locks the user's row before the rows that depend on it; in
        /// another order, two concurrent changes of one user could deadlock. Returns the user, or `None` if
        /// the token is unknown or the user is disabled.
        async fn lock_link_owner(&mut self, token: MailTokenDigest) -> Result<Option<User>, DatabaseError> {
            let owner: Option<i64> = core_mail_token::table
                .filter(core_mail_token::digest.eq(token.as_bytes().to_vec()))
                .select(core_mail_token::user_id)
                .get_result(self)
                .await
                .optional()?;
            match owner {
                Some(owner) => self.lock_enabled_user(UserId::from_i64(owner)).await,
                None => Ok(None),
            }
        }
    }
}

/// Query condition: true for the link with this digest if it is valid for this purpose at `now`.
#[diesel::dsl::auto_type]
fn is_usable_link(
    digest: Vec<u8>,
    purpose: &'static str,
    now: TimestampColumn,
    created_until: TimestampColumn,
) -> _ {
    core_mail_token::digest
        .eq(digest)
        .and(core_mail_token::purpose.eq(purpose))
        .and(core_mail_token::expires_at.gt(now))
        .and(core_mail_token::created_at.le(created_until))
        .and(is_unused_link())
}

/// Returns the latest time at which a link can have been created under a correct clock. A link with a later
/// time is ignored: it would stay valid, and prevent new links, for too long.
fn latest_creation(now: Timestamp) -> TimestampColumn {
    TimestampColumn(now.plus(CREATED_AHEAD_MAX))
}

/// Query condition: true for a link that is neither used nor void.
#[diesel::dsl::auto_type]
fn is_unused_link() -> _ {
    core_mail_token::used_at.is_null().and(core_mail_token::voided_at.is_null())
}

impl Store {
    /// Returns the owner of a link if the link is valid for this purpose at `now`. Does not use up the link.
    pub async fn find_link_owner(
        &self,
        token: MailTokenDigest,
        purpose: MailTokenPurpose,
        now: Timestamp,
    ) -> Result<Option<User>, DatabaseError> {
        let digest = token.as_bytes().to_vec();
        read!(&self.connections, connection => {
            let owner: Option<UserRow> = core_mail_token::table
                .inner_join(core_user::table)
                .filter(is_usable_link(digest, purpose.as_str(), TimestampColumn(now), latest_creation(now)))
                .select(UserRow::as_select())
                .get_result(connection)
                .await
                .optional()?;
            Ok(owner.map(User::from))
        })
    }

    /// Uses up the token with one conditional UPDATE and marks its user as verified, at the time of the
    /// event. Deletes the client addresses that are known from the user's logins: an earlier owner of the
    /// account may have used them. Records the event with this user, in the same
    /// transaction.
    pub async fn verify_email(
        &self,
        token: MailTokenDigest,
        event: AuditEvent,
    ) -> Result<Verification, DatabaseError> {
        let now = event.at;
        let digest = core_mail_token::digest.eq(token.as_bytes().to_vec());
        // Checked with a read, so that a made-up token does not cost a write transaction.
        let is_known: bool = read!(&self.connections, connection => {
            let known = diesel::dsl::exists(core_mail_token::table.filter(digest));
            Ok(diesel::select(known).get_result(connection).await?)
        })?;
        if !is_known {
            return Ok(Verification::Invalid);
        }
        write!(&self.connections, connection, recorded => {
            let Some(user) = connection.lock_link_owner(token).await? else { return Ok(Verification::Invalid) };
            let mailed_to = connection.use_link(user.id, token, MailTokenPurpose::VerifyEmail, now).await?;
            if mailed_to.as_ref() == Some(&user.email) && !user.is_verified {
                let verified = connection.set_verified(user.id, true, now).await?;
                connection.record(event.with_user(Some(user.auth_token)), recorded).await?;
                return Ok(Verification::Verified(verified));
            }
            // This call has not verified the email, but an earlier one may have done so. That is reported
            // only for a link that has been used, now or earlier, and was mailed to the present email of its
            // user.
            let is_already_verified: Option<bool> = core_mail_token::table
                .inner_join(core_user::table)
                .filter(core_mail_token::digest.eq(token.as_bytes().to_vec()))
                .filter(core_mail_token::purpose.eq(MailTokenPurpose::VerifyEmail.as_str()))
                .filter(core_mail_token::used_at.is_not_null())
                .filter(core_mail_token::email.eq(core_user::email))
                .select(core_user::is_verified)
                .get_result(connection)
                .await
                .optional()?;
            Ok(if is_already_verified == Some(true) { Verification::AlreadyVerified } else { Verification::Invalid })
        })
    }

    /// Creates a new link for the user with this email, and with this id if one is given, and enqueues its
    /// mail. Voids the user's older links for the same purpose, whether their mails were sent or not. Records
    /// the event; its time is that of all changes. Returns the user. Changes nothing and returns
    /// `None` if there is no such user, the user is disabled, or the link is to verify an email that is
    /// already verified.
    pub async fn replace_link(
        &self,
        owner: LinkOwner<'_>,
        purpose: MailTokenPurpose,
        mail: NewMail,
        event: AuditEvent,
    ) -> Result<Option<User>, DatabaseError> {
        match self.request_link(owner, purpose, mail, event, OlderLinks::default()).await? {
            RequestedLink::Created(user) => Ok(Some(user)),
            RequestedLink::Kept | RequestedLink::NoUser => Ok(None),
        }
    }

    /// Does what [`Store::replace_link`] does, except that `older` can keep older links valid. Changes
    /// nothing if an older link is kept instead of creating the new one.
    pub async fn request_link(
        &self,
        owner: LinkOwner<'_>,
        purpose: MailTokenPurpose,
        mail: NewMail,
        event: AuditEvent,
        older: OlderLinks,
    ) -> Result<RequestedLink, DatabaseError> {
        let (email, owner_id, now) = (owner.email.as_str().to_owned(), owner.id, event.at);
        write!(&self.connections, connection, recorded => {
            // Of two concurrent calls, the later one waits for this lock and voids the link of the earlier
            // one.
            let with_email = connection.lock_user_by_email(&email).await?;
            let Some(user) = with_email.filter(|user| owner_id.is_none_or(|id| user.id == id)) else {
                return Ok(RequestedLink::NoUser);
            };
            let needs_no_link = purpose == MailTokenPurpose::VerifyEmail && user.is_verified;
            if needs_no_link || connection.is_user_disabled(user.id).await? {
                return Ok(RequestedLink::NoUser);
            }
            if let Some(since) = older.kept_since
                && connection.has_recent_link(&user, purpose, since, now).await?
            {
                return Ok(RequestedLink::Kept);
            }
            if older.mailed_stay_valid {
                connection.cancel_waiting_mails(user.id, purpose, now).await?;
            } else {
                connection.void_links(user.id, purpose, now).await?;
            }
            connection.enqueue_mail(user.id, &mail, now).await?;
            connection.record(event.with_user(Some(user.auth_token)), recorded).await?;
            Ok(RequestedLink::Created(user))
        })
    }
}
