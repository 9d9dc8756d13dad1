DROP TABLE core_known_address;

CREATE TABLE core_known_address (
    account    BYTEA NOT NULL CHECK (length(account) = 32),   -- SHA-256 of the email
    -- SHA-256 of account and client address: the digest of an address differs by account, so that the rows do
    -- not show which accounts one client uses
    address    BYTEA NOT NULL CHECK (length(address) = 32),
    expires_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (account, address)
);

CREATE INDEX core_known_address_expires_at_idx ON core_known_address (expires_at);

DROP TABLE core_password_attempt;
