-- Why: an operator can keep somebody out without deleting them. A table of its own, so that core_user keeps the columns of Django's and
-- look-ups read nothing more.
-- Twin: migrations/sqlite/2026-11-25-000004_create_core_disabled_user. Differs in: TIMESTAMPTZ.
-- Safe while the previous release runs: yes, nothing reads it yet.

CREATE TABLE core_disabled_user (
    user_id     BIGINT NOT NULL PRIMARY KEY REFERENCES core_user (id) ON DELETE CASCADE,
    disabled_at TIMESTAMPTZ NOT NULL
);
