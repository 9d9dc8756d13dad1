-- Why: a login creates a session that can be refreshed, can be revoked and expires. A row stores the digests
-- that identify the refresh tokens of the session.
-- Twin: migrations/sqlite/2026-11-25-000001_create_core_session. Differs in: UUID, BYTEA and TIMESTAMPTZ
-- types.
-- Safe while the previous release runs: yes, it does not use this table.

CREATE TABLE core_session (
    session_id     UUID NOT NULL PRIMARY KEY,
    user_id        BIGINT NOT NULL REFERENCES core_user (id) ON DELETE CASCADE,
    -- SHA-256 of the part that all refresh tokens of the session share
    family         BYTEA NOT NULL UNIQUE CHECK (length(family) = 32),
    token          BYTEA NOT NULL CHECK (length(token) = 32),   -- SHA-256 of the current refresh token
    previous_token BYTEA CHECK (length(previous_token) = 32),   -- SHA-256 of the refresh token before it
    -- derives the current refresh token from the previous one (HMAC-SHA256)
    successor_salt BYTEA CHECK (length(successor_salt) = 32),
    caller         VARCHAR(64) NOT NULL CHECK (length(caller) BETWEEN 1 AND 64),
    client         VARCHAR(45) CHECK (length(client) <= 45),
    agent          VARCHAR(256) CHECK (length(agent) <= 256),
    created_at     TIMESTAMPTZ NOT NULL,
    refreshed_at   TIMESTAMPTZ NOT NULL,   -- when the current refresh token was issued
    CHECK ((previous_token IS NULL) = (successor_salt IS NULL))
);

CREATE INDEX core_session_user_id_idx ON core_session (user_id, refreshed_at);
CREATE INDEX core_session_created_at_idx ON core_session (created_at);
CREATE INDEX core_session_refreshed_at_idx ON core_session (refreshed_at);
