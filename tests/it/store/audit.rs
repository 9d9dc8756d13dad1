//! Audit events: what is stored, filters and pages, and that an event is recorded only with its action.

use std::time::Duration;

use kairos_identity::{
    domain::{
        AuditEvent, AuditKind, AuthToken, ClientAddress, ClientAgent, MailTokenPurpose, Origin, Timestamp,
    },
    store::{AuditFilter, LinkOwner, RecordedEvent},
};
use uuid::Uuid;

use super::{NOW, World, event};

async fn list(world: &World, filter: AuditFilter) -> Vec<RecordedEvent> {
    world.store.list_audit_events(filter, None, 100).await.unwrap()
}

fn at(second: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(second))
}

on_both_engines! {
    async fn an_event_is_read_back_with_its_resource_cut_at_256_characters(engine: Engine) {
        let world = World::new(engine).await;
        let request_id = Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef);
        let user = AuthToken::parse("3fbf2702-352c-4d48-a5e5-56a4d16d9f56").unwrap();
        let origin = Origin {
            peer: Some("2001:db8::1".parse().unwrap()),
            client: Some(ClientAddress::parse("192.0.2.7").unwrap()),
            agent: ClientAgent::from_bytes_lossy("Kräuter/1.0 \u{1f37d}".as_bytes()),
            request_id: Some(request_id),
            ..Origin::local("bff")
        };
        let mut event = AuditEvent::new(NOW, AuditKind::AuthnLoginFail, origin).with_user(Some(user)).with_reason("WHY");
        event.count = 7;
        event.resource = Some("é".repeat(300));
        world.store.record_audit_events(vec![event]).await.unwrap();

        let [read] = list(&world, AuditFilter::default()).await.try_into().unwrap();

        let expected = RecordedEvent {
            id: read.id,
            at: NOW,
            kind: "authn_login_fail".into(),
            reason: Some("WHY".into()),
            user: Some(user),
            resource: Some("é".repeat(256)),
            caller: "bff".into(),
            peer: Some("2001:db8::1".into()),
            client: Some("192.0.2.7".into()),
            agent: Some("Kräuter/1.0 \u{1f37d}".into()),
            request_id: Some(request_id),
            count: 7,
        };
        assert_eq!(read, expected);
    }

    async fn a_filter_returns_matching_events_in_pages(engine: Engine) {
        let world = World::new(engine).await;
        let user = AuthToken::from_random([7; 16]);
        let event_at = |second, kind, caller, user| AuditEvent::new(at(second), kind, Origin::local(caller)).with_user(user);
        let (login, denied) = (AuditKind::AuthnLoginSuccess, AuditKind::AuthzFail);
        let events = vec![
            event_at(0, login, "bff", Some(user)),
            event_at(1, denied, "bff", None),
            event_at(2, login, "agent", Some(user)),
            event_at(3, AuditKind::UserDeleted, "command-line", Some(user)),
        ];
        world.store.record_audit_events(events).await.unwrap();
        let seconds = async |filter| -> Vec<u64> {
            list(&world, filter).await.iter().map(|event| event.at.since(NOW).as_secs()).collect()
        };
        let all = AuditFilter::default;

        assert_eq!(seconds(all()).await, [0, 1, 2, 3]);
        assert_eq!(seconds(AuditFilter { user: Some(user), ..all() }).await, [0, 2, 3]);
        assert_eq!(seconds(AuditFilter { caller: Some("bff".into()), ..all() }).await, [0, 1]);
        assert_eq!(seconds(AuditFilter { kinds: vec![denied, AuditKind::UserDeleted], ..all() }).await, [1, 3]);
        assert_eq!(seconds(AuditFilter { since: Some(at(1)), until: Some(at(3)), ..all() }).await, [1, 2]);
        assert_eq!(seconds(AuditFilter { user: Some(user), caller: Some("bff".into()), kinds: vec![login], ..all() }).await, [0]);
        let first = world.store.list_audit_events(all(), None, 3).await.unwrap();
        let rest = world.store.list_audit_events(all(), Some(first[2].position()), 3).await.unwrap();
        assert_eq!((first.len(), rest.len(), rest[0].at), (3, 1, at(3)));
    }

    async fn an_action_without_effect_records_no_event(engine: Engine) {
        let world = World::new(engine).await;
        let (ada, token) = world.register("ada").await;
        let (second, _) = world.registration("ada");
        world.store.register(second).await.unwrap_err();
        assert_eq!(world.database.count("core_audit_event"), 1);

        world.store.verify_email(token.digest(), event(NOW)).await.unwrap();
        world.store.verify_email(token.digest(), event(NOW)).await.unwrap();
        assert!(world.store.replace_link(LinkOwner { email: &ada.email, id: None }, MailTokenPurpose::VerifyEmail, world.mail().0, event(NOW)).await.unwrap().is_none());
        assert!(!world.store.clear_password_attempts(&ada, event(NOW)).await.unwrap());
        assert!(world.store.delete_user(ada.id, event(NOW)).await.unwrap());
        assert!(!world.store.delete_user(ada.id, event(NOW)).await.unwrap());

        // Three events: the registration, the verification and the deletion. They outlive their user.
        assert_eq!(world.database.count("core_audit_event"), 3);
        let about_ada = AuditFilter { user: Some(ada.auth_token), ..AuditFilter::default() };
        assert_eq!(list(&world, about_ada).await.len(), 1, "the store adds the user that a link verified to the event");
    }
}
