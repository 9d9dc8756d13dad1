-- Why: users who never verify their email are deleted after verification.unverified-kept. The index finds
-- them without a scan of all users.
-- Twin: migrations/postgres/2026-11-25-000003_index_unverified_users. Differs in: nothing.
-- Safe while the previous release runs: yes.

CREATE INDEX core_user_unverified_idx ON core_user (created_at) WHERE NOT is_verified;
