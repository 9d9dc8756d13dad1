//! The mail outbox: due times, leases, and the refusal of updates after a lease has expired.

use std::{collections::BTreeSet, time::Duration};

use kairos_identity::database::DatabaseError;
use tokio::task::JoinSet;

use super::{DAY, NOW, World};

const LEASE: Duration = Duration::from_mins(1);

on_both_engines! {
    async fn a_new_mail_is_due_at_once_with_all_data_for_sending(engine: Engine) {
        let world = World::new(engine).await;
        let (ada, _) = world.register("ada").await;

        let mail = world.store.claim_due_mail(NOW, NOW.plus(LEASE)).await.unwrap().unwrap();

        assert_eq!((mail.recipient, mail.username), (ada.email, None));
        assert_eq!((mail.created_at, mail.expires_at, mail.attempts), (NOW, NOW.plus(DAY), 1));
        assert_eq!(mail.sealed_token.as_ref().unwrap().as_bytes(), b"sealed");
    }

    async fn a_leased_mail_is_not_claimed_again_until_the_lease_expires(engine: Engine) {
        let world = World::new(engine).await;
        world.register("ada").await;
        let first = world.store.claim_due_mail(NOW, NOW.plus(LEASE)).await.unwrap().unwrap();

        assert!(world.store.claim_due_mail(NOW, NOW.plus(LEASE)).await.unwrap().is_none());

        let later = NOW.plus(LEASE);
        let second = world.store.claim_due_mail(later, later.plus(LEASE)).await.unwrap().unwrap();
        assert_eq!((second.message_id.clone(), second.attempts), (first.message_id.clone(), 2));
        assert!(!world.store.mark_mail_sent(&first, later).await.unwrap(), "the lease of the first sender has expired");
        assert!(!world.store.retry_mail(&first, later, "late".into()).await.unwrap());
        assert!(world.store.mark_mail_sent(&second, later).await.unwrap());
    }

    async fn a_retried_mail_is_due_at_its_time_with_its_token(engine: Engine) {
        let world = World::new(engine).await;
        world.register("ada").await;
        let mail = world.store.claim_due_mail(NOW, NOW.plus(LEASE)).await.unwrap().unwrap();
        let again = NOW.plus(LEASE * 5);

        assert!(world.store.retry_mail(&mail, again, "451 greylisted".repeat(100)).await.unwrap());

        assert!(world.store.claim_due_mail(NOW.plus(LEASE * 4), NOW.plus(DAY)).await.unwrap().is_none());
        let retried = world.store.claim_due_mail(again, NOW.plus(DAY)).await.unwrap().unwrap();
        assert_eq!(retried.sealed_token, mail.sealed_token);
    }

    async fn a_finished_mail_has_no_token_and_is_never_claimed_again(engine: Engine) {
        let world = World::new(engine).await;
        world.register("ada").await;
        world.register("bob").await;
        let sent = world.store.claim_due_mail(NOW, NOW.plus(LEASE)).await.unwrap().unwrap();
        let refused = world.store.claim_due_mail(NOW, NOW.plus(LEASE)).await.unwrap().unwrap();

        assert!(world.store.mark_mail_sent(&sent, NOW).await.unwrap());
        assert!(world.store.mark_mail_failed(&refused, NOW, "550 no such user".into()).await.unwrap());

        assert!(world.store.claim_due_mail(NOW.plus(DAY), NOW.plus(DAY * 2)).await.unwrap().is_none());
        let with_token = "SELECT CAST(count(*) AS VARCHAR(9)) AS value FROM core_mail_outbox WHERE sealed_token IS NOT NULL";
        assert_eq!(world.database.rows(with_token), ["0"]);
        let errors = "SELECT last_error AS value FROM core_mail_outbox WHERE gave_up_at IS NOT NULL";
        assert_eq!(world.database.rows(errors), ["550 no such user"]);
    }

    async fn concurrent_senders_never_claim_the_same_mail(engine: Engine) {
        let world = World::new(engine).await;
        for number in 0..16 {
            world.register(&format!("user{number}")).await;
        }
        let mut senders = JoinSet::new();
        for _ in 0..8 {
            let store = world.store.clone();
            senders.spawn(async move {
                let mut claimed = Vec::new();
                // A claim that loses a race returns no mail, as if none were due; a real sender polls again
                // later.
                for _ in 0..32 {
                    claimed.extend(store.claim_due_mail(NOW, NOW.plus(LEASE)).await.unwrap().map(|mail| mail.id));
                }
                claimed
            });
        }

        let claimed: Vec<i64> = senders.join_all().await.into_iter().flatten().collect();

        assert_eq!((claimed.len(), claimed.iter().collect::<BTreeSet<_>>().len()), (16, 16));
    }

    async fn a_row_of_a_later_release_does_not_block_the_others(engine: Engine) {
        let world = World::new(engine).await;
        world.register("ada").await;
        world.database.execute("UPDATE core_mail_outbox SET kind = 'birthday'");
        let (bob, _) = world.register("bob").await;

        let unknown_kind = world.store.claim_due_mail(NOW, NOW.plus(LEASE)).await;
        let next = world.store.claim_due_mail(NOW, NOW.plus(LEASE)).await.unwrap().unwrap();

        assert!(matches!(unknown_kind, Err(DatabaseError::Corrupt { table: "core_mail_outbox", column: "kind" })), "{unknown_kind:?}");
        assert_eq!(next.recipient, bob.email);
    }
}
