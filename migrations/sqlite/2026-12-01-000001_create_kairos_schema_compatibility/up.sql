-- Why: a release can serve tables to which a newer one has added, beside that one or after a rollback. A
-- migration that takes from them what a release uses writes here how new a release must be.
-- Twin: migrations/postgres/2026-12-01-000001_create_kairos_schema_compatibility. Differs in: nothing.
-- Safe while the previous release runs: yes, it does not use this table.

CREATE TABLE kairos_schema_compatibility (
    -- the only row
    id                INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    -- the last migration of the oldest release that may use the tables
    oldest_compatible VARCHAR(50) NOT NULL
);

INSERT INTO kairos_schema_compatibility (id, oldest_compatible) VALUES (1, '20261201000001');
