//! Users who registered and never verified their email. They make room for others who register with the same
//! email, and are deleted after some time.

use diesel::{BoolExpressionMethods, ExpressionMethods, NullableExpressionMethods, QueryDsl};
use diesel_async::RunQueryDsl;

use super::{
    audit::AuditStatements,
    users::{UserStatements, is_row_disabled},
};
use crate::{
    database::{
        DatabaseError,
        audit_log::RecordedEvents,
        columns::{TimestampColumn, UuidColumn},
        read, statements,
    },
    domain::{AuditEvent, AuthToken, Email, Timestamp, UserId},
    store::{
        Store,
        schema::{core_imported_user, core_user},
    },
};

/// Query condition: true if the user registered here, never verified the email, was not imported and is not
/// disabled. A user whose `updated_at` differs from `created_at` has changed since the registration and does
/// not match, even if an operator marked the email as not verified. Imported users have data in other systems
/// and are never deleted automatically.
#[diesel::dsl::auto_type]
pub(super) fn is_never_verified() -> _ {
    let imported = core_imported_user::table.filter(core_imported_user::user_id.eq(core_user::id.nullable()));
    core_user::is_verified
        .eq(false)
        .and(core_user::updated_at.eq(core_user::created_at))
        .and(diesel::dsl::not(is_row_disabled()))
        .and(diesel::dsl::not(diesel::dsl::exists(imported)))
}

/// The users with these emails that match `is_never_verified` and registered at `registered_until` or
/// earlier, so that the email can be registered again. A user who once verified the email never matches. The
/// user's links do not matter, because any client can request one.
#[diesel::dsl::auto_type]
fn abandoned_users(emails: Vec<String>, registered_until: TimestampColumn) -> _ {
    core_user::table
        .filter(core_user::email.eq_any(emails))
        .filter(is_never_verified())
        .filter(core_user::created_at.le(registered_until))
}

/// The users with these emails that match `is_never_verified`.
#[diesel::dsl::auto_type]
fn never_verified_users(emails: Vec<String>) -> _ {
    core_user::table.filter(core_user::email.eq_any(emails)).filter(is_never_verified())
}

/// Returns the forms in which the store may hold this email.
fn stored_forms(email: &Email) -> Vec<String> {
    email.stored_forms().into_iter().map(Email::into_string).collect()
}

statements! {
    /// Statements that delete users who never verified their email.
    pub(super) trait NeverVerifiedUserStatements {
        /// Records one copy of `deletion` for each of these users, who were deleted. Returns their number.
        async fn record_deletions(
            &mut self,
            deleted: Vec<UuidColumn>,
            deletion: &AuditEvent,
            recorded: &mut RecordedEvents,
        ) -> Result<usize, DatabaseError> {
            let count = deleted.len();
            for user in deleted {
                let event = deletion.clone().with_user(Some(AuthToken::from_uuid(user.0)));
                self.record(event, recorded).await?;
            }
            Ok(count)
        }

        /// Deletes the users among `ids` who have one of these emails and never verified it, and records a
        /// copy of `deletion` for each. Returns their number.
        ///
        /// After it waited for a row lock, PostgreSQL evaluates conditions on other tables with the data from
        /// before the wait. So the users are locked first, and deleted by a second statement that evaluates
        /// the condition again.
        async fn delete_if_never_verified(
            &mut self,
            ids: Vec<i64>,
            emails: Vec<String>,
            deletion: &AuditEvent,
            recorded: &mut RecordedEvents,
        ) -> Result<usize, DatabaseError> {
            self.lock_users(&ids).await?;
            let unverified = never_verified_users(emails);
            let deleted = diesel::delete(unverified.filter(core_user::id.eq_any(ids)))
                .returning(core_user::auth_token)
                .get_results(self)
                .await?;
            self.record_deletions(deleted, deletion, recorded).await
        }

        /// Deletes the user with this email who registered at `registered_until` or earlier and never
        /// verified it, if there is one, and records a copy of `deletion`.
        async fn delete_abandoned_user(
            &mut self,
            email: &Email,
            registered_until: Timestamp,
            deletion: &AuditEvent,
            recorded: &mut RecordedEvents,
        ) -> Result<usize, DatabaseError> {
            let abandoned = abandoned_users(stored_forms(email), TimestampColumn(registered_until));
            let ids: Vec<i64> = abandoned.select(core_user::id).load(self).await?;
            // The time of the registration never changes, so it need not be checked again.
            self.delete_if_never_verified(ids, stored_forms(email), deletion, recorded).await
        }

        /// Deletes another user with this email who never verified it, if there is one, and records a copy of
        /// `deletion`.
        async fn delete_never_verified_user(
            &mut self,
            email: &Email,
            other_than: UserId,
            deletion: &AuditEvent,
            recorded: &mut RecordedEvents,
        ) -> Result<usize, DatabaseError> {
            let unverified = never_verified_users(stored_forms(email));
            let others = unverified.filter(core_user::id.ne(other_than.as_i64()));
            let ids: Vec<i64> = others.select(core_user::id).load(self).await?;
            self.delete_if_never_verified(ids, stored_forms(email), deletion, recorded).await
        }
    }
}

impl Store {
    /// True if the user with this email registered here at `registered_until` or earlier and never verified
    /// it. The email can then be registered again.
    pub async fn is_abandoned(
        &self,
        email: &Email,
        registered_until: Timestamp,
    ) -> Result<bool, DatabaseError> {
        let emails = vec![email.as_str().to_owned()];
        read!(&self.connections, connection => {
            let abandoned = abandoned_users(emails, TimestampColumn(registered_until));
            Ok(diesel::select(diesel::dsl::exists(abandoned)).get_result(connection).await?)
        })
    }
}
