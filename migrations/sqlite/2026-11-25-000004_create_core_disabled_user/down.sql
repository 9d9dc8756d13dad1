DROP TABLE core_disabled_user;
