//! Purging rows after their retention times.

use std::time::Duration;

use kairos_identity::{
    domain::{MailKind, MailTokenPurpose},
    store::{Admission, Attempts, AuditFilter, LinkOwner, Purged, RetentionPeriods, Subject},
};

use super::{DAY, NOW, RowCounts, World, email, event, request_id};

const RETENTION: RetentionPeriods = RetentionPeriods {
    expired_tokens: DAY,
    finished_mails: DAY,
    request_ids: DAY,
    unverified_users: DAY.saturating_mul(4),
    sessions: DAY.saturating_mul(2),
    idle_sessions: DAY,
    audit_events: DAY.saturating_mul(3),
};
const MICROSECOND: Duration = Duration::from_micros(1);

on_both_engines! {
    async fn each_row_of_a_registration_is_purged_after_its_retention_time_and_not_before(engine: Engine) {
        let world = World::new(engine).await;
        let (mut registration, _) = world.registration("ada");
        registration.request_id = Some(request_id(1));
        world.store.register(registration).await.unwrap();
        let mail = world.store.claim_due_mail(NOW, NOW.plus(DAY)).await.unwrap().unwrap();
        world.store.mark_mail_sent(&mail, NOW).await.unwrap();

        let purge = async |at| world.store.purge(RETENTION, event(at)).await.unwrap();
        assert_eq!(purge(NOW.plus(DAY)).await, Purged { rows: 0, users: 0, has_more: false });
        let mail_and_request_id = purge(NOW.plus(DAY + MICROSECOND)).await;
        assert_eq!(mail_and_request_id, Purged { rows: 2, users: 0, has_more: false });
        assert_eq!(world.counts(), RowCounts { users: 1, links: 1, mails: 0, request_ids: 0 });
        let link = purge(NOW.plus(DAY * 2 + MICROSECOND)).await;
        assert_eq!(link, Purged { rows: 1, users: 0, has_more: false });
        assert_eq!(world.counts(), RowCounts { users: 1, links: 0, mails: 0, request_ids: 0 });
        assert_eq!(purge(NOW.plus(DAY * 3)).await, Purged { rows: 0, users: 0, has_more: false });
        let audit_event = purge(NOW.plus(DAY * 3 + MICROSECOND)).await;
        assert_eq!(audit_event, Purged { rows: 1, users: 0, has_more: false });
        assert_eq!(purge(NOW.plus(DAY * 4)).await, Purged { rows: 0, users: 0, has_more: false });
        let user = purge(NOW.plus(DAY * 4 + MICROSECOND)).await;
        assert_eq!(user, Purged { rows: 1, users: 1, has_more: false });
        assert_eq!(world.counts(), RowCounts::NONE);
    }

    async fn a_user_who_verifies_or_requests_a_new_link_is_not_purged(engine: Engine) {
        let world = World::new(engine).await;
        let (ada, token) = world.register("ada").await;
        let (bob, _) = world.register("bob").await;
        let (eve, _) = world.register("eve").await;
        world.store.verify_email(token.digest(), event(NOW)).await.unwrap();
        let (mail, _) = world.mail_to(MailKind::VerifyEmail, &bob.email);
        let later = NOW.plus(DAY);
        world.store.replace_link(LinkOwner { email: &bob.email, id: None }, MailTokenPurpose::VerifyEmail, mail, event(later)).await.unwrap();

        let deletion = event(NOW.plus(DAY * 4 + MICROSECOND));
        let recorded_at = AuditFilter { since: Some(deletion.at), ..AuditFilter::default() };
        let purged = world.store.purge(RETENTION, deletion).await.unwrap();
        let events = world.store.list_audit_events(recorded_at, None, 10).await.unwrap();
        assert_eq!(purged.users, 1);
        assert_eq!(events.iter().map(|event| event.user).collect::<Vec<_>>(), [Some(eve.auth_token)]);
        let about_eve = AuditFilter { user: Some(eve.auth_token), ..AuditFilter::default() };
        assert_eq!(world.store.list_audit_events(about_eve, None, 10).await.unwrap().len(), 1);

        let found = async |name: &str| world.store.find_user_by_email(&email(&format!("{name}@example.com"))).await.unwrap();
        assert_eq!((found("ada").await.map(|user| user.id), found("bob").await.map(|user| user.id)), (Some(ada.id), Some(bob.id)));
        assert!(found("eve").await.is_none());
    }

    async fn expired_attempts_are_purged(engine: Engine) {
        let world = World::new(engine).await;
        let attempts = Attempts { count: 1, refused_until: NOW, expires_at: NOW.plus(DAY) };
        let subject = Subject::all_passwords();
        let counted = world.store.count_attempt(vec![subject], NOW, move |known| {
            assert_eq!(known, [None]);
            Ok(vec![attempts])
        });
        assert_eq!(counted.await.unwrap(), Admission::Admitted);

        let purge = async |at| world.store.purge(RETENTION, event(at)).await.unwrap().rows;
        assert_eq!((purge(NOW.plus(DAY).minus(MICROSECOND)).await, purge(NOW.plus(DAY)).await), (0, 1));
    }

    async fn a_large_purge_runs_in_batches_oldest_first(engine: Engine) {
        let world = World::new(engine).await;
        for thousand in [2, 0, 1] {
            let events = (thousand * 1_000..(thousand + 1) * 1_000).map(|micros| event(NOW.plus(Duration::from_micros(micros))));
            world.store.record_audit_events(events.collect()).await.unwrap();
        }

        let end = NOW.plus(RETENTION.audit_events + Duration::from_micros(2_500));
        for (rows, has_more) in [(1_000, true), (1_000, true), (500, false), (0, false)] {
            assert_eq!(world.store.purge(RETENTION, event(end)).await.unwrap(), Purged { rows, users: 0, has_more });
        }
        let rest = world.store.list_audit_events(AuditFilter::default(), None, 1_000).await.unwrap();
        assert_eq!((rest.len(), rest[0].at), (500, NOW.plus(Duration::from_micros(2_500))));
    }

    async fn an_unsent_mail_is_kept_whatever_its_age(engine: Engine) {
        let world = World::new(engine).await;
        let (ada, _) = world.register("ada").await;
        world.store.mark_verified(ada.id, event(NOW)).await.unwrap();

        world.store.purge(RETENTION, event(NOW.plus(DAY * 1_000))).await.unwrap();

        assert!(world.store.claim_due_mail(NOW.plus(DAY * 1_000), NOW.plus(DAY * 1_001)).await.unwrap().is_some());
    }
}
