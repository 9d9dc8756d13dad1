DROP TABLE core_audit_event;
