-- Why: every decision about authentication, authorization and accounts can be read later.
-- Twin: migrations/postgres/2026-11-24-000003_create_core_audit_event. Differs in: AUTOINCREMENT, UUIDs and time as text.
-- Safe while the previous release runs: yes, nothing reads it yet.

CREATE TABLE core_audit_event (
    id         INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    at         DATETIME NOT NULL CHECK (length(at) = 26),
    kind       VARCHAR(40) NOT NULL CHECK (length(kind) BETWEEN 1 AND 40),   -- OWASP's name
    reason     VARCHAR(64) CHECK (length(reason) <= 64),   -- NULL for what was done
    auth_token CHAR(36) CHECK (length(auth_token) = 36),   -- whom it is about; no foreign key, since it stays when the user goes
    resource   VARCHAR(256) CHECK (length(resource) <= 256),
    caller     VARCHAR(64) NOT NULL CHECK (length(caller) BETWEEN 1 AND 64),
    peer       VARCHAR(45) CHECK (length(peer) <= 45),
    client     VARCHAR(45) CHECK (length(client) <= 45),
    agent      VARCHAR(256) CHECK (length(agent) <= 256),
    request_id CHAR(36) CHECK (length(request_id) = 36),
    count      INTEGER NOT NULL CHECK (count > 0)   -- how many alike came within a moment
);

CREATE INDEX core_audit_event_at_idx ON core_audit_event (at, id);
CREATE INDEX core_audit_event_auth_token_idx ON core_audit_event (auth_token, id) WHERE auth_token IS NOT NULL;
