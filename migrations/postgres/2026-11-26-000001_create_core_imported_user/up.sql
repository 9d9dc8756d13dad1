-- Why: an import from Django that was stopped goes on where it was, and one that is run again takes over only what has changed since.
-- Twin: migrations/sqlite/2026-11-26-000001_create_core_imported_user. Differs in: UUID, BYTEA and TIMESTAMPTZ.
-- Safe while the previous release runs: yes, nothing reads it yet.

CREATE TABLE core_imported_user (
    auth_token      UUID NOT NULL,   -- of the row in Django: with its id the name of the row, in copies of that database too
    source_id       BIGINT NOT NULL,
    user_id         BIGINT UNIQUE REFERENCES core_user (id) ON DELETE SET NULL,   -- NULL: left out, or deleted here since
    is_left_out     BOOLEAN NOT NULL,   -- the operator chose another row with the same email
    row_digest      BYTEA NOT NULL CHECK (length(row_digest) = 32),   -- SHA-256 of the row, without its password, as it was taken over
    password_digest BYTEA NOT NULL CHECK (length(password_digest) = 32),   -- of its password; keyed if that was plaintext
    updated_at      TIMESTAMPTZ NOT NULL,   -- of the user as they were written: another one means that they have changed here
    PRIMARY KEY (auth_token, source_id)
);
