-- Why: an import from Django that was stopped continues where it stopped. A repeated import writes only the
-- rows that have changed since the last one.
-- Twin: migrations/postgres/2026-11-26-000001_create_core_imported_user. Differs in: UUID and time as text,
-- BLOB type.
-- Safe while the previous release runs: yes, it does not use this table.

CREATE TABLE core_imported_user (
    -- auth_token of the Django row; together with source_id it identifies the row, also in a copy of the
    -- Django database
    auth_token      CHAR(36) NOT NULL CHECK (length(auth_token) = 36),
    source_id       BIGINT NOT NULL,
    -- NULL: the row was left out, or its user was deleted in this service
    user_id         BIGINT UNIQUE REFERENCES core_user (id) ON DELETE SET NULL,
    -- the operator chose another row with the same email
    is_left_out     BOOLEAN NOT NULL CHECK (is_left_out IN (0, 1)),
    -- SHA-256 of the row as it was imported, without its password
    row_digest      BLOB NOT NULL CHECK (length(row_digest) = 32),
    -- SHA-256 of its password; a keyed digest if the password was plaintext
    password_digest BLOB NOT NULL CHECK (length(password_digest) = 32),
    -- core_user.updated_at as the import wrote it; if it differs there, the user was changed in this service
    updated_at      DATETIME NOT NULL CHECK (length(updated_at) = 26),
    PRIMARY KEY (auth_token, source_id)
);
