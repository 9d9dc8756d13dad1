DROP TABLE core_known_address;

CREATE TABLE core_known_address (
    account    BLOB NOT NULL CHECK (length(account) = 32),   -- SHA-256 of the email
    -- SHA-256 of account and client address: the digest of an address differs by account, so that the rows do
    -- not show which accounts one client uses
    address    BLOB NOT NULL CHECK (length(address) = 32),
    expires_at DATETIME NOT NULL CHECK (length(expires_at) = 26),
    PRIMARY KEY (account, address)
);

CREATE INDEX core_known_address_expires_at_idx ON core_known_address (expires_at);

DROP TABLE core_password_attempt;
