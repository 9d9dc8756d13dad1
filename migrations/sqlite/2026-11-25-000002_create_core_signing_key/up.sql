-- Why: all instances sign access tokens with the same keys, which change without a moment in which a good token is refused.
-- Twin: migrations/postgres/2026-11-25-000002_create_core_signing_key. Differs in: time as text, BLOB.
-- Safe while the previous release runs: yes, nothing reads it yet.

CREATE TABLE core_signing_key (
    generation     INTEGER NOT NULL UNIQUE CHECK (generation > 0),   -- 1, 2, …: of two instances that make the next key one does
    kid            VARCHAR(43) NOT NULL PRIMARY KEY CHECK (length(kid) = 43),   -- RFC 7638 thumbprint
    sealed_seed    BLOB NOT NULL,   -- under secret.key-file
    created_at     DATETIME NOT NULL CHECK (length(created_at) = 26),
    signs_from     DATETIME NOT NULL CHECK (length(signs_from) = 26),
    verifies_until DATETIME CHECK (length(verifies_until) = 26)   -- NULL as long as there is no later key
);
