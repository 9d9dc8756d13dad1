-- Why: the notice of a deletion is mailed after its user is gone, so it belongs to no user. Twin:
-- migrations/postgres/2026-11-28-000003_allow_mails_without_user. Differs in: SQLite cannot change a column,
-- so the table is written again. Safe while the previous release runs: almost. It cannot read such a mail and
-- sends no other until an instance of this release has sent it, which takes seconds.

CREATE TABLE core_mail_outbox_new (
    id              INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    -- NULL: the mail belongs to no user
    user_id         BIGINT REFERENCES core_user (id) ON DELETE CASCADE,
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

INSERT INTO core_mail_outbox_new
SELECT id, user_id, kind, recipient, sealed_token, message_id, created_at, expires_at, next_attempt_at, attempts,
    sent_at, gave_up_at, last_error
FROM core_mail_outbox;

DROP TABLE core_mail_outbox;
ALTER TABLE core_mail_outbox_new RENAME TO core_mail_outbox;

CREATE INDEX core_mail_outbox_user_id_idx ON core_mail_outbox (user_id);
CREATE INDEX core_mail_outbox_next_attempt_at_idx ON core_mail_outbox (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
