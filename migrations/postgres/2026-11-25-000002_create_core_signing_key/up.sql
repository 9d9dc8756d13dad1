-- Why: all instances sign access tokens with the same keys. Keys rotate without a moment at which a valid
-- token is refused.
-- Twin: migrations/sqlite/2026-11-25-000002_create_core_signing_key. Differs in: BYTEA and TIMESTAMPTZ types.
-- Safe while the previous release runs: yes, it does not use this table.

CREATE TABLE core_signing_key (
    -- 1, 2, ...; UNIQUE, so that only one of two instances creates the next key
    generation     INTEGER NOT NULL UNIQUE CHECK (generation > 0),
    kid            VARCHAR(43) NOT NULL PRIMARY KEY CHECK (length(kid) = 43),   -- RFC 7638 thumbprint
    sealed_seed    BYTEA NOT NULL,   -- encrypted with the key in secret.key-file
    created_at     TIMESTAMPTZ NOT NULL,
    signs_from     TIMESTAMPTZ NOT NULL,
    verifies_until TIMESTAMPTZ   -- NULL as long as there is no later key
);
