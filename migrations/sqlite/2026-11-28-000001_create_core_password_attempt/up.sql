-- Why: only a password that was compared counts as a failure, and a known address belongs to a user.
-- Twin: migrations/postgres/2026-11-28-000001_create_core_password_attempt. Differs in: BLOB type,
-- identifiers and time as text, CHECK for the length of kind.
-- Safe while the previous release runs: no. Its logins write to the table that this migration replaces; stop
-- it first. The known addresses are dropped: they were kept by email, so another person may have made them.

CREATE TABLE core_password_attempt (
    attempt_id CHAR(36) NOT NULL CHECK (length(attempt_id) = 36),
    kind       VARCHAR(32) NOT NULL CHECK (length(kind) BETWEEN 1 AND 32),   -- what is counted, as in core_throttle
    subject    BLOB NOT NULL CHECK (length(subject) = 32),
    -- from this time on the attempt is no longer in progress, even if its instance has not deleted the row
    expires_at DATETIME NOT NULL CHECK (length(expires_at) = 26),
    PRIMARY KEY (attempt_id, kind)
);

CREATE INDEX core_password_attempt_subject_idx ON core_password_attempt (kind, subject, expires_at);
CREATE INDEX core_password_attempt_expires_at_idx ON core_password_attempt (expires_at);

DROP TABLE core_known_address;

CREATE TABLE core_known_address (
    user_id    INTEGER NOT NULL REFERENCES core_user (id) ON DELETE CASCADE,
    -- SHA-256 of auth_token and client address: the digest of an address differs by user, so that the rows do
    -- not show which users share one client
    address    BLOB NOT NULL CHECK (length(address) = 32),
    expires_at DATETIME NOT NULL CHECK (length(expires_at) = 26),
    PRIMARY KEY (user_id, address)
);

CREATE INDEX core_known_address_expires_at_idx ON core_known_address (expires_at);
