//! The records of imported rows in the store (`core_imported_user`): finding them and users in conflict with
//! rows, and writing users with their records.

use std::collections::HashMap;

use diesel::{
    AsChangeset, BoolExpressionMethods, ExpressionMethods, Insertable, NullableExpressionMethods,
    OptionalExtension, QueryDsl, Queryable, Selectable, SelectableHelper,
};
use diesel_async::RunQueryDsl;

use crate::{
    domain::{AuditEvent, AuthToken, Email, MailTokenPurpose, PasswordHash, Timestamp, User, UserId},
    store::{
        Store, StoreError,
        columns::{TimestampColumn, UuidColumn},
        connection::{read, statements, write},
        schema::{core_imported_user, core_user},
        tables::{
            audit::AuditStatements,
            links::LinkStatements,
            registration::NewUserRow,
            sessions::SessionStatements,
            users::{UserRow, UserStatements},
        },
    },
};

/// The record of a source row that an earlier import processed.
#[derive(Clone)]
pub struct ImportedRow {
    /// The `auth_token` of the source row.
    pub auth_token: AuthToken,
    /// The id of the source row.
    pub source_id: i64,
    /// The user that the row became, in its current state, with its password hash; `None` if the row was left
    /// out or the user has been deleted.
    pub user: Option<(User, PasswordHash)>,
    /// True if the row was left out because the operator chose another row with the same email.
    pub is_left_out: bool,
    /// SHA-256 of the source row without its password.
    pub row_digest: [u8; 32],
    /// SHA-256 of the row's password; keyed if the password is plaintext.
    pub password_digest: [u8; 32],
    /// `updated_at` of the user when the row was recorded.
    pub written_at: Timestamp,
}

impl ImportedRow {
    /// True if the user has changed in this service since the row was recorded.
    #[must_use]
    pub fn is_changed_since_import(&self) -> bool {
        self.user.as_ref().is_some_and(|(user, _)| user.updated_at != self.written_at)
    }
}

/// A user to write, with the record of its source row.
#[derive(Clone)]
pub struct ImportedUser {
    /// The `auth_token` and the id of the source row.
    pub row: (AuthToken, i64),
    /// The user's `auth_token`: that of the row, unless another user already has it.
    pub auth_token: AuthToken,
    /// The username and its comparison form.
    pub username: (String, String),
    /// The email.
    pub email: Email,
    /// The password hash, or the text of an unusable password; `None` if the stored password
    /// stays.
    pub password: Option<PasswordHash>,
    /// True if the email is verified.
    pub is_verified: bool,
    /// `created_at` and `updated_at` of the row.
    pub times: (Timestamp, Timestamp),
    /// SHA-256 of the source row without its password.
    pub row_digest: [u8; 32],
    /// SHA-256 of the row's password; keyed if the password is plaintext.
    pub password_digest: [u8; 32],
}

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
pub struct Written {
    /// Created users.
    pub inserted: u32,
    /// Updated users.
    pub updated: u32,
    /// Users that were to be updated, but were deleted or changed in this service in the meantime. They stay
    /// unchanged.
    pub kept: u32,
}

/// An existing user who has the `auth_token`, email or username of a source row.
#[derive(Clone)]
pub struct Holder {
    /// The user.
    pub user: User,
    /// The `auth_token` and the id of the source row that the user came from, if the user was imported.
    pub row: Option<(AuthToken, i64)>,
}

#[derive(AsChangeset, Insertable, Queryable, Selectable)]
#[diesel(table_name = core_imported_user, primary_key(auth_token, source_id), treat_none_as_null = true)]
struct ImportedUserRow {
    auth_token: UuidColumn,
    source_id: i64,
    user_id: Option<i64>,
    is_left_out: bool,
    row_digest: Vec<u8>,
    password_digest: Vec<u8>,
    updated_at: TimestampColumn,
}

impl ImportedUserRow {
    fn of(user: &ImportedUser, id: Option<UserId>, written_at: Timestamp) -> Self {
        Self {
            auth_token: UuidColumn(*user.row.0.as_uuid()),
            source_id: user.row.1,
            user_id: id.map(UserId::as_i64),
            is_left_out: id.is_none(),
            row_digest: user.row_digest.to_vec(),
            password_digest: user.password_digest.to_vec(),
            updated_at: TimestampColumn(written_at),
        }
    }
}

/// A user with the `auth_token` and the id of the source row that it was imported from.
type HolderRow = (UserRow, Option<UuidColumn>, Option<i64>);

/// The values of one column by which users are looked up.
enum HolderField {
    AuthToken(Vec<UuidColumn>),
    Email(Vec<String>),
    Username(Vec<String>),
    UsernameKey(Vec<String>),
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
        ) -> Result<(), StoreError> {
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
            row: (AuthToken, i64),
        ) -> Result<Option<User>, StoreError> {
            let written_at: Option<TimestampColumn> = core_imported_user::table
                .find((UuidColumn(*row.0.as_uuid()), row.1))
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
        async fn insert_imported(&mut self, user: &ImportedUser) -> Result<(), StoreError> {
            let id: i64 = diesel::insert_into(core_user::table)
                .values(new_row(user))
                .returning(core_user::id)
                .get_result(self)
                .await?;
            self.record_source_row(user, Some(UserId::from_i64(id)), user.times.1).await
        }

        /// Updates a user from a source row; `before` is the user before the batch. If the password or the
        /// email changes, or the row is not verified, ends the user's sessions and voids the password reset
        /// and email change links.
        async fn update_imported(
            &mut self,
            before: &User,
            user: &ImportedUser,
            now: Timestamp,
        ) -> Result<(), StoreError> {
            let id = before.id;
            diesel::update(core_user::table.find(id.as_i64()))
                .set((
                    core_user::username.eq(&user.username.0),
                    core_user::username_key.eq(&user.username.1),
                    core_user::email.eq(user.email.as_str()),
                    core_user::is_verified.eq(user.is_verified),
                    core_user::updated_at.eq(TimestampColumn(user.times.1)),
                    user.password.as_ref().map(|hash| core_user::password.eq(hash.expose())),
                ))
                .execute(self)
                .await?;
            if user.password.is_some() || before.email != user.email || !user.is_verified {
                self.delete_sessions_of(id, None).await?;
                self.void_links(id, MailTokenPurpose::ResetPassword, now).await?;
                self.void_links(id, MailTokenPurpose::ChangeEmail, now).await?;
            }
            self.record_source_row(user, Some(id), user.times.1).await
        }

        /// Records the digest of the row's password.
        async fn confirm_password(&mut self, user: &ImportedUser) -> Result<(), StoreError> {
            let row = (UuidColumn(*user.row.0.as_uuid()), user.row.1);
            diesel::update(core_imported_user::table.find(row))
                .set(core_imported_user::password_digest.eq(user.password_digest.to_vec()))
                .execute(self)
                .await?;
            Ok(())
        }

        /// Records that a row is this existing user, if the user still exists. Replaces the record of another
        /// row that the user came from before.
        async fn adopt_user(&mut self, id: UserId, user: &ImportedUser) -> Result<(), StoreError> {
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
    /// Returns the records of the source rows with these `auth_token`s. Rows without a record are omitted.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer; this holds for the following functions too.
    pub async fn find_imported(&self, rows: &[AuthToken]) -> Result<Vec<ImportedRow>, StoreError> {
        let tokens: Vec<UuidColumn> = rows.iter().map(|token| UuidColumn(*token.as_uuid())).collect();
        read!(&self.connections, connection => {
            let rows: Vec<(ImportedUserRow, Option<UserRow>, Option<String>)> = core_imported_user::table
                .left_join(core_user::table)
                .filter(core_imported_user::auth_token.eq_any(tokens))
                .select((ImportedUserRow::as_select(), Option::<UserRow>::as_select(), core_user::password.nullable()))
                .load(connection)
                .await?;
            rows.into_iter().map(imported_row).collect()
        })
    }

    /// Returns the `auth_token` and the id of recorded rows that have a user, ordered by both. Starts after
    /// `after` and returns at most `limit` rows.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_imported(
        &self,
        after: Option<(AuthToken, i64)>,
        limit: i64,
    ) -> Result<Vec<(AuthToken, i64)>, StoreError> {
        use core_imported_user as imported;
        read!(&self.connections, connection => {
            let mut query = imported::table
                .filter(imported::user_id.is_not_null())
                .order((imported::auth_token, imported::source_id))
                .limit(limit)
                .select((imported::auth_token, imported::source_id))
                .into_boxed();
            if let Some((token, id)) = after {
                let token = UuidColumn(*token.as_uuid());
                query = query.filter(
                    imported::auth_token.gt(token).or(imported::auth_token.eq(token).and(imported::source_id.gt(id))),
                );
            }
            let rows: Vec<(UuidColumn, i64)> = query.load(connection).await?;
            Ok(rows.into_iter().map(|(token, id)| (AuthToken::from_uuid(token.0), id)).collect())
        })
    }

    /// Returns every user who has one of these `auth_token`s, emails, usernames or comparison forms of
    /// usernames, each user once.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_holders(
        &self,
        tokens: &[AuthToken],
        emails: Vec<String>,
        usernames: Vec<String>,
        keys: Vec<String>,
    ) -> Result<Vec<Holder>, StoreError> {
        let tokens: Vec<UuidColumn> = tokens.iter().map(|token| UuidColumn(*token.as_uuid())).collect();
        // PostgreSQL rejects a text with NUL, so no stored value contains one; such texts are removed from
        // the query.
        let [emails, usernames, keys] = [emails, usernames, keys].map(|mut texts| {
            texts.retain(|text: &String| !text.contains('\0'));
            texts
        });
        read!(&self.connections, connection => {
            // One query for each column, so that each uses its index. For one query with all conditions,
            // PostgreSQL would scan the whole table.
            let conditions = [
                HolderField::AuthToken(tokens),
                HolderField::Email(emails),
                HolderField::Username(usernames),
                HolderField::UsernameKey(keys),
            ];
            let mut holders: Vec<HolderRow> = Vec::new();
            for condition in conditions {
                let query = core_user::table
                    .left_join(core_imported_user::table)
                    .select((
                        UserRow::as_select(),
                        core_imported_user::auth_token.nullable(),
                        core_imported_user::source_id.nullable(),
                    ))
                    .into_boxed();
                let query = match condition {
                    HolderField::AuthToken(tokens) => query.filter(core_user::auth_token.eq_any(tokens)),
                    HolderField::Email(emails) => query.filter(core_user::email.eq_any(emails)),
                    HolderField::Username(usernames) => query.filter(core_user::username.eq_any(usernames)),
                    HolderField::UsernameKey(keys) => query.filter(core_user::username_key.eq_any(keys)),
                };
                holders.extend(query.load::<HolderRow>(connection).await?);
            }
            holders.sort_by_key(|(user, ..)| user.id());
            holders.dedup_by_key(|(user, ..)| user.id());
            let holder = |(user, token, id): HolderRow| Holder {
                user: user.into(),
                row: token.map(|token| AuthToken::from_uuid(token.0)).zip(id),
            };
            Ok(holders.into_iter().map(holder).collect())
        })
    }

    /// Performs all steps in one transaction, or none. Users may exchange emails or usernames with each other
    /// within one call. If an updated user gets another password or email, or is not verified, their sessions
    /// end and their password reset and email change links become void. Records at most two events: `created`
    /// for all new users together, and `changed` for all updated users together.
    ///
    /// # Errors
    /// [`StoreError::NotUnique`] if another user already has an email or a username of the steps;
    /// [`StoreError`].
    pub async fn write_imported(
        &self,
        steps: Vec<ImportStep>,
        created: AuditEvent,
        changed: AuditEvent,
    ) -> Result<Written, StoreError> {
        write!(&self.connections, connection => {
            let mut written = Written::default();
            // First release the emails and usernames of all users to update, so that the steps can claim them
            // in any order.
            let mut updating = HashMap::new();
            for step in &steps {
                if let ImportStep::Update(id, user) = step {
                    match connection.release_identifiers(*id, user.row).await? {
                        Some(before) => drop(updating.insert(id.as_i64(), before)),
                        None => written.kept += 1,
                    }
                }
            }
            for step in &steps {
                match step {
                    ImportStep::Insert(user) => {
                        connection.insert_imported(user).await?;
                        written.inserted += 1;
                    }
                    ImportStep::Update(id, user) => {
                        let Some(before) = updating.get(&id.as_i64()) else { continue };
                        connection.update_imported(before, user, changed.at).await?;
                        written.updated += 1;
                    }
                    ImportStep::Confirm(user) => connection.confirm_password(user).await?,
                    ImportStep::Adopt(id, user) => connection.adopt_user(*id, user).await?,
                    ImportStep::LeaveOut(user) => connection.record_source_row(user, None, user.times.1).await?,
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

fn new_row(user: &ImportedUser) -> NewUserRow {
    NewUserRow {
        username: user.username.0.clone(),
        username_key: user.username.1.clone(),
        email: user.email.as_str().to_owned(),
        password: user.password.as_ref().map(|hash| hash.expose().to_owned()).unwrap_or_default(),
        is_verified: user.is_verified,
        auth_token: UuidColumn(*user.auth_token.as_uuid()),
        created_at: TimestampColumn(user.times.0),
        updated_at: TimestampColumn(user.times.1),
    }
}

fn imported_row(
    (row, user, password): (ImportedUserRow, Option<UserRow>, Option<String>),
) -> Result<ImportedRow, StoreError> {
    let digest = |bytes: Vec<u8>, column| {
        bytes.try_into().map_err(|_| StoreError::Corrupt { table: "core_imported_user", column })
    };
    Ok(ImportedRow {
        auth_token: AuthToken::from_uuid(row.auth_token.0),
        source_id: row.source_id,
        user: user.zip(password).map(|(user, hash)| (user.into(), PasswordHash::from_stored(hash))),
        is_left_out: row.is_left_out,
        row_digest: digest(row.row_digest, "row_digest")?,
        password_digest: digest(row.password_digest, "password_digest")?,
        written_at: row.updated_at.0,
    })
}
