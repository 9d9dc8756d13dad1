//! Forgetting.

use std::time::Duration;

use kairos_identity::store::{Attempts, Counted, Kept, Purged, Subject};

use super::{DAY, NOW, World, request_id};

const KEPT: Kept = Kept { expired_tokens: DAY, finished_mails: DAY, request_ids: DAY };
const MOMENT: Duration = Duration::from_micros(1);

on_both_engines! {
    async fn each_kind_of_row_goes_when_its_time_is_over_and_not_before(engine: Engine) {
        let world = World::new(engine).await;
        let (mut registration, _) = world.registration("ada");
        registration.request_id = Some(request_id(1));
        world.store.register(registration).await.unwrap();
        let mail = world.store.claim_due_mail(NOW, NOW.plus(DAY)).await.unwrap().unwrap();
        world.store.mark_mail_sent(&mail, NOW).await.unwrap();

        let purge = async |at| world.store.purge(KEPT, at).await.unwrap();
        assert_eq!(purge(NOW.plus(DAY)).await, Purged { rows: 0, is_more: false });
        assert_eq!(purge(NOW.plus(DAY + MOMENT)).await, Purged { rows: 2, is_more: false });
        assert_eq!(world.counts(), [1, 1, 0, 0]);
        assert_eq!(purge(NOW.plus(DAY * 2 + MOMENT)).await, Purged { rows: 1, is_more: false });
        assert_eq!(world.counts(), [1, 0, 0, 0]);
    }

    async fn attempts_go_when_they_count_no_more(engine: Engine) {
        let world = World::new(engine).await;
        let attempts = Attempts { count: 1, refused_until: NOW, expires_at: NOW.plus(DAY) };
        let subject = Subject::any_password();
        let counted = world.store.count_attempt(vec![subject], NOW, move |known| {
            assert_eq!(known, [None]);
            Ok(vec![attempts])
        });
        assert_eq!(counted.await.unwrap(), Counted::Admitted);

        let purge = async |at| world.store.purge(KEPT, at).await.unwrap().rows;
        assert_eq!((purge(NOW.plus(DAY).minus(MOMENT)).await, purge(NOW.plus(DAY)).await), (0, 1));
    }

    async fn a_mail_that_waits_is_kept_whatever_its_age(engine: Engine) {
        let world = World::new(engine).await;
        world.register("ada").await;

        world.store.purge(KEPT, NOW.plus(DAY * 1_000)).await.unwrap();

        assert!(world.store.claim_due_mail(NOW.plus(DAY * 1_000), NOW.plus(DAY * 1_001)).await.unwrap().is_some());
    }
}
