DROP INDEX core_user_unverified_idx;
