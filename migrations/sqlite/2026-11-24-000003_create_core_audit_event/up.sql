-- Why: records every decision about authentication, authorization and accounts.
-- Twin: migrations/postgres/2026-11-24-000003_create_core_audit_event. Differs in: AUTOINCREMENT, UUIDs and
-- time as text.
-- Safe while the previous release runs: yes, it does not use this table.

CREATE TABLE core_audit_event (
    id         INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    at         DATETIME NOT NULL CHECK (length(at) = 26),
    -- event name, from OWASP's Application Logging Vocabulary where it has one
    kind       VARCHAR(40) NOT NULL CHECK (length(kind) BETWEEN 1 AND 40),
    reason     VARCHAR(64) CHECK (length(reason) <= 64),   -- why the action was refused; NULL if it was done
    -- the user that the event is about; no foreign key, since the event outlives the user
    auth_token CHAR(36) CHECK (length(auth_token) = 36),
    resource   VARCHAR(256) CHECK (length(resource) <= 256),
    caller     VARCHAR(64) NOT NULL CHECK (length(caller) BETWEEN 1 AND 64),
    peer       VARCHAR(45) CHECK (length(peer) <= 45),
    client     VARCHAR(45) CHECK (length(client) <= 45),
    agent      VARCHAR(256) CHECK (length(agent) <= 256),
    request_id CHAR(36) CHECK (length(request_id) = 36),
    -- number of equal events within a short time that this row represents
    count      INTEGER NOT NULL CHECK (count > 0)
);

CREATE INDEX core_audit_event_at_idx ON core_audit_event (at, id);
CREATE INDEX core_audit_event_auth_token_idx ON core_audit_event (auth_token, id) WHERE auth_token IS NOT NULL;
