-- Why: a store that is being filled from another one must not be served, and the copy must be able to go on.
-- Twin: migrations/sqlite/2026-11-26-000002_create_core_copy. Differs in: TIMESTAMPTZ.
-- Safe while the previous release runs: yes, nothing reads it yet.

CREATE TABLE core_copy (
    started_at  TIMESTAMPTZ NOT NULL PRIMARY KEY,
    finished_at TIMESTAMPTZ   -- NULL as long as rows are missing
);
