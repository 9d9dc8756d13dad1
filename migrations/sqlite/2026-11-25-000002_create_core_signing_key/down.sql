DROP TABLE core_signing_key;
