-- Why: a store that `kairos-identity copy` has not filled completely must not be served, and the copy must be
-- resumable.
-- Twin: migrations/sqlite/2026-11-26-000002_create_core_copy. Differs in: TIMESTAMPTZ type.
-- Safe while the previous release runs: yes, it does not use this table.

CREATE TABLE core_copy (
    started_at  TIMESTAMPTZ NOT NULL PRIMARY KEY,
    finished_at TIMESTAMPTZ   -- NULL until all rows are copied
);
