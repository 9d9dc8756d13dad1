-- Why: a login lasts, and ends when it should: each session with what its refresh tokens are told by.
-- Twin: migrations/postgres/2026-11-25-000001_create_core_session. Differs in: UUIDs and time as text, BLOB.
-- Safe while the previous release runs: yes, nothing reads it yet.

CREATE TABLE core_session (
    session_id     CHAR(36) NOT NULL PRIMARY KEY CHECK (length(session_id) = 36),
    user_id        INTEGER NOT NULL REFERENCES core_user (id) ON DELETE CASCADE,
    family         BLOB NOT NULL UNIQUE CHECK (length(family) = 32),   -- SHA-256 of what all its refresh tokens share
    token          BLOB NOT NULL CHECK (length(token) = 32),   -- SHA-256 of the live refresh token
    previous_token BLOB CHECK (length(previous_token) = 32),   -- SHA-256 of the one before it
    successor_salt BLOB CHECK (length(successor_salt) = 32),   -- what makes the live one out of the one before it
    caller         VARCHAR(64) NOT NULL CHECK (length(caller) BETWEEN 1 AND 64),
    client         VARCHAR(45) CHECK (length(client) <= 45),
    agent          VARCHAR(256) CHECK (length(agent) <= 256),
    created_at     DATETIME NOT NULL CHECK (length(created_at) = 26),
    refreshed_at   DATETIME NOT NULL CHECK (length(refreshed_at) = 26),   -- when the live refresh token was given out
    CHECK ((previous_token IS NULL) = (successor_salt IS NULL))
);

CREATE INDEX core_session_user_id_idx ON core_session (user_id, refreshed_at);
CREATE INDEX core_session_created_at_idx ON core_session (created_at);
CREATE INDEX core_session_refreshed_at_idx ON core_session (refreshed_at);
