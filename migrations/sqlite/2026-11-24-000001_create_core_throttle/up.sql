-- Why: attempts are counted in the database, so that all instances share the counts and a restart keeps them.
-- Twin: migrations/postgres/2026-11-24-000001_create_core_throttle. Differs in: BLOB type, time as text,
-- CHECK for the length of kind.
-- Safe while the previous release runs: yes, it does not use this table.

CREATE TABLE core_throttle (
    kind          VARCHAR(32) NOT NULL CHECK (length(kind) BETWEEN 1 AND 32),   -- what is counted
    -- SHA-256 of an email, a client address or both; zeros for the limit over all attempts
    subject       BLOB NOT NULL CHECK (length(subject) = 32),
    attempts      INTEGER NOT NULL CHECK (attempts >= 0),
    refused_until DATETIME NOT NULL CHECK (length(refused_until) = 26),
    expires_at    DATETIME NOT NULL CHECK (length(expires_at) = 26),   -- from this time on the row is ignored
    PRIMARY KEY (kind, subject)
);

CREATE INDEX core_throttle_expires_at_idx ON core_throttle (expires_at);
