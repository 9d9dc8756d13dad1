-- Why: an operator can keep somebody out without deleting them. A table of its own, so that core_user keeps the columns of Django's and
-- look-ups read nothing more.
-- Twin: migrations/postgres/2026-11-25-000004_create_core_disabled_user. Differs in: time as text, no row id beside the key.
-- Safe while the previous release runs: yes, nothing reads it yet.

CREATE TABLE core_disabled_user (
    user_id     INTEGER NOT NULL PRIMARY KEY REFERENCES core_user (id) ON DELETE CASCADE,
    disabled_at DATETIME NOT NULL CHECK (length(disabled_at) = 26)
) WITHOUT ROWID;
