-- Why: while an account is throttled because of password guesses, its owner can still log in from a client
-- address of an earlier login.
-- Twin: migrations/sqlite/2026-11-24-000002_create_core_known_address. Differs in: BYTEA and TIMESTAMPTZ
-- types.
-- Safe while the previous release runs: yes, it does not use this table.

CREATE TABLE core_known_address (
    account    BYTEA NOT NULL CHECK (length(account) = 32),   -- SHA-256 of the email
    -- SHA-256 of account and client address: the digest of an address differs by account, so that the rows do
    -- not show which accounts one client uses
    address    BYTEA NOT NULL CHECK (length(address) = 32),
    expires_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (account, address)
);

CREATE INDEX core_known_address_expires_at_idx ON core_known_address (expires_at);
