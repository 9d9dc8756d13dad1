//! The tables as diesel sees them. Both engines share one definition; `tests/it/store/schema.rs` compares it
//! with the schema of each.

#![expect(missing_docs, reason = "the migrations document each column")]

mod sql_types {
    pub(super) use diesel::sql_types::{BigInt, Binary, Bool, Integer, Nullable, Text};

    pub(super) use crate::database::columns::{SqlTimestamp, SqlUuid};
}

diesel::table! {
    use super::sql_types::{BigInt, Bool, SqlTimestamp, SqlUuid, Text};

    core_user (id) {
        id -> BigInt,
        username -> Text,
        username_key -> Text,
        email -> Text,
        password -> Text,
        is_verified -> Bool,
        auth_token -> SqlUuid,
        created_at -> SqlTimestamp,
        updated_at -> SqlTimestamp,
    }
}

diesel::table! {
    use super::sql_types::{BigInt, Binary, Nullable, SqlTimestamp, Text};

    core_mail_token (id) {
        id -> BigInt,
        user_id -> BigInt,
        purpose -> Text,
        email -> Text,
        digest -> Binary,
        created_at -> SqlTimestamp,
        expires_at -> SqlTimestamp,
        used_at -> Nullable<SqlTimestamp>,
        voided_at -> Nullable<SqlTimestamp>,
    }
}

diesel::table! {
    use super::sql_types::{BigInt, Binary, Integer, Nullable, SqlTimestamp, Text};

    core_mail_outbox (id) {
        id -> BigInt,
        user_id -> Nullable<BigInt>,
        kind -> Text,
        recipient -> Text,
        sealed_token -> Nullable<Binary>,
        message_id -> Text,
        created_at -> SqlTimestamp,
        expires_at -> SqlTimestamp,
        next_attempt_at -> Nullable<SqlTimestamp>,
        attempts -> Integer,
        sent_at -> Nullable<SqlTimestamp>,
        gave_up_at -> Nullable<SqlTimestamp>,
        last_error -> Nullable<Text>,
    }
}

diesel::table! {
    use super::sql_types::{BigInt, SqlTimestamp, SqlUuid, Text};

    core_registration_request (request_id) {
        request_id -> SqlUuid,
        user_id -> BigInt,
        email -> Text,
        username_key -> Text,
        created_at -> SqlTimestamp,
    }
}

diesel::table! {
    use super::sql_types::{Binary, Integer, SqlTimestamp, Text};

    core_throttle (kind, subject) {
        kind -> Text,
        subject -> Binary,
        attempts -> Integer,
        refused_until -> SqlTimestamp,
        expires_at -> SqlTimestamp,
    }
}

diesel::table! {
    use super::sql_types::{Binary, SqlTimestamp, SqlUuid, Text};

    core_password_attempt (attempt_id, kind) {
        attempt_id -> SqlUuid,
        kind -> Text,
        subject -> Binary,
        expires_at -> SqlTimestamp,
    }
}

diesel::table! {
    use super::sql_types::{BigInt, Binary, SqlTimestamp};

    core_known_address (user_id, address) {
        user_id -> BigInt,
        address -> Binary,
        expires_at -> SqlTimestamp,
    }
}

diesel::table! {
    use super::sql_types::{BigInt, Integer, Nullable, SqlTimestamp, SqlUuid, Text};

    core_audit_event (id) {
        id -> BigInt,
        at -> SqlTimestamp,
        kind -> Text,
        reason -> Nullable<Text>,
        auth_token -> Nullable<SqlUuid>,
        resource -> Nullable<Text>,
        caller -> Text,
        peer -> Nullable<Text>,
        client -> Nullable<Text>,
        agent -> Nullable<Text>,
        request_id -> Nullable<SqlUuid>,
        count -> Integer,
    }
}

diesel::table! {
    use super::sql_types::{BigInt, Binary, Nullable, SqlTimestamp, SqlUuid, Text};

    core_session (session_id) {
        session_id -> SqlUuid,
        user_id -> BigInt,
        family -> Binary,
        token -> Binary,
        previous_token -> Nullable<Binary>,
        successor_salt -> Nullable<Binary>,
        caller -> Text,
        client -> Nullable<Text>,
        agent -> Nullable<Text>,
        created_at -> SqlTimestamp,
        refreshed_at -> SqlTimestamp,
    }
}

diesel::table! {
    use super::sql_types::{Binary, Integer, Nullable, SqlTimestamp, Text};

    core_signing_key (kid) {
        generation -> Integer,
        kid -> Text,
        sealed_seed -> Binary,
        created_at -> SqlTimestamp,
        signs_from -> SqlTimestamp,
        verifies_until -> Nullable<SqlTimestamp>,
    }
}

diesel::table! {
    use super::sql_types::{BigInt, SqlTimestamp};

    core_disabled_user (user_id) {
        user_id -> BigInt,
        disabled_at -> SqlTimestamp,
    }
}

diesel::table! {
    use super::sql_types::{BigInt, Binary, Bool, Nullable, SqlTimestamp, SqlUuid};

    core_imported_user (auth_token, source_id) {
        auth_token -> SqlUuid,
        source_id -> BigInt,
        user_id -> Nullable<BigInt>,
        is_left_out -> Bool,
        row_digest -> Binary,
        password_digest -> Binary,
        updated_at -> SqlTimestamp,
    }
}

diesel::table! {
    use super::sql_types::{Nullable, SqlTimestamp};

    core_copy (started_at) {
        started_at -> SqlTimestamp,
        finished_at -> Nullable<SqlTimestamp>,
    }
}

diesel::joinable!(core_mail_token -> core_user (user_id));
diesel::joinable!(core_mail_outbox -> core_user (user_id));
diesel::joinable!(core_registration_request -> core_user (user_id));
diesel::joinable!(core_session -> core_user (user_id));
diesel::joinable!(core_known_address -> core_user (user_id));
diesel::joinable!(core_disabled_user -> core_user (user_id));
diesel::joinable!(core_imported_user -> core_user (user_id));
diesel::allow_tables_to_appear_in_same_query!(
    core_user,
    core_mail_token,
    core_mail_outbox,
    core_registration_request,
    core_session,
    core_known_address,
    core_disabled_user,
    core_imported_user
);
