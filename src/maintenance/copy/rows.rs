//! The rows of each table, and how a copy reads, writes and hashes them.

use diesel::{
    ExpressionMethods, Insertable, OptionalExtension, QueryDsl, Queryable, Selectable, SelectableHelper,
};
use diesel_async::RunQueryDsl;

use super::{
    checksum::{Canonical, RowDigest},
    error::CopyError,
    table::{CopiedRow, CopiedTable, copy_table},
};
use crate::{
    database::{
        DatabaseError,
        columns::{TimestampColumn, UuidColumn},
        session::{Session, on_session},
    },
    store::schema::{
        core_audit_event, core_disabled_user, core_imported_user, core_known_address, core_mail_outbox,
        core_mail_token, core_password_attempt, core_registration_request, core_session, core_signing_key,
        core_throttle, core_user,
    },
};

/// Number of rows that are read together, and written in one transaction. On PostgreSQL they are written by
/// one statement, which may have at most 65,535 parameters.
const ROWS: i64 = 1_000;

/// Restricts `$query` to the rows after `$after` in the order of one or two columns.
macro_rules! after_key {
    ($table:ident, $query:ident, $after:expr, $key:ident) => {
        if let Some(after) = $after {
            $query = $query.filter($table::$key.gt(after.$key.clone()));
        }
    };
    ($table:ident, $query:ident, $after:expr, $key:ident, $second_key:ident) => {
        if let Some(after) = $after {
            use diesel::BoolExpressionMethods;
            let (key, second_key) = (after.$key.clone(), after.$second_key.clone());
            $query = $query.filter(
                $table::$key.gt(key.clone()).or($table::$key.eq(key).and($table::$second_key.gt(second_key))),
            );
        }
    };
}

/// Declares the tables in the order of their foreign keys: for each a row type with its columns, the key that
/// orders the rows, and whether both engines sort by that key in the same way. They do not if a text is part
/// of the key: PostgreSQL sorts it by the collation of the database.
macro_rules! tables {
    ($($row:ident of $table:ident { $($column:ident: $type:ty,)+ } by ($($key:ident),+), same_order: $same_order:literal;)+) => {
        $(
            #[derive(Clone, Insertable, Queryable, Selectable)]
            #[diesel(table_name = $table)]
            struct $row {
                $($column: $type,)+
            }

            impl CopiedRow for $row {
                const TABLE: &'static str = stringify!($table);
                const HAS_SAME_ORDER: bool = $same_order;

                async fn page(session: &mut Session, after: Option<&Self>) -> Result<Vec<Self>, DatabaseError> {
                    on_session!(session, connection => {
                        let mut query = $table::table
                            .order(($($table::$key,)+))
                            .limit(ROWS)
                            .select(Self::as_select())
                            .into_boxed();
                        after_key!($table, query, after, $($key),+);
                        Ok(query.load(connection).await?)
                    })
                }

                async fn last(session: &mut Session) -> Result<Option<Self>, DatabaseError> {
                    on_session!(session, connection => {
                        let query = $table::table.order(($($table::$key.desc(),)+)).select(Self::as_select());
                        Ok(query.first(connection).await.optional()?)
                    })
                }

                async fn clear(session: &mut Session) -> Result<(), DatabaseError> {
                    on_session!(session, connection => {
                        diesel::delete($table::table).execute(connection).await?;
                        Ok(())
                    })
                }

                async fn write(session: &mut Session, rows: &[Self]) -> Result<(), DatabaseError> {
                    match session {
                        Session::Sqlite(connection) => {
                            for row in rows {
                                diesel::insert_into($table::table).values(row.clone()).execute(connection).await?;
                            }
                        }
                        Session::Postgres(connection) => {
                            diesel::insert_into($table::table).values(rows.to_vec()).execute(&mut **connection).await?;
                        }
                    }
                    Ok(())
                }

                fn digest(&self) -> [u8; 32] {
                    let mut digest = RowDigest::begin();
                    $(self.$column.add_to(&mut digest);)+
                    digest.finish()
                }
            }
        )+

        /// Returns an error if any table has rows.
        pub(super) async fn refuse_rows(session: &mut Session) -> Result<(), CopyError> {
            $(if $row::last(session).await?.is_some() {
                return Err(CopyError::NotEmpty($row::TABLE));
            })+
            Ok(())
        }

        /// Copies all tables.
        pub(super) async fn copy_all(
            source: &mut Session,
            target: &mut Session,
            progress: &mut impl FnMut(&'static str, u64),
        ) -> Result<Vec<CopiedTable>, CopyError> {
            Ok(vec![$(copy_table::<$row>(source, target, progress).await?),+])
        }
    };
}

tables! {
    UserRow of core_user {
        id: i64,
        username: String,
        username_key: String,
        email: String,
        password: String,
        is_verified: bool,
        auth_token: UuidColumn,
        created_at: TimestampColumn,
        updated_at: TimestampColumn,
    } by (id), same_order: true;
    DisabledUserRow of core_disabled_user {
        user_id: i64,
        disabled_at: TimestampColumn,
    } by (user_id), same_order: true;
    ImportedUserRow of core_imported_user {
        auth_token: UuidColumn,
        source_id: i64,
        user_id: Option<i64>,
        is_left_out: bool,
        row_digest: Vec<u8>,
        password_digest: Vec<u8>,
        updated_at: TimestampColumn,
    } by (auth_token, source_id), same_order: true;
    MailTokenRow of core_mail_token {
        id: i64,
        user_id: i64,
        purpose: String,
        email: String,
        digest: Vec<u8>,
        created_at: TimestampColumn,
        expires_at: TimestampColumn,
        used_at: Option<TimestampColumn>,
        voided_at: Option<TimestampColumn>,
    } by (id), same_order: true;
    OutboxRow of core_mail_outbox {
        id: i64,
        user_id: Option<i64>,
        kind: String,
        recipient: String,
        sealed_token: Option<Vec<u8>>,
        message_id: String,
        created_at: TimestampColumn,
        expires_at: TimestampColumn,
        next_attempt_at: Option<TimestampColumn>,
        attempts: i32,
        sent_at: Option<TimestampColumn>,
        gave_up_at: Option<TimestampColumn>,
        last_error: Option<String>,
    } by (id), same_order: true;
    RequestRow of core_registration_request {
        request_id: UuidColumn,
        user_id: i64,
        email: String,
        username_key: String,
        created_at: TimestampColumn,
    } by (request_id), same_order: true;
    SessionRow of core_session {
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
    } by (session_id), same_order: true;
    SigningKeyRow of core_signing_key {
        generation: i32,
        kid: String,
        sealed_seed: Vec<u8>,
        created_at: TimestampColumn,
        signs_from: TimestampColumn,
        verifies_until: Option<TimestampColumn>,
    } by (generation), same_order: true;
    AuditEventRow of core_audit_event {
        id: i64,
        at: TimestampColumn,
        kind: String,
        reason: Option<String>,
        auth_token: Option<UuidColumn>,
        resource: Option<String>,
        caller: String,
        peer: Option<String>,
        client: Option<String>,
        agent: Option<String>,
        request_id: Option<UuidColumn>,
        count: i32,
    } by (id), same_order: true;
    ThrottleRow of core_throttle {
        kind: String,
        subject: Vec<u8>,
        attempts: i32,
        refused_until: TimestampColumn,
        expires_at: TimestampColumn,
    } by (kind, subject), same_order: false;
    PasswordAttemptRow of core_password_attempt {
        attempt_id: UuidColumn,
        kind: String,
        subject: Vec<u8>,
        expires_at: TimestampColumn,
    } by (attempt_id, kind), same_order: false;
    KnownAddressRow of core_known_address {
        user_id: i64,
        address: Vec<u8>,
        expires_at: TimestampColumn,
    } by (user_id, address), same_order: true;
}
