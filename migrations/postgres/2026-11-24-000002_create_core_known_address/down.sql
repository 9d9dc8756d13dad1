DROP TABLE core_known_address;
