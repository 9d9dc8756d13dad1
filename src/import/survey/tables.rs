//! The tables of the survey.

/// Creates the tables, without a journal and without a sync, because a survey that fails is discarded. The
/// cache of 8,000 KiB limits the memory.
pub(super) const TABLES: &str = "
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -8000;
CREATE TABLE candidate (
    id INTEGER PRIMARY KEY, row_token TEXT NOT NULL, auth_token TEXT NOT NULL, email TEXT NOT NULL, username TEXT NOT NULL, username_key TEXT,
    is_verified BOOLEAN NOT NULL, row_digest BLOB NOT NULL, password_digest BLOB NOT NULL, user_id BIGINT, state TEXT NOT NULL,
    unverified INTEGER GENERATED ALWAYS AS (1 - is_verified) VIRTUAL
);
CREATE TABLE refusal (id INTEGER PRIMARY KEY);
CREATE INDEX candidate_auth_token ON candidate (auth_token, unverified, id);
CREATE INDEX candidate_email ON candidate (email, id);
CREATE INDEX candidate_email_verified_first ON candidate (email, unverified, id);
CREATE INDEX candidate_username ON candidate (username, id);
CREATE INDEX candidate_username_key ON candidate (username_key, id);
CREATE INDEX candidate_user_id ON candidate (user_id);
CREATE TABLE finding (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, rows TEXT NOT NULL, words TEXT NOT NULL, is_open BOOLEAN NOT NULL);
CREATE INDEX finding_kind ON finding (kind);
";

diesel::table! {
    use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Text};
    use crate::database::SqlUuid;

    candidate (id) {
        id -> BigInt,
        row_token -> SqlUuid,
        auth_token -> SqlUuid,
        email -> Text,
        username -> Text,
        username_key -> Nullable<Text>,
        is_verified -> Bool,
        row_digest -> Binary,
        password_digest -> Binary,
        user_id -> Nullable<BigInt>,
        state -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Bool, Text};

    finding (number) {
        number -> BigInt,
        kind -> Text,
        rows -> Text,
        words -> Text,
        is_open -> Bool,
    }
}
