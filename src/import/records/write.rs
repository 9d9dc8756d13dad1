//! Writes users with the records of their rows.

use std::collections::HashMap;

use diesel::{ExpressionMethods, OptionalExtension, QueryDsl};
use diesel_async::RunQueryDsl;

use super::{super::candidate::SourceRow, ImportedUser, ImportedUserRow};
use crate::{
    database::{
        DatabaseError,
        columns::{TimestampColumn, UuidColumn},
        statements, write,
    },
    domain::{AuditEvent, MailTokenPurpose, Timestamp, User, UserId},
    store::{
        Store,
        schema::{core_imported_user, core_user},
        tables::{
            audit::AuditStatements, known_addresses::KnownAddressStatements, links::LinkStatements,
            registration::NewUserRow, sessions::SessionStatements, users::UserStatements,
        },
    },
};

/// One operation of an import, for one source row.
#[derive(Clone)]
pub enum ImportStep {
    /// Creates a user.
    Insert(ImportedUser),
    /// Updates the user that an earlier import created from the row.
    Update(UserId, ImportedUser),
    /// Records the digest of the row's password. It is still the user's password, so the user does not
    /// change.
    Confirm(ImportedUser),
    /// Records that the row is this existing user, who does not change.
    Adopt(UserId, ImportedUser),
    /// Records that the row was left out.
    LeaveOut(ImportedUser),
}

/// Number of users that [`Store::write_imported`] wrote or skipped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WrittenUsers {
    /// Created users.
    pub inserted: u32,
    /// Updated users.
    pub updated: u32,
    /// Users that were to be updated, but were deleted or changed in this service in the meantime. They stay
    /// unchanged.
    pub kept: u32,
}

statements! {
    /// Statements of an import.
    trait ImportStatements {
        /// Records a source row, replacing an earlier record of it.
        async fn record_source_row(
            &mut self,
            user: &ImportedUser,
            id: Option<UserId>,
            written_at: Timestamp,
        ) -> Result<(), DatabaseError> {
            let row = ImportedUserRow::of(user, id, written_at);
            diesel::insert_into(core_imported_user::table)
                .values(&row)
                .on_conflict((core_imported_user::auth_token, core_imported_user::source_id))
                .do_update()
                .set(&row)
                .execute(self)
                .await?;
            Ok(())
        }

        /// Locks a user who is to be updated, and replaces the email and username with a placeholder, so that
        /// other users of the same batch can take them. Returns the user as it was before. Returns `None` and
        /// changes nothing if the user was deleted, or was changed in this service since the row was
        /// recorded.
        async fn release_identifiers(
            &mut self,
            id: UserId,
            source_row: SourceRow,
        ) -> Result<Option<User>, DatabaseError> {
            let written_at: Option<TimestampColumn> = core_imported_user::table
                .find(key_of(source_row))
                .select(core_imported_user::updated_at)
                .get_result(self)
                .await
                .optional()?;
            let user = self.lock_user(id).await?;
            let user = user.filter(|user| written_at.is_some_and(|at| at.0 == user.updated_at));
            if let Some(user) = &user {
                let placeholder = format!("@{}", user.auth_token);
                diesel::update(core_user::table.find(id.as_i64()))
                    .set((
                        core_user::email.eq(placeholder.clone()),
                        core_user::username.eq(placeholder.clone()),
                        core_user::username_key.eq(placeholder),
                    ))
                    .execute(self)
                    .await?;
            }
            Ok(user)
        }

        /// Inserts a user and records its row.
        async fn insert_imported(&mut self, user: &ImportedUser) -> Result<(), DatabaseError> {
            let id: i64 = diesel::insert_into(core_user::table)
                .values(new_row(user))
                .returning(core_user::id)
                .get_result(self)
                .await?;
            self.record_source_row(user, Some(UserId::from_i64(id)), user.updated_at).await
        }

        /// Updates a user from a source row; `before` is the user before the batch. If the password or the
        /// email changes, or the row is not verified, revokes the user's sessions, deletes the known
        /// addresses and voids the password reset and email change links.
        async fn update_imported(
            &mut self,
            before: &User,
            user: &ImportedUser,
            now: Timestamp,
        ) -> Result<(), DatabaseError> {
            let id = before.id;
            diesel::update(core_user::table.find(id.as_i64()))
                .set((
                    core_user::username.eq(&user.username),
                    core_user::username_key.eq(&user.username_key),
                    core_user::email.eq(user.email.as_str()),
                    core_user::is_verified.eq(user.is_verified),
                    core_user::updated_at.eq(TimestampColumn(user.updated_at)),
                    user.password.as_ref().map(|hash| core_user::password.eq(hash.expose())),
                ))
                .execute(self)
                .await?;
            if user.password.is_some() || before.email != user.email || !user.is_verified {
                self.delete_sessions_of(id, None).await?;
                self.delete_known_addresses(id).await?;
                self.void_links(id, MailTokenPurpose::ResetPassword, now).await?;
                self.void_links(id, MailTokenPurpose::ChangeEmail, now).await?;
            }
            self.record_source_row(user, Some(id), user.updated_at).await
        }

        /// Records the digest of the row's password.
        async fn confirm_password(&mut self, user: &ImportedUser) -> Result<(), DatabaseError> {
            diesel::update(core_imported_user::table.find(key_of(user.source_row)))
                .set(core_imported_user::password_digest.eq(user.password_digest.to_vec()))
                .execute(self)
                .await?;
            Ok(())
        }

        /// Records that a row is this existing user, if the user still exists. Replaces the record of another
        /// row that the user came from before.
        async fn adopt_user(&mut self, id: UserId, user: &ImportedUser) -> Result<(), DatabaseError> {
            let updated_at = core_user::table.find(id.as_i64()).select(core_user::updated_at);
            let updated_at: Option<TimestampColumn> = updated_at.get_result(self).await.optional()?;
            let Some(updated_at) = updated_at else { return Ok(()) };
            let same_user = core_imported_user::table.filter(core_imported_user::user_id.eq(id.as_i64()));
            diesel::delete(same_user).execute(self).await?;
            self.record_source_row(user, Some(id), updated_at.0).await
        }
    }
}

impl Store {
    /// Performs all steps in one transaction, or none. Users may exchange emails or usernames with each other
    /// within one call. Users are updated as in `update_imported`. Records at most two events:
    /// `created` for all new users together, and `changed` for all updated users together.
    ///
    /// # Errors
    /// [`DatabaseError::NotUnique`] if another user already has an email or a username of the steps;
    /// [`DatabaseError`].
    pub async fn write_imported(
        &self,
        steps: Vec<ImportStep>,
        created: AuditEvent,
        changed: AuditEvent,
    ) -> Result<WrittenUsers, DatabaseError> {
        write!(&self.connections, connection => {
            let mut written = WrittenUsers::default();
            // First release the emails and usernames of all users to update, so that the steps can claim them
            // in any order.
            let mut users_before = HashMap::new();
            for step in &steps {
                if let ImportStep::Update(id, user) = step {
                    let Some(before) = connection.release_identifiers(*id, user.source_row).await? else {
                        written.kept += 1;
                        continue;
                    };
                    users_before.insert(id.as_i64(), before);
                }
            }
            for step in &steps {
                match step {
                    ImportStep::Insert(user) => {
                        connection.insert_imported(user).await?;
                        written.inserted += 1;
                    }
                    ImportStep::Update(id, user) => {
                        let Some(before) = users_before.get(&id.as_i64()) else { continue };
                        connection.update_imported(before, user, changed.at).await?;
                        written.updated += 1;
                    }
                    ImportStep::Confirm(user) => connection.confirm_password(user).await?,
                    ImportStep::Adopt(id, user) => connection.adopt_user(*id, user).await?,
                    ImportStep::LeaveOut(user) => connection.record_source_row(user, None, user.updated_at).await?,
                }
            }
            for (mut event, count) in [(created, written.inserted), (changed, written.updated)] {
                if count > 0 {
                    event.count = count;
                    // Not logged: the import prints a report.
                    connection.insert_event(event).await?;
                }
            }
            Ok(written)
        })
    }
}

/// Returns the primary key of the record of a source row.
fn key_of(source_row: SourceRow) -> (UuidColumn, i64) {
    (UuidColumn(*source_row.auth_token.as_uuid()), source_row.id)
}

fn new_row(user: &ImportedUser) -> NewUserRow {
    NewUserRow {
        username: user.username.clone(),
        username_key: user.username_key.clone(),
        email: user.email.as_str().to_owned(),
        password: user.password.as_ref().map(|hash| hash.expose().to_owned()).unwrap_or_default(),
        is_verified: user.is_verified,
        auth_token: UuidColumn(*user.auth_token.as_uuid()),
        created_at: TimestampColumn(user.created_at),
        updated_at: TimestampColumn(user.updated_at),
    }
}
