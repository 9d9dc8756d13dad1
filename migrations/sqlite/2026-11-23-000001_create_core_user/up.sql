-- Why: core_user is the source of truth for users. It has the columns of the Django backend that it replaces.
-- Twin: migrations/postgres/2026-11-23-000001_create_core_user. Differs in: identity column, UUID and time as
-- text, CHECKs for the lengths that SQLite does not enforce itself, trigger syntax.
-- Safe while the previous release runs: yes, there is no previous release.

-- An arbitrary number: lets the service refuse a file that belongs to another application.
PRAGMA application_id = 1262093395;

CREATE TABLE core_user (
    id           INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,   -- internal, never sent to callers
    username     VARCHAR(150) NOT NULL CHECK (length(username) BETWEEN 1 AND 150),
    -- comparison form of username; decides uniqueness
    username_key VARCHAR(600) NOT NULL CHECK (length(username_key) BETWEEN 1 AND 600),
    email        VARCHAR(254) NOT NULL CHECK (length(email) BETWEEN 1 AND 254),
    password     VARCHAR(128) NOT NULL CHECK (length(password) <= 128),   -- a hash in Django's format
    is_verified  BOOLEAN NOT NULL DEFAULT 0 CHECK (is_verified IN (0, 1)),
    auth_token   CHAR(36) NOT NULL CHECK (length(auth_token) = 36),   -- a UUID in lower case with hyphens
    created_at   DATETIME NOT NULL CHECK (length(created_at) = 26),   -- YYYY-MM-DD HH:MM:SS.ffffff in UTC
    updated_at   DATETIME NOT NULL CHECK (length(updated_at) = 26),
    CONSTRAINT core_user_username_key UNIQUE (username),
    CONSTRAINT core_user_username_key_key UNIQUE (username_key),
    CONSTRAINT core_user_email_key UNIQUE (email),
    CONSTRAINT core_user_auth_token_key UNIQUE (auth_token)
);

CREATE TRIGGER core_user_auth_token_never_changes
BEFORE UPDATE OF auth_token ON core_user
WHEN NEW.auth_token IS NOT OLD.auth_token
BEGIN
    SELECT RAISE(ABORT, 'core_user.auth_token never changes');
END;
