-- Why: a caller that did not receive the response to Register retries with the same request_id and gets the
-- same user (AIP-155).
-- Twin: migrations/sqlite/2026-11-23-000003_create_core_registration_request. Differs in: UUID and
-- TIMESTAMPTZ types, lengths enforced by type.
-- Safe while the previous release runs: yes, it does not use this table.

CREATE TABLE core_registration_request (
    request_id UUID PRIMARY KEY,
    user_id    BIGINT NOT NULL REFERENCES core_user (id) ON DELETE CASCADE,
    email      VARCHAR(254) NOT NULL CHECK (length(email) >= 1),   -- the email in the first request
    username_key VARCHAR(600) NOT NULL CHECK (length(username_key) >= 1),
    created_at TIMESTAMPTZ NOT NULL   -- the row is deleted 24 h later
);

CREATE INDEX core_registration_request_user_id_idx ON core_registration_request (user_id);
CREATE INDEX core_registration_request_created_at_idx ON core_registration_request (created_at);
