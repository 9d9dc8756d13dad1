-- Why: an import from Django that was stopped continues where it stopped. A repeated import writes only the
-- rows that have changed since the last one.
-- Twin: migrations/sqlite/2026-11-26-000001_create_core_imported_user. Differs in: UUID, BYTEA and
-- TIMESTAMPTZ types.
-- Safe while the previous release runs: yes, it does not use this table.

CREATE TABLE core_imported_user (
    -- auth_token of the Django row; together with source_id it identifies the row, also in a copy of the
    -- Django database
    auth_token      UUID NOT NULL,
    source_id       BIGINT NOT NULL,
    -- NULL: the row was left out, or its user was deleted in this service
    user_id         BIGINT UNIQUE REFERENCES core_user (id) ON DELETE SET NULL,
    is_left_out     BOOLEAN NOT NULL,   -- the operator chose another row with the same email
    -- SHA-256 of the row as it was imported, without its password
    row_digest      BYTEA NOT NULL CHECK (length(row_digest) = 32),
    -- SHA-256 of its password; a keyed digest if the password was plaintext
    password_digest BYTEA NOT NULL CHECK (length(password_digest) = 32),
    -- core_user.updated_at as the import wrote it; if it differs there, the user was changed in this service
    updated_at      TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (auth_token, source_id)
);
