-- Why: a store that is being filled from another one must not be served, and the copy must be able to go on.
-- Twin: migrations/postgres/2026-11-26-000002_create_core_copy. Differs in: time as text.
-- Safe while the previous release runs: yes, nothing reads it yet.

CREATE TABLE core_copy (
    started_at  DATETIME NOT NULL PRIMARY KEY CHECK (length(started_at) = 26),
    finished_at DATETIME CHECK (length(finished_at) = 26)   -- NULL as long as rows are missing
);
