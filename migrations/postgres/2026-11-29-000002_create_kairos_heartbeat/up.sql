-- Why: a replica serves look-ups only if it shows what this instance wrote on the primary lately; otherwise
-- it may be another database of the same cluster. A copy of a store has no use for the rows.
-- Twin: migrations/sqlite/2026-11-29-000002_create_kairos_heartbeat. Differs in: UUID and TIMESTAMPTZ
-- types.
-- Safe while the previous release runs: yes, it does not use this table.

CREATE TABLE kairos_heartbeat (
    -- random; a new one for each start of an instance
    instance   UUID NOT NULL PRIMARY KEY,
    -- counts the writes of the instance
    number     BIGINT NOT NULL,
    written_at TIMESTAMPTZ NOT NULL
);
