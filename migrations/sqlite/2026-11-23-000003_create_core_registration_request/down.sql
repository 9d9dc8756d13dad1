DROP TABLE core_registration_request;
