//! Queries of `core_session`: one row a session, whatever number of refresh tokens it has had.

use diesel::{
    ExpressionMethods, Insertable, OptionalExtension, QueryDsl, Queryable, Selectable, SelectableHelper,
};
use diesel_async::RunQueryDsl;

use super::{
    Store, StoreError,
    audit::record,
    columns::{TimestampColumn, UuidColumn},
    connection::{read, write},
    schema::{core_session, core_user},
    throttle::{RightPassword, take_back},
    user_states::is_disabled,
    users::UserRow,
};
use crate::domain::{
    AuditEvent, AuthToken, ClientAddress, ClientAgent, PasswordHash, RefreshTokenDigest, Session, SessionId,
    User, UserId,
};

/// A session that begins with a right password.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// The row of whoever logged in.
    pub user: UserId,
    /// The hash that their password was checked against.
    pub password: PasswordHash,
    /// What is told of it later.
    pub session: Session,
    /// [`crate::domain::RefreshToken::family_digest`]
    pub family: RefreshTokenDigest,
    /// Of the first refresh token.
    pub token: RefreshTokenDigest,
    /// How many sessions one user may have; those that were refreshed longest ago end for it.
    pub sessions_max: u32,
}

/// A session with what its refresh tokens are told by.
#[derive(Debug, Clone)]
pub struct KnownSession {
    /// Whose it is, as they are now.
    pub user: User,
    /// The session.
    pub session: Session,
    /// Whether an operator keeps them out: then it has ended, whatever wrote it.
    pub is_disabled: bool,
    /// The digest of the live refresh token.
    pub token: [u8; 32],
    /// The digest of the one before it, and the salt that makes the live one out of it.
    pub previous: Option<([u8; 32], [u8; 32])>,
}

/// What becomes of a session whose refresh token was shown.
#[derive(Debug, Clone)]
pub enum SessionChange {
    /// Another token is the live one.
    Rotate {
        /// Its digest.
        token: RefreshTokenDigest,
        /// What makes it out of the one that was live.
        salt: [u8; 32],
        /// Written with it; the time is its.
        event: AuditEvent,
    },
    /// Nothing.
    Keep,
    /// It ends.
    End {
        /// Written with it.
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

/// Ends the sessions of a user but the one to keep, in the transaction that changes what they rest on; gives how many.
macro_rules! end_sessions_of {
    ($connection:expr, $user:expr, $keep:expr) => {{
        use $crate::store::{columns::UuidColumn, schema::core_session};
        let keep: Option<$crate::domain::SessionId> = $keep;
        let of_user = core_session::table.filter(core_session::user_id.eq($user));
        match keep {
            Some(keep) => {
                let others = of_user.filter(core_session::session_id.ne(UuidColumn(*keep.as_uuid())));
                diesel::delete(others).execute($connection).await?
            }
            None => diesel::delete(of_user).execute($connection).await?,
        }
    }};
}
pub(super) use end_sessions_of;

impl Store {
    /// Writes a session, and what a right password takes back, unless the password was changed, or the account is no longer verified or
    /// was disabled, since it was checked; says whether it was written.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn open_session(&self, new: NewSession, right: RightPassword) -> Result<bool, StoreError> {
        let row = SessionRow::from(&new);
        let password = new.password.expose().to_owned();
        write!(&self.connections, connection => {
            // An UPDATE that changes nothing locks the row: a change of the password ends this session, or comes before it.
            let same = core_user::table
                .find(row.user_id)
                .filter(core_user::password.eq(password))
                .filter(core_user::is_verified.eq(true));
            let found = diesel::update(same).set(core_user::is_verified.eq(true)).execute(connection).await?;
            // Asked behind the lock: an operator may have come first.
            if found == 0 || diesel::select(is_disabled!(row.user_id)).get_result::<bool>(connection).await? {
                return Ok(false);
            }
            let user = row.user_id;
            diesel::insert_into(core_session::table).values(row).execute(connection).await?;
            let surplus: Vec<UuidColumn> = core_session::table
                .filter(core_session::user_id.eq(user))
                .order((core_session::refreshed_at.desc(), core_session::session_id))
                .offset(i64::from(new.sessions_max))
                .select(core_session::session_id)
                .load(connection)
                .await?;
            let surplus = core_session::table.filter(core_session::session_id.eq_any(surplus));
            diesel::delete(surplus).execute(connection).await?;
            take_back!(connection, right);
            Ok(true)
        })
    }

    /// Changes the session of this family as `decide` says, of which one transaction at a time asks; gives what was known before and
    /// what was decided, or nothing when there is no such session.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn change_session(
        &self,
        family: RefreshTokenDigest,
        decide: impl FnOnce(&KnownSession) -> SessionChange + Send + 'static,
    ) -> Result<Option<(KnownSession, SessionChange)>, StoreError> {
        let family = family.as_bytes().to_vec();
        // A token that nobody was given must not make the database write.
        let of_family = core_session::table.filter(core_session::family.eq(family.clone()));
        let is_known: bool = read!(&self.connections, connection => {
            Ok(diesel::select(diesel::dsl::exists(of_family)).get_result(connection).await?)
        })?;
        if !is_known {
            return Ok(None);
        }
        write!(&self.connections, connection => {
            // Written too, since that locks it on both engines.
            let of_family = core_session::table.filter(core_session::family.eq(family));
            let row: Option<SessionRow> = diesel::update(of_family)
                .set(core_session::token.eq(core_session::token))
                .returning(SessionRow::as_returning())
                .get_result(connection)
                .await
                .optional()?;
            let Some(row) = row else { return Ok(None) };
            let user: UserRow = core_user::table
                .find(row.user_id)
                .select(UserRow::as_select())
                .get_result(connection)
                .await?;
            let found = core_session::table.find(row.session_id);
            let is_disabled = diesel::select(is_disabled!(row.user_id)).get_result(connection).await?;
            let known = known(user, row, is_disabled)?;
            let change = decide(&known);
            match change.clone() {
                SessionChange::Keep => {}
                SessionChange::End { event } => {
                    diesel::delete(found).execute(connection).await?;
                    record!(connection, event);
                }
                SessionChange::Rotate { token, salt, event } => {
                    diesel::update(found)
                        .set((
                            core_session::previous_token.eq(Some(known.token.to_vec())),
                            core_session::token.eq(token.as_bytes().to_vec()),
                            core_session::successor_salt.eq(Some(salt.to_vec())),
                            core_session::refreshed_at.eq(TimestampColumn(event.at)),
                        ))
                        .execute(connection)
                        .await?;
                    record!(connection, event);
                }
            }
            Ok(Some((known, change)))
        })
    }

    /// The session of this id, if it is this user's and nobody keeps them out; whether it has lasted too long is for the caller to see.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn find_session(
        &self,
        id: SessionId,
        user: AuthToken,
    ) -> Result<Option<KnownSession>, StoreError> {
        let (id, user) = (UuidColumn(*id.as_uuid()), UuidColumn(*user.as_uuid()));
        read!(&self.connections, connection => {
            let found: Option<(UserRow, SessionRow)> = core_session::table
                .inner_join(core_user::table)
                .filter(core_session::session_id.eq(id))
                .filter(core_user::auth_token.eq(user))
                .filter(diesel::dsl::not(is_disabled!(core_user::id)))
                .select((UserRow::as_select(), SessionRow::as_select()))
                .get_result(connection)
                .await
                .optional()?;
            found.map(|(user, session)| known(user, session, false)).transpose()
        })
    }

    /// The sessions of a user, those refreshed last first: as many as one may have.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn list_sessions(&self, user: &User) -> Result<Vec<Session>, StoreError> {
        let (id, auth_token) = (user.id.as_i64(), user.auth_token);
        read!(&self.connections, connection => {
            let rows: Vec<SessionRow> = core_session::table
                .filter(core_session::user_id.eq(id))
                .order((core_session::refreshed_at.desc(), core_session::session_id))
                .select(SessionRow::as_select())
                .load(connection)
                .await?;
            Ok(rows.into_iter().map(|row| session(row, auth_token)).collect())
        })
    }

    /// Ends one session of a user, and writes the event; says whether there was one.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn end_session(
        &self,
        id: SessionId,
        user: UserId,
        event: AuditEvent,
    ) -> Result<bool, StoreError> {
        let (id, user) = (UuidColumn(*id.as_uuid()), user.as_i64());
        write!(&self.connections, connection => {
            let session = core_session::table.find(id).filter(core_session::user_id.eq(user));
            let ended = diesel::delete(session).execute(connection).await?;
            if ended > 0 {
                record!(connection, event);
            }
            Ok(ended > 0)
        })
    }

    /// Ends the sessions of a user but the one to keep, and writes the event if there were any; gives how many.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn end_sessions(
        &self,
        user: UserId,
        keep: Option<SessionId>,
        event: AuditEvent,
    ) -> Result<usize, StoreError> {
        write!(&self.connections, connection => {
            let ended = end_sessions_of!(connection, user.as_i64(), keep);
            if ended > 0 {
                record!(connection, event);
            }
            Ok(ended)
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

fn known(user: UserRow, row: SessionRow, is_disabled: bool) -> Result<KnownSession, StoreError> {
    let corrupt = |column| StoreError::Corrupt { table: "core_session", column };
    let bytes = |column, bytes: &[u8]| <[u8; 32]>::try_from(bytes).map_err(|_| corrupt(column));
    let token = bytes("token", &row.token)?;
    let previous = match (&row.previous_token, &row.successor_salt) {
        (Some(previous), Some(salt)) => {
            Some((bytes("previous_token", previous)?, bytes("successor_salt", salt)?))
        }
        _ => None,
    };
    let user = User::from(user);
    let session = session(row, user.auth_token);
    Ok(KnownSession { user, session, is_disabled, token, previous })
}

fn session(row: SessionRow, user: AuthToken) -> Session {
    Session {
        id: SessionId::from_uuid(row.session_id.0),
        user,
        caller: row.caller.into(),
        client: row.client.and_then(|client| ClientAddress::from_shown(&client)),
        agent: row.agent.and_then(|agent| ClientAgent::from_told(agent.as_bytes())),
        created_at: row.created_at.0,
        refreshed_at: row.refreshed_at.0,
    }
}
