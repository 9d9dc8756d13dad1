-- Why: the number of audit events is limited (audit.rows-max), and the least valuable ones are deleted first.
-- The index finds them: refusals of strangers, other refusals, refusals about an account, reads. Its texts
-- are those of src/store/tables/audit_limit.rs. Events of changes are not in it.
-- Twin: migrations/sqlite/2026-11-28-000002_index_audit_event_value. Differs in: nothing.
-- Safe while the previous release runs: yes.

CREATE INDEX core_audit_event_value_idx ON core_audit_event (
    (CASE WHEN reason IS NULL THEN 3 WHEN auth_token IS NOT NULL THEN 2
     WHEN caller = 'nobody' OR caller = 'pages' THEN 0 ELSE 1 END),
    at, id
) WHERE (reason IS NOT NULL OR kind = 'sensitive_read');
