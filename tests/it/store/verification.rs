//! Mailed tokens.

use kairos_identity::{
    domain::MailTokenPurpose,
    store::{Delivery, LinkOwner, Verification},
};
use tokio::task::JoinSet;

use super::{DAY, NOW, World, email, event};
use crate::support::tools::RACING_CALLS;

on_both_engines! {
    async fn a_token_verifies_its_user_once(engine: Engine) {
        let world = World::new(engine).await;
        let (ada, token) = world.register("ada").await;
        let (bob, _) = world.register("bob").await;

        let first = world.store.verify_email(token.digest(), event(NOW)).await.unwrap();
        let second = world.store.verify_email(token.digest(), event(NOW)).await.unwrap();

        let Verification::Verified(verified) = first else { panic!("{first:?}") };
        assert!(verified.is_verified && verified.auth_token == ada.auth_token);
        assert_eq!(second, Verification::AlreadyVerified);
        assert_eq!(world.store.find_user_by_email(&bob.email).await.unwrap(), Some(bob));
    }

    async fn a_token_works_until_it_expires(engine: Engine) {
        let world = World::new(engine).await;
        let (_, token) = world.register("ada").await;

        let late = world.store.verify_email(token.digest(), event(NOW.plus(DAY))).await.unwrap();
        let in_time = world.store.verify_email(token.digest(), event(NOW.plus(DAY).minus(std::time::Duration::from_micros(1)))).await;

        assert_eq!(late, Verification::Invalid);
        assert!(matches!(in_time.unwrap(), Verification::Verified(_)));
    }

    async fn an_unknown_token_is_invalid(engine: Engine) {
        let world = World::new(engine).await;
        world.register("ada").await;
        let (_, stranger) = world.mail();

        assert_eq!(world.store.verify_email(stranger.digest(), event(NOW)).await.unwrap(), Verification::Invalid);
    }

    async fn a_token_for_another_purpose_is_invalid(engine: Engine) {
        let world = World::new(engine).await;
        let (_, token) = world.register("ada").await;
        world.database.execute("UPDATE core_mail_token SET purpose = 'reset_password'");

        assert_eq!(world.store.verify_email(token.digest(), event(NOW)).await.unwrap(), Verification::Invalid);
    }

    async fn a_token_verifies_only_the_address_it_was_mailed_to(engine: Engine) {
        let world = World::new(engine).await;
        let (_, token) = world.register("ada").await;
        world.database.execute("UPDATE core_user SET email = 'other@example.com'");

        assert_eq!(world.store.verify_email(token.digest(), event(NOW)).await.unwrap(), Verification::Invalid);
        let other = world.store.find_user_by_email(&email("other@example.com")).await.unwrap().unwrap();
        assert!(!other.is_verified);
    }

    async fn a_used_link_does_not_verify_again(engine: Engine) {
        let world = World::new(engine).await;
        let (ada, token) = world.register("ada").await;
        world.store.verify_email(token.digest(), event(NOW)).await.unwrap();
        world.database.execute("UPDATE core_user SET is_verified = false");

        assert_eq!(world.store.verify_email(token.digest(), event(NOW)).await.unwrap(), Verification::Invalid);
        assert!(!world.store.find_user_by_email(&ada.email).await.unwrap().unwrap().is_verified);
    }

    async fn a_link_returns_already_verified_after_an_operator_verified_the_user(engine: Engine) {
        let world = World::new(engine).await;
        let (ada, token) = world.register("ada").await;
        world.store.mark_verified(ada.id, event(NOW)).await.unwrap();

        assert_eq!(world.store.verify_email(token.digest(), event(NOW)).await.unwrap(), Verification::AlreadyVerified);
    }

    async fn a_new_link_voids_older_links_and_their_unsent_mails(engine: Engine) {
        let world = World::new(engine).await;
        let (ada, old) = world.register("ada").await;
        let (mail, new) = world.mail();

        assert!(world.store.replace_link(LinkOwner { email: &ada.email, id: None }, MailTokenPurpose::VerifyEmail, mail.clone(), event(NOW)).await.unwrap().is_some());

        assert_eq!(world.store.verify_email(old.digest(), event(NOW)).await.unwrap(), Verification::Invalid);
        let sent = world.store.claim_due_mail(NOW, NOW.plus(DAY)).await.unwrap().unwrap();
        let Delivery::Service { message_id, .. } = mail.delivery else { panic!("the service does not send this mail") };
        assert_eq!(sent.message_id, message_id);
        assert!(world.store.claim_due_mail(NOW, NOW.plus(DAY)).await.unwrap().is_none());
        assert!(matches!(world.store.verify_email(new.digest(), event(NOW)).await.unwrap(), Verification::Verified(_)));
    }

    async fn only_an_unverified_user_gets_a_new_link(engine: Engine) {
        let world = World::new(engine).await;
        let (ada, token) = world.register("ada").await;
        world.store.verify_email(token.digest(), event(NOW)).await.unwrap();
        let before = world.counts();

        for address in [ada.email, email("stranger@example.com")] {
            assert!(world.store.replace_link(LinkOwner { email: &address, id: None }, MailTokenPurpose::VerifyEmail, world.mail().0, event(NOW)).await.unwrap().is_none());
        }
        assert_eq!(world.counts(), before);
    }

    async fn only_one_of_64_concurrent_uses_verifies(engine: Engine) {
        let world = World::new(engine).await;
        let (_, token) = world.register("ada").await;
        let mut calls = JoinSet::new();
        for _ in 0..RACING_CALLS {
            let (store, digest) = (world.store.clone(), token.digest());
            calls.spawn(async move { store.verify_email(digest, event(NOW)).await.unwrap() });
        }

        let answers = calls.join_all().await;

        let verified = answers.iter().filter(|answer| matches!(answer, Verification::Verified(_))).count();
        let already = answers.iter().filter(|answer| matches!(answer, Verification::AlreadyVerified)).count();
        assert_eq!((verified, already), (1, RACING_CALLS - 1));
    }

    async fn only_one_of_16_concurrent_new_links_stays_valid(engine: Engine) {
        let world = World::new(engine).await;
        let (ada, _) = world.register("ada").await;
        let mut calls = JoinSet::new();
        for _ in 0..16 {
            let (store, address, (mail, _)) = (world.store.clone(), ada.email.clone(), world.mail());
            calls.spawn(async move { store.replace_link(LinkOwner { email: &address, id: None }, MailTokenPurpose::VerifyEmail, mail, event(NOW)).await.unwrap() });
        }

        assert!(calls.join_all().await.into_iter().all(|replaced| replaced.is_some()));

        let live = "SELECT CAST(count(*) AS VARCHAR(9)) AS value FROM core_mail_token WHERE voided_at IS NULL";
        assert_eq!(world.database.rows(live), ["1"]);
        let waiting = "SELECT CAST(count(*) AS VARCHAR(9)) AS value FROM core_mail_outbox WHERE next_attempt_at IS NOT NULL";
        assert_eq!(world.database.rows(waiting), ["1"]);
    }
}
