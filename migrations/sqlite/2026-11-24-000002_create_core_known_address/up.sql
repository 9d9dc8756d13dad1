-- Why: an account that is being guessed at still lets its owner in, from where they have logged in before.
-- Twin: migrations/postgres/2026-11-24-000002_create_core_known_address. Differs in: BLOB and time as text.
-- Safe while the previous release runs: yes, nothing reads it yet.

CREATE TABLE core_known_address (
    account    BLOB NOT NULL CHECK (length(account) = 32),   -- SHA-256 of the email
    address    BLOB NOT NULL CHECK (length(address) = 32),   -- SHA-256 of the email and the address: nobody's movements
    expires_at DATETIME NOT NULL CHECK (length(expires_at) = 26),
    PRIMARY KEY (account, address)
);

CREATE INDEX core_known_address_expires_at_idx ON core_known_address (expires_at);
