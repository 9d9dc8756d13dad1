-- Why: attempts are counted in the database, so that all instances share the counts and a restart keeps them.
-- Twin: migrations/sqlite/2026-11-24-000001_create_core_throttle. Differs in: BYTEA and TIMESTAMPTZ types, no
-- minimum length of kind.
-- Safe while the previous release runs: yes, it does not use this table.

CREATE TABLE core_throttle (
    kind          VARCHAR(32) NOT NULL,   -- what is counted
    -- SHA-256 of an email, a client address or both; zeros for the limit over all attempts
    subject       BYTEA NOT NULL CHECK (length(subject) = 32),
    attempts      INTEGER NOT NULL CHECK (attempts >= 0),
    refused_until TIMESTAMPTZ NOT NULL,
    expires_at    TIMESTAMPTZ NOT NULL,   -- from this time on the row is ignored
    PRIMARY KEY (kind, subject)
);

CREATE INDEX core_throttle_expires_at_idx ON core_throttle (expires_at);
