//! Queries of `core_session`. A session is one row, however many refresh tokens it has had.

use diesel::{
    ExpressionMethods, Insertable, OptionalExtension, QueryDsl, Queryable, Selectable, SelectableHelper,
};
use diesel_async::RunQueryDsl;

use super::{
    audit::AuditStatements,
    known_addresses::KnownAddressStatements,
    links::LinkStatements,
    password_attempts::{CorrectPassword, PasswordAttemptStatements},
    users::{UserRow, UserStatements, is_row_disabled},
};
use crate::{
    database::{
        DatabaseError,
        columns::{TimestampColumn, UuidColumn},
        read, statements, write,
    },
    domain::{
        AuditEvent, AuthToken, ClientAddress, ClientAgent, PasswordHash, RefreshTokenDigest, Session,
        SessionId, Timestamp, User, UserId,
    },
    store::{
        Store,
        schema::{core_session, core_user},
    },
};

/// A session that begins after the password was verified.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// The user who logged in.
    pub user: UserId,
    /// The stored hash against which the password was verified.
    pub password: PasswordHash,
    /// The session's id, caller, client and times.
    pub session: Session,
    /// The digest of the token family, from [`crate::domain::RefreshToken::family_digest`].
    pub family: RefreshTokenDigest,
    /// The digest of the first refresh token.
    pub token: RefreshTokenDigest,
    /// Maximum number of sessions per user. When the user has more, the sessions that were refreshed longest
    /// ago are revoked.
    pub sessions_max: u32,
    /// The latest time at which a session can have been refreshed under a correct clock. Sessions with a
    /// later time are revoked first.
    pub latest_possible_refresh: Timestamp,
}

/// A stored session, with the values that its refresh tokens are compared with.
#[derive(Debug, Clone)]
pub struct KnownSession {
    /// The user in its current state.
    pub user: User,
    /// The session.
    pub session: Session,
    /// True if an operator has disabled the user. The session then counts as revoked, even if its row
    /// still exists.
    pub is_disabled: bool,
    /// The digest of the current refresh token.
    pub token: [u8; 32],
    /// The digest of the previous refresh token, and the salt with which that token derives the current one.
    pub previous: Option<([u8; 32], [u8; 32])>,
}

/// The decision about a session whose refresh token was presented.
#[derive(Debug, Clone)]
pub enum SessionChange {
    /// Replaces the refresh token.
    Rotate {
        /// The digest of the new token.
        token: RefreshTokenDigest,
        /// The salt with which the replaced token derives the new one.
        salt: [u8; 32],
        /// The audit event, recorded in the same transaction. Its time is the time of the refresh.
        event: AuditEvent,
    },
    /// Changes nothing.
    Keep,
    /// Revokes the session.
    Revoke {
        /// The audit event, recorded in the same transaction.
        event: AuditEvent,
    },
}

#[derive(Insertable, Queryable, Selectable)]
#[diesel(table_name = core_session)]
struct SessionRow {
    session_id: UuidColumn,
    user_id: i64,
    family: Vec<u8>,
    token: Vec<u8>,
    previous_token: Option<Vec<u8>>,
    successor_salt: Option<Vec<u8>>,
    caller: String,
    client: Option<String>,
    agent: Option<String>,
    created_at: TimestampColumn,
    refreshed_at: TimestampColumn,
}

statements! {
    /// Statements on sessions that are part of larger transactions.
    pub(crate) trait SessionStatements {
        /// Deletes the sessions of a user except the one to keep. Returns the number of deleted sessions.
        async fn delete_sessions_of(&mut self, user: UserId, keep: Option<SessionId>) -> Result<usize, DatabaseError> {
            let of_user = core_session::table.filter(core_session::user_id.eq(user.as_i64()));
            let deleted = match keep {
                Some(keep) => {
                    let others = of_user.filter(core_session::session_id.ne(UuidColumn(*keep.as_uuid())));
                    diesel::delete(others).execute(self).await?
                }
                None => diesel::delete(of_user).execute(self).await?,
            };
            Ok(deleted)
        }

        /// Voids all links of a user except those that undo an email change, and deletes all sessions and
        /// known addresses.
        async fn revoke_access(&mut self, user: UserId, now: Timestamp) -> Result<(), DatabaseError> {
            self.void_account_links(user, now).await?;
            self.delete_sessions_of(user, None).await?;
            self.delete_known_addresses(user).await
        }
    }
}

statements! {
    /// Statements on the refresh tokens of a session.
    trait RefreshStatements {
        /// Locks the session of a token family. Returns its row, or `None` if there is no such session.
        async fn lock_session(&mut self, family: &RefreshTokenDigest) -> Result<Option<SessionRow>, DatabaseError> {
            let of_family = core_session::table.filter(core_session::family.eq(family.as_bytes().to_vec()));
            // An UPDATE that changes nothing locks the row on both engines.
            Ok(diesel::update(of_family)
                .set(core_session::token.eq(core_session::token))
                .returning(SessionRow::as_returning())
                .get_result(self)
                .await
                .optional()?)
        }

        /// Replaces the refresh token of a session. `salt` is the one with which the replaced token derives
        /// the new one.
        async fn rotate_token(
            &mut self,
            session: &KnownSession,
            token: RefreshTokenDigest,
            salt: [u8; 32],
            now: Timestamp,
        ) -> Result<(), DatabaseError> {
            diesel::update(core_session::table.find(UuidColumn(*session.session.id.as_uuid())))
                .set((
                    core_session::previous_token.eq(Some(session.token.to_vec())),
                    core_session::token.eq(token.as_bytes().to_vec()),
                    core_session::successor_salt.eq(Some(salt.to_vec())),
                    core_session::refreshed_at.eq(TimestampColumn(now)),
                ))
                .execute(self)
                .await?;
            Ok(())
        }
    }
}

impl Store {
    /// Opens a session, revokes those of the user beyond `sessions_max`, and records the effects of the
    /// correct password. Changes nothing and returns false if, after the password was verified, the password
    /// changed or the user was disabled, deleted or marked as not verified.
    pub async fn open_session(
        &self,
        new: NewSession,
        correct: CorrectPassword,
    ) -> Result<bool, DatabaseError> {
        write!(&self.connections, connection, recorded => {
            // A concurrent change of the password either commits first, and this session is not opened, or
            // waits for the lock of the row, and then revokes this session.
            let user = connection.lock_if_unchanged(new.user, &new.password).await?;
            if !user.is_some_and(|user| user.is_verified) {
                return Ok(false);
            }
            diesel::insert_into(core_session::table).values(SessionRow::from(&new)).execute(connection).await?;
            let is_ahead = core_session::refreshed_at.gt(TimestampColumn(new.latest_possible_refresh));
            // False sorts before true: sessions that a clock ahead of time has refreshed come last, and so
            // are revoked first.
            let surplus: Vec<UuidColumn> = core_session::table
                .filter(core_session::user_id.eq(new.user.as_i64()))
                .order((is_ahead, core_session::refreshed_at.desc(), core_session::session_id))
                .offset(i64::from(new.sessions_max))
                .select(core_session::session_id)
                .load(connection)
                .await?;
            let surplus = core_session::table.filter(core_session::session_id.eq_any(surplus));
            diesel::delete(surplus).execute(connection).await?;
            connection.apply_correct_password(correct, recorded).await?;
            Ok(true)
        })
    }

    /// Finds the session of a token family and applies the decision of `decide` to it. The session is locked
    /// while `decide` runs, so concurrent calls decide one after the other. Returns the session as it was
    /// before; `None` if no session has this family.
    pub async fn change_session(
        &self,
        family: RefreshTokenDigest,
        decide: impl FnOnce(&KnownSession) -> SessionChange + Clone + Send + 'static,
    ) -> Result<Option<KnownSession>, DatabaseError> {
        // Checked with a read, so that a made-up token does not cost a write transaction.
        let of_family = core_session::table.filter(core_session::family.eq(family.as_bytes().to_vec()));
        let is_known: bool = read!(&self.connections, connection => {
            Ok(diesel::select(diesel::dsl::exists(of_family)).get_result(connection).await?)
        })?;
        if !is_known {
            return Ok(None);
        }
        write!(&self.connections, connection, recorded => {
            let Some(row) = connection.lock_session(&family).await? else { return Ok(None) };
            let user: UserRow = core_user::table
                .find(row.user_id)
                .select(UserRow::as_select())
                .get_result(connection)
                .await?;
            let this_session = core_session::table.find(row.session_id);
            let is_disabled = connection.is_user_disabled(UserId::from_i64(row.user_id)).await?;
            let known = known_session(user, row, is_disabled)?;
            let event = match decide(&known) {
                SessionChange::Keep => return Ok(Some(known)),
                SessionChange::Revoke { event } => {
                    diesel::delete(this_session).execute(connection).await?;
                    event
                }
                SessionChange::Rotate { token, salt, event } => {
                    connection.rotate_token(&known, token, salt, event.at).await?;
                    event
                }
            };
            connection.record(event, recorded).await?;
            Ok(Some(known))
        })
    }

    /// Returns the session with this id if it belongs to this user and the user is not disabled. Does not
    /// check whether the session has expired; that is up to the caller.
    pub async fn find_session(
        &self,
        id: SessionId,
        user: AuthToken,
    ) -> Result<Option<KnownSession>, DatabaseError> {
        let (id, user) = (UuidColumn(*id.as_uuid()), UuidColumn(*user.as_uuid()));
        read!(&self.connections, connection => {
            let found: Option<(UserRow, SessionRow)> = core_session::table
                .inner_join(core_user::table)
                .filter(core_session::session_id.eq(id))
                .filter(core_user::auth_token.eq(user))
                .filter(diesel::dsl::not(is_row_disabled()))
                .select((UserRow::as_select(), SessionRow::as_select()))
                .get_result(connection)
                .await
                .optional()?;
            let is_disabled = false; // by the filter
            found.map(|(user, session)| known_session(user, session, is_disabled)).transpose()
        })
    }

    /// Returns all stored sessions of a user, the most recently refreshed first, including expired ones that
    /// are not deleted yet. [`NewSession::sessions_max`] limits their number.
    pub async fn list_sessions(&self, user: &User) -> Result<Vec<Session>, DatabaseError> {
        let (id, auth_token) = (user.id.as_i64(), user.auth_token);
        read!(&self.connections, connection => {
            let rows: Vec<SessionRow> = core_session::table
                .filter(core_session::user_id.eq(id))
                .order((core_session::refreshed_at.desc(), core_session::session_id))
                .select(SessionRow::as_select())
                .load(connection)
                .await?;
            Ok(rows.into_iter().map(|row| to_session(row, auth_token)).collect())
        })
    }

    /// Deletes a session of a user and records the event. Returns false if the user has no such session.
    pub async fn revoke_session(
        &self,
        id: SessionId,
        user: UserId,
        event: AuditEvent,
    ) -> Result<bool, DatabaseError> {
        let (id, user) = (UuidColumn(*id.as_uuid()), user.as_i64());
        write!(&self.connections, connection, recorded => {
            let session = core_session::table.find(id).filter(core_session::user_id.eq(user));
            let revoked = diesel::delete(session).execute(connection).await?;
            if revoked > 0 {
                connection.record(event, recorded).await?;
            }
            Ok(revoked > 0)
        })
    }

    /// Deletes all sessions of a user except the one to keep, and records the event if there were any.
    /// Returns the number of deleted sessions.
    pub async fn revoke_sessions(
        &self,
        user: UserId,
        keep: Option<SessionId>,
        event: AuditEvent,
    ) -> Result<usize, DatabaseError> {
        write!(&self.connections, connection, recorded => {
            let revoked = connection.delete_sessions_of(user, keep).await?;
            if revoked > 0 {
                connection.record(event, recorded).await?;
            }
            Ok(revoked)
        })
    }
}

impl From<&NewSession> for SessionRow {
    fn from(new: &NewSession) -> Self {
        let session = &new.session;
        Self {
            session_id: UuidColumn(*session.id.as_uuid()),
            user_id: new.user.as_i64(),
            family: new.family.as_bytes().to_vec(),
            token: new.token.as_bytes().to_vec(),
            previous_token: None,
            successor_salt: None,
            caller: session.caller.to_string(),
            client: session.client.map(|client| client.to_string()),
            agent: session.agent.as_ref().map(|agent| agent.as_str().to_owned()),
            created_at: TimestampColumn(session.created_at),
            refreshed_at: TimestampColumn(session.refreshed_at),
        }
    }
}

/// Converts the rows of a session and its user.
///
/// # Errors
/// [`DatabaseError::Corrupt`] if a digest or the salt does not have 32 bytes.
fn known_session(user: UserRow, row: SessionRow, is_disabled: bool) -> Result<KnownSession, DatabaseError> {
    let corrupt = |column| DatabaseError::Corrupt { table: "core_session", column };
    let bytes = |column, bytes: &[u8]| <[u8; 32]>::try_from(bytes).map_err(|_| corrupt(column));
    let token = bytes("token", &row.token)?;
    let previous = match (&row.previous_token, &row.successor_salt) {
        (Some(previous), Some(salt)) => {
            Some((bytes("previous_token", previous)?, bytes("successor_salt", salt)?))
        }
        _ => None,
    };
    let user = User::from(user);
    let session = to_session(row, user.auth_token);
    Ok(KnownSession { user, session, is_disabled, token, previous })
}

fn to_session(row: SessionRow, user: AuthToken) -> Session {
    Session {
        id: SessionId::from_uuid(row.session_id.0),
        user,
        caller: row.caller.into(),
        client: row.client.and_then(|client| ClientAddress::from_displayed(&client)),
        agent: row.agent.and_then(|agent| ClientAgent::from_bytes_lossy(agent.as_bytes())),
        created_at: row.created_at.0,
        refreshed_at: row.refreshed_at.0,
    }
}
