-- Why: an operator can disable a user without deleting the user. This is a separate table, so that core_user
-- keeps the columns of the Django table and look-ups read no further column.
-- Twin: migrations/sqlite/2026-11-25-000004_create_core_disabled_user. Differs in: TIMESTAMPTZ type.
-- Safe while the previous release runs: yes, it does not use this table.

CREATE TABLE core_disabled_user (
    user_id     BIGINT NOT NULL PRIMARY KEY REFERENCES core_user (id) ON DELETE CASCADE,
    disabled_at TIMESTAMPTZ NOT NULL
);
