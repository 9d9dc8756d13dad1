-- Why: a caller that did not receive the response to Register retries with the same request_id and gets the
-- same user (AIP-155).
-- Twin: migrations/postgres/2026-11-23-000003_create_core_registration_request. Differs in: UUID and time as
-- text, CHECKs for lengths.
-- Safe while the previous release runs: yes, it does not use this table.

CREATE TABLE core_registration_request (
    request_id CHAR(36) PRIMARY KEY NOT NULL CHECK (length(request_id) = 36),
    user_id    BIGINT NOT NULL REFERENCES core_user (id) ON DELETE CASCADE,
    -- the email in the first request
    email      VARCHAR(254) NOT NULL CHECK (length(email) BETWEEN 1 AND 254),
    username_key VARCHAR(600) NOT NULL CHECK (length(username_key) BETWEEN 1 AND 600),
    created_at DATETIME NOT NULL CHECK (length(created_at) = 26)   -- the row is deleted 24 h later
);

CREATE INDEX core_registration_request_user_id_idx ON core_registration_request (user_id);
CREATE INDEX core_registration_request_created_at_idx ON core_registration_request (created_at);
