DROP TABLE core_copy;
