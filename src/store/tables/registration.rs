//! Registration. The user, the mailed token, its mail and the caller's request id are written in one
//! transaction.

use diesel::{ExpressionMethods, Insertable, OptionalExtension, QueryDsl, SelectableHelper};
use diesel_async::RunQueryDsl;

use super::{
    audit::AuditStatements, links::LinkStatements, never_verified_users::NeverVerifiedUserStatements,
    new_mail::NewMail, users::UserRow,
};
use crate::{
    database::{
        DatabaseError,
        columns::{TimestampColumn, UuidColumn},
        read, statements, write,
    },
    domain::{AuditEvent, AuthToken, Email, PasswordHash, RequestId, Timestamp, User, Username},
    store::{
        Store,
        schema::{core_registration_request, core_user},
    },
};

/// A user to register.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The username.
    pub username: Username,
    /// The email, to which the verification link is mailed.
    pub email: Email,
    /// The password hash.
    pub password: PasswordHash,
    /// The user's permanent identifier.
    pub auth_token: AuthToken,
    /// The caller's id of this request, if the caller sent one.
    pub request_id: Option<RequestId>,
    /// Request ids from before this time have expired.
    pub request_ids_since: Timestamp,
    /// The mail with the verification link.
    pub mail: NewMail,
    /// The time of the registration.
    pub created_at: Timestamp,
    /// A user with this email who registered at this time or earlier and never verified it is deleted first.
    /// `None` deletes no user.
    pub abandoned_until: Option<Timestamp>,
    /// The audit event of the registration.
    pub event: AuditEvent,
    /// The audit event for a deleted user whose unverified registration this one replaces.
    pub deletion: AuditEvent,
}

/// The result of [`Store::register`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    /// The user was created, and the mail enqueued.
    New(User),
    /// The request id was already used; nothing was written.
    Known(Replay),
}

/// The result of comparing a request with the earlier one that had the same request id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replay {
    /// The email and username are the same, and the user still has them.
    Same(User),
    /// The email or the username differs, or the user has another one by now. The request is not told which:
    /// its sender need not be the user any more.
    Different,
}

#[derive(Insertable)]
#[diesel(table_name = core_user)]
pub(crate) struct NewUserRow {
    pub(crate) username: String,
    pub(crate) username_key: String,
    pub(crate) email: String,
    pub(crate) password: String,
    pub(crate) is_verified: bool,
    pub(crate) auth_token: UuidColumn,
    pub(crate) created_at: TimestampColumn,
    pub(crate) updated_at: TimestampColumn,
}

statements! {
    /// Statements on request ids.
    trait RegistrationStatements {
        /// Returns the comparison with an earlier registration, if one used this request id at `since` or
        /// later.
        async fn find_replay(
            &mut self,
            id: RequestId,
            since: Timestamp,
            username: &Username,
            email: &Email,
        ) -> Result<Option<Replay>, DatabaseError> {
            let row: Option<(String, String, UserRow)> = core_registration_request::table
                .inner_join(core_user::table)
                .filter(core_registration_request::request_id.eq(UuidColumn(*id.as_uuid())))
                .filter(core_registration_request::created_at.ge(TimestampColumn(since)))
                .select((
                    core_registration_request::email,
                    core_registration_request::username_key,
                    UserRow::as_select(),
                ))
                .get_result(self)
                .await
                .optional()?;
            Ok(row.map(|(stored_email, stored_key, user)| {
                let user = User::from(user);
                let is_same = stored_email == email.as_str() && stored_key == username.key();
                let is_unchanged = user.email.as_str() == stored_email && user.username.key() == stored_key;
                if is_same && is_unchanged { Replay::Same(user) } else { Replay::Different }
            }))
        }
    }
}

impl Store {
    /// Compares a request with the earlier registration that used this request id at `since` or later.
    /// Returns `None` if there is none.
    pub async fn find_registration(
        &self,
        id: RequestId,
        since: Timestamp,
        username: &Username,
        email: &Email,
    ) -> Result<Option<Replay>, DatabaseError> {
        let (username, email) = (username.clone(), email.clone());
        read!(&self.connections, connection => {
            connection.find_replay(id, since, &username, &email).await
        })
    }

    /// Creates the user, the token's digest, the mail and the request id: all of them or none. First deletes
    /// another user who registered with the same email at `abandoned_until` or earlier and never verified
    /// it.
    ///
    /// # Errors
    /// [`DatabaseError::NotUnique`] if the email or username is taken, or if a concurrent call uses the same
    /// request id.
    pub async fn register(&self, registration: Registration) -> Result<Registered, DatabaseError> {
        write!(&self.connections, connection, recorded => {
            if let Some(id) = registration.request_id {
                // An expired row with this id would prevent the insert below.
                let expired = core_registration_request::table
                    .filter(core_registration_request::request_id.eq(UuidColumn(*id.as_uuid())))
                    .filter(core_registration_request::created_at.lt(TimestampColumn(registration.request_ids_since)));
                diesel::delete(expired).execute(connection).await?;
                let since = registration.request_ids_since;
                let replay = connection.find_replay(id, since, &registration.username, &registration.email).await?;
                if let Some(replay) = replay {
                    return Ok(Registered::Known(replay));
                }
            }
            if let Some(until) = registration.abandoned_until {
                connection
                    .delete_abandoned_user(&registration.email, until, &registration.deletion, recorded)
                    .await?;
            }
            let user: User = diesel::insert_into(core_user::table)
                .values(NewUserRow::from(&registration))
                .returning(UserRow::as_returning())
                .get_result::<UserRow>(connection)
                .await?
                .into();
            // Inserts the digest of the token too.
            connection.enqueue_mail(user.id, &registration.mail, registration.created_at).await?;
            if let Some(id) = registration.request_id {
                diesel::insert_into(core_registration_request::table)
                    .values((
                        core_registration_request::request_id.eq(UuidColumn(*id.as_uuid())),
                        core_registration_request::user_id.eq(user.id.as_i64()),
                        core_registration_request::email.eq(registration.email.as_str()),
                        core_registration_request::username_key.eq(registration.username.key()),
                        core_registration_request::created_at.eq(TimestampColumn(registration.created_at)),
                    ))
                    .execute(connection)
                    .await?;
            }
            connection.record(registration.event, recorded).await?;
            Ok(Registered::New(user))
        })
    }
}

impl From<&Registration> for NewUserRow {
    fn from(registration: &Registration) -> Self {
        Self {
            username: registration.username.as_str().to_owned(),
            username_key: registration.username.key().to_owned(),
            email: registration.email.as_str().to_owned(),
            password: registration.password.expose().to_owned(),
            is_verified: false,
            auth_token: UuidColumn(*registration.auth_token.as_uuid()),
            created_at: TimestampColumn(registration.created_at),
            updated_at: TimestampColumn(registration.created_at),
        }
    }
}
