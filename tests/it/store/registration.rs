//! Registration, which is one transaction.

use std::time::Duration;

use kairos_identity::{
    database::{Constraint, DatabaseError},
    store::{Registered, Replay},
};
use tokio::task::JoinSet;

use super::{DAY, NOW, RowCounts, World, email, request_id};
use crate::support::{tools::RACING_CALLS, wait::until};

on_both_engines! {
    async fn user_token_mail_and_request_id_are_written_together(engine: Engine) {
        let world = World::new(engine).await;
        let (mut registration, _) = world.registration("ada");
        registration.request_id = Some(request_id(1));

        world.store.register(registration).await.unwrap();

        assert_eq!(world.counts(), RowCounts { users: 1, links: 1, mails: 1, request_ids: 1 });
    }

    async fn a_refused_registration_writes_nothing(engine: Engine) {
        let world = World::new(engine).await;
        world.register("ada").await;
        let (mut second, _) = world.registration("bob");
        second.email = email("ada@example.com");
        second.request_id = Some(request_id(1));

        world.store.register(second).await.unwrap_err();

        assert_eq!(world.counts(), RowCounts { users: 1, links: 1, mails: 1, request_ids: 0 });
    }

    async fn a_repeated_request_id_returns_the_same_user(engine: Engine) {
        let world = World::new(engine).await;
        let mut first = world.registration("ada").0;
        first.request_id = Some(request_id(1));
        let Registered::New(ada) = world.store.register(first).await.unwrap() else { panic!("the request id is new") };

        let mut second = world.registration("ADA").0;
        second.request_id = Some(request_id(1));
        let again = world.store.register(second).await.unwrap();

        assert_eq!(again, Registered::Known(Replay::Same(ada)));
        assert_eq!(world.counts(), RowCounts { users: 1, links: 1, mails: 1, request_ids: 1 });
    }

    async fn a_request_id_with_another_email_or_username_is_detected(engine: Engine) {
        let world = World::new(engine).await;
        let mut first = world.registration("ada").0;
        first.request_id = Some(request_id(1));
        world.store.register(first).await.unwrap();

        let mut other_email = world.registration("ada").0;
        other_email.email = email("bob@example.com");
        let other_name = world.registration("bob").0;
        for mut other in [other_email, other_name] {
            other.request_id = Some(request_id(1));
            let answer = world.store.register(other.clone()).await.unwrap();
            assert_eq!(answer, Registered::Known(Replay::Different));
            let found = world.store.find_registration(request_id(1), NOW.minus(DAY), &other.username, &other.email);
            assert_eq!(found.await.unwrap(), Some(Replay::Different));
        }
        assert_eq!(world.counts(), RowCounts { users: 1, links: 1, mails: 1, request_ids: 1 });
    }

    async fn a_request_id_can_be_reused_after_its_retention_time(engine: Engine) {
        let world = World::new(engine).await;
        let mut first = world.registration("ada").0;
        first.request_id = Some(request_id(1));
        world.store.register(first).await.unwrap();

        let mut later = world.registration("bob").0;
        later.request_id = Some(request_id(1));
        later.request_ids_since = NOW.plus(Duration::from_micros(1));
        let answer = world.store.register(later).await.unwrap();

        assert!(matches!(answer, Registered::New(_)), "{answer:?}");
        assert_eq!(world.counts(), RowCounts { users: 2, links: 2, mails: 2, request_ids: 1 });
    }

    async fn only_one_of_64_concurrent_registrations_of_an_email_succeeds(engine: Engine) {
        let world = World::new(engine).await;
        let mut calls = JoinSet::new();
        for number in 0..RACING_CALLS {
            let (mut registration, _) = world.registration(&format!("user{number}"));
            registration.email = email("ada@example.com");
            let store = world.store.clone();
            calls.spawn(async move { store.register(registration).await });
        }

        let answers = calls.join_all().await;

        let refused = answers.iter().filter(|answer| matches!(answer, Err(DatabaseError::NotUnique(Constraint::UserEmail))));
        assert_eq!(refused.count(), RACING_CALLS - 1);
        assert_eq!(world.counts(), RowCounts { users: 1, links: 1, mails: 1, request_ids: 0 });
    }

    async fn a_cancelled_registration_writes_all_or_nothing(engine: Engine) {
        // Each is cancelled 40 us later than the one before: from before its first statement until after its
        // commit.
        const CANCELLED: u64 = 64;
        let world = World::new(engine).await;
        for number in 0..CANCELLED {
            let (mut registration, _) = world.registration(&format!("user{number}"));
            registration.request_id = Some(request_id(u128::from(number)));
            let store = world.store.clone();
            let call = tokio::spawn(async move { store.register(registration).await });
            tokio::time::sleep(Duration::from_micros(number * 40)).await;
            call.abort();
        }

        // A transaction that has begun runs to its end, on PostgreSQL in a task of its own: wait for the last
        // one.
        world.register("last").await;
        let agree = async || {
            let RowCounts { users, links, mails, request_ids } = world.counts();
            // The user `last` registered without a request id.
            ([links, mails, request_ids + 1] == [users; 3]).then_some(users)
        };
        let users = until("each registration has all of its rows or none", Duration::from_secs(20), agree).await;
        assert!(users > 1, "at least one of the cancelled registrations was committed");
    }
}
