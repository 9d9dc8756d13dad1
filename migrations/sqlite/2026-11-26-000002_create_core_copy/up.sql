-- Why: a store that `kairos-identity copy` has not filled completely must not be served, and the copy must be
-- resumable.
-- Twin: migrations/postgres/2026-11-26-000002_create_core_copy. Differs in: time as text.
-- Safe while the previous release runs: yes, it does not use this table.

CREATE TABLE core_copy (
    started_at  DATETIME NOT NULL PRIMARY KEY CHECK (length(started_at) = 26),
    finished_at DATETIME CHECK (length(finished_at) = 26)   -- NULL until all rows are copied
);
