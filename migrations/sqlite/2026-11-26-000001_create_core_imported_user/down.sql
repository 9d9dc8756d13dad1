DROP TABLE core_imported_user;
