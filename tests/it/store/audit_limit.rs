//! The limit of the audit trail: which events are deleted first, and in which batches.

use std::time::Duration;

use kairos_identity::{
    domain::{AuditEvent, AuditKind, AuthToken, NOBODY, Origin, PAGES},
    store::AuditFilter,
};

use super::{NOW, World};

/// Returns an event with this caller, `second` seconds after [`NOW`]: 0 is the oldest.
fn event_at(
    second: u64,
    kind: AuditKind,
    caller: &str,
    user: Option<AuthToken>,
    reason: Option<&'static str>,
) -> AuditEvent {
    let event = AuditEvent::new(NOW.plus(Duration::from_secs(second)), kind, Origin::local(caller));
    AuditEvent { reason, ..event.with_user(user) }
}

/// Returns the seconds (see [`event_at`]) of the events that are left.
async fn seconds_left(world: &World) -> Vec<u64> {
    let left = world.store.list_audit_events(AuditFilter::default(), None, 100).await.unwrap();
    left.iter().map(|event| event.at.since(NOW).as_secs()).collect()
}

on_both_engines! {
    async fn the_least_valuable_events_are_deleted_first_and_the_oldest_of_them(engine: Engine) {
        let world = World::new(engine).await;
        let ada = Some(AuthToken::from_random([7; 16]));
        let denied = Some("CALLER_UNKNOWN");
        let events = vec![
            event_at(0, AuditKind::UserDeleted, "command-line", ada, None),
            event_at(1, AuditKind::SensitiveRead, "bff", ada, None),
            event_at(2, AuditKind::AuthnLoginFail, "bff", ada, Some("INVALID_CREDENTIALS")),
            event_at(3, AuditKind::AuthnLoginFail, "bff", None, Some("INVALID_CREDENTIALS")),
            event_at(4, AuditKind::AuthzFail, NOBODY, None, denied),
            event_at(5, AuditKind::UserUpdateFail, PAGES, None, Some("INVALID_TOKEN")),
            event_at(6, AuditKind::AuthzFail, NOBODY, None, denied),
            event_at(7, AuditKind::AuthzChange, "callers-file", None, None),
        ];
        world.store.record_audit_events(events).await.unwrap();

        // First the refusals of strangers and of pages, then those of callers, those about a user, the reads,
        // and the changes.
        for left in [&[0, 1, 2, 3, 5, 6, 7][..], &[0, 1, 2, 3, 6, 7], &[0, 1, 2, 3, 7], &[0, 1, 2, 7], &[0, 1, 7], &[0, 7], &[7], &[]] {
            assert_eq!(world.store.delete_least_valuable_audit_events(1).await.unwrap(), 1);
            assert_eq!(seconds_left(&world).await, left);
        }
        assert_eq!(world.store.delete_least_valuable_audit_events(1).await.unwrap(), 0);
    }

    async fn excess_events_are_counted_and_deleted_in_batches(engine: Engine) {
        let world = World::new(engine).await;
        assert_eq!(world.store.excess_audit_events(1_000).await.unwrap(), 0);
        let refusals = (0..2_500).map(|second| event_at(second, AuditKind::AuthzFail, NOBODY, None, Some("CALLER_UNKNOWN")));
        let done = (0..500).map(|second| event_at(second, AuditKind::UserCreated, "bff", Some(AuthToken::from_random([7; 16])), None));
        world.store.record_audit_events(refusals.chain(done).collect()).await.unwrap();
        assert_eq!(world.store.excess_audit_events(3_000).await.unwrap(), 0);

        let mut excess = world.store.excess_audit_events(600).await.unwrap();
        assert_eq!(excess, 2_400);
        for deleted in [1_000, 1_000, 400] {
            assert_eq!(world.store.delete_least_valuable_audit_events(excess).await.unwrap(), deleted);
            excess -= i64::try_from(deleted).unwrap();
        }
        // The ids have gaps now: the events themselves are counted.
        assert_eq!(world.store.excess_audit_events(600).await.unwrap(), 0);
        let left = world.database.rows("SELECT kind || ' ' || CAST(count(*) AS VARCHAR(9)) AS value FROM core_audit_event GROUP BY kind ORDER BY kind");
        assert_eq!(left, ["authz_fail 100", "user_created 500"]);
        assert_eq!(world.store.delete_least_valuable_audit_events(300).await.unwrap(), 300);
        assert_eq!(world.database.count("core_audit_event"), 300);
    }

    async fn equal_events_are_added_to_their_row_and_a_deleted_row_is_replaced(engine: Engine) {
        let world = World::new(engine).await;
        let event = |count| AuditEvent { count, ..event_at(0, AuditKind::AuthzFail, NOBODY, None, Some("CALLER_UNKNOWN")) };
        let rows = world.store.record_counted_audit_events(vec![(event(2), None), (event(1), None)]).await.unwrap();
        let again = world.store.record_counted_audit_events(vec![(event(3), Some(rows[0])), (event(1), Some(rows[0]))]).await.unwrap();
        assert_eq!(again, [rows[0]; 2]);
        let counts = async || -> Vec<i32> {
            let found = world.store.list_audit_events(AuditFilter::default(), None, 10).await.unwrap();
            found.iter().map(|event| event.count).collect()
        };
        assert_eq!(counts().await, [6, 1]);

        world.store.delete_least_valuable_audit_events(1).await.unwrap();
        let replaced = world.store.record_counted_audit_events(vec![(event(4), Some(rows[0]))]).await.unwrap();
        assert_ne!(replaced[0], rows[0]);
        assert_eq!(counts().await, [1, 4]);
    }

    async fn the_least_valuable_events_are_found_by_an_index(engine: Engine) {
        let world = World::new(engine).await;
        let value = "(CASE WHEN reason IS NULL THEN 3 WHEN auth_token IS NOT NULL THEN 2 \
                     WHEN caller = 'nobody' OR caller = 'pages' THEN 0 ELSE 1 END)";
        let query = format!("SELECT id FROM core_audit_event WHERE (reason IS NOT NULL OR kind = 'sensitive_read') ORDER BY {value}, at, id LIMIT 10");
        let plan = world.database.plan(&query);
        assert!(plan.contains("core_audit_event_value_idx") && !plan.contains("Sort") && !plan.contains("TEMP B-TREE"), "{plan}");
    }
}
