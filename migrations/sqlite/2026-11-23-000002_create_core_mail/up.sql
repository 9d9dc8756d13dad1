-- Why: a mailed token verifies that the user reads mail at an address. The outbox sends a mail after the
-- transaction that enqueued it has committed, and resumes after a crash.
-- Twin: migrations/postgres/2026-11-23-000002_create_core_mail. Differs in: identity column, time as text,
-- CHECKs for lengths.
-- Safe while the previous release runs: yes, it does not use these tables.

CREATE TABLE core_mail_token (
    id         INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    user_id    BIGINT NOT NULL REFERENCES core_user (id) ON DELETE CASCADE,
    -- the only purpose that the token is valid for
    purpose    VARCHAR(32) NOT NULL CHECK (length(purpose) BETWEEN 1 AND 32),
    -- the only address that the token verifies
    email      VARCHAR(254) NOT NULL CHECK (length(email) BETWEEN 1 AND 254),
    -- SHA-256 of the token; the token itself is not stored here
    digest     BLOB NOT NULL CHECK (length(digest) = 32),
    created_at DATETIME NOT NULL CHECK (length(created_at) = 26),
    expires_at DATETIME NOT NULL CHECK (length(expires_at) = 26),
    -- set once, by the conditional UPDATE that redeems the token
    used_at    DATETIME CHECK (length(used_at) = 26),
    -- set when a newer link or a change of the account invalidates the token
    voided_at  DATETIME CHECK (length(voided_at) = 26),
    CONSTRAINT core_mail_token_digest_key UNIQUE (digest)
);

CREATE INDEX core_mail_token_user_id_idx ON core_mail_token (user_id);
CREATE INDEX core_mail_token_expires_at_idx ON core_mail_token (expires_at);

CREATE TABLE core_mail_outbox (
    id              INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    user_id         BIGINT NOT NULL REFERENCES core_user (id) ON DELETE CASCADE,
    kind            VARCHAR(32) NOT NULL CHECK (length(kind) BETWEEN 1 AND 32),
    recipient       VARCHAR(254) NOT NULL CHECK (length(recipient) BETWEEN 1 AND 254),
    sealed_token    BLOB,   -- the token for the link, encrypted; erased when the mail is sent or abandoned
    -- the same for all attempts
    message_id      VARCHAR(255) NOT NULL CHECK (length(message_id) BETWEEN 1 AND 255),
    created_at      DATETIME NOT NULL CHECK (length(created_at) = 26),
    -- no attempt after this time: the link has expired
    expires_at      DATETIME NOT NULL CHECK (length(expires_at) = 26),
    -- also the lease of the worker that sends the mail; NULL when finished
    next_attempt_at DATETIME CHECK (length(next_attempt_at) = 26),
    attempts        INTEGER NOT NULL DEFAULT 0,
    sent_at         DATETIME CHECK (length(sent_at) = 26),
    gave_up_at      DATETIME CHECK (length(gave_up_at) = 26),
    last_error      VARCHAR(500) CHECK (length(last_error) <= 500),
    CONSTRAINT core_mail_outbox_message_id_key UNIQUE (message_id)
);

CREATE INDEX core_mail_outbox_user_id_idx ON core_mail_outbox (user_id);
CREATE INDEX core_mail_outbox_next_attempt_at_idx ON core_mail_outbox (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
