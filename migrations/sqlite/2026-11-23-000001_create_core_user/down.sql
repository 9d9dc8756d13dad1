DROP TABLE core_user;
PRAGMA application_id = 0;
