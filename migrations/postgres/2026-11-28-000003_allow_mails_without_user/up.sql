-- Why: the notice of a deletion is mailed after its user is gone, so it belongs to no user. Twin:
-- migrations/sqlite/2026-11-28-000003_allow_mails_without_user. Differs in: the column is changed in place.
-- Safe while the previous release runs: almost. It cannot read such a mail and sends no other until an
-- instance of this release has sent it, which takes seconds.

ALTER TABLE core_mail_outbox ALTER COLUMN user_id DROP NOT NULL;   -- NULL: the mail belongs to no user
