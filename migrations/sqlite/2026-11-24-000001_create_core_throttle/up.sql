-- Why: guesses are counted where all instances see them, and where a restart does not forget them.
-- Twin: migrations/postgres/2026-11-24-000001_create_core_throttle. Differs in: BLOB and time as text.
-- Safe while the previous release runs: yes, nothing reads it yet.

CREATE TABLE core_throttle (
    kind          VARCHAR(32) NOT NULL CHECK (length(kind) BETWEEN 1 AND 32),   -- what is counted
    subject       BLOB NOT NULL CHECK (length(subject) = 32),   -- SHA-256 of whose attempts they are
    attempts      INTEGER NOT NULL CHECK (attempts >= 0),
    refused_until DATETIME NOT NULL CHECK (length(refused_until) = 26),
    expires_at    DATETIME NOT NULL CHECK (length(expires_at) = 26),   -- from then on the row counts for nothing
    PRIMARY KEY (kind, subject)
);

CREATE INDEX core_throttle_expires_at_idx ON core_throttle (expires_at);
