DELETE FROM core_mail_outbox WHERE user_id IS NULL;
ALTER TABLE core_mail_outbox ALTER COLUMN user_id SET NOT NULL;
