-- Why: a replica serves look-ups only if it shows what this instance wrote on the primary lately; otherwise
-- it may be another database of the same cluster. A copy of a store has no use for the rows.
-- Twin: migrations/postgres/2026-11-29-000002_create_kairos_heartbeat. Differs in: UUIDs and time
-- as text. Nothing writes to it on SQLite, which has no replicas.
-- Safe while the previous release runs: yes, it does not use this table.

CREATE TABLE kairos_heartbeat (
    -- random; a new one for each start of an instance
    instance   CHAR(36) NOT NULL PRIMARY KEY CHECK (length(instance) = 36),
    -- counts the writes of the instance
    number     BIGINT NOT NULL,
    written_at DATETIME NOT NULL CHECK (length(written_at) = 26)
);
