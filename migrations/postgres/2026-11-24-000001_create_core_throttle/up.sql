-- Why: guesses are counted where all instances see them, and where a restart does not forget them.
-- Twin: migrations/sqlite/2026-11-24-000001_create_core_throttle. Differs in: BYTEA and TIMESTAMPTZ types.
-- Safe while the previous release runs: yes, nothing reads it yet.

CREATE TABLE core_throttle (
    kind          VARCHAR(32) NOT NULL,   -- what is counted
    subject       BYTEA NOT NULL CHECK (length(subject) = 32),   -- SHA-256 of whose attempts they are
    attempts      INTEGER NOT NULL CHECK (attempts >= 0),
    refused_until TIMESTAMPTZ NOT NULL,
    expires_at    TIMESTAMPTZ NOT NULL,   -- from then on the row counts for nothing
    PRIMARY KEY (kind, subject)
);

CREATE INDEX core_throttle_expires_at_idx ON core_throttle (expires_at);
