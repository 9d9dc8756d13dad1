-- Why: while an account is throttled because of password guesses, its owner can still log in from a client
-- address of an earlier login.
-- Twin: migrations/postgres/2026-11-24-000002_create_core_known_address. Differs in: BLOB type, time as text.
-- Safe while the previous release runs: yes, it does not use this table.

CREATE TABLE core_known_address (
    account    BLOB NOT NULL CHECK (length(account) = 32),   -- SHA-256 of the email
    -- SHA-256 of account and client address: the digest of an address differs by account, so that the rows do
    -- not show which accounts one client uses
    address    BLOB NOT NULL CHECK (length(address) = 32),
    expires_at DATETIME NOT NULL CHECK (length(expires_at) = 26),
    PRIMARY KEY (account, address)
);

CREATE INDEX core_known_address_expires_at_idx ON core_known_address (expires_at);
