-- Why: whoever registers and never proves their address is forgotten in time, without reading every user for it.
-- Twin: migrations/postgres/2026-11-25-000003_index_unverified_users. Differs in: nothing.
-- Safe while the previous release runs: yes.

CREATE INDEX core_user_unverified_idx ON core_user (created_at) WHERE NOT is_verified;
