DROP TABLE core_mail_outbox;
DROP TABLE core_mail_token;
