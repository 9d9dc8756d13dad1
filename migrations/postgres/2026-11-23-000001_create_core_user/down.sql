DROP TABLE core_user;
DROP FUNCTION core_user_auth_token_never_changes();
