//! Look-ups, which the store coalesces into batches.

use std::{future::poll_fn, pin::pin, time::Duration};

use futures_util::future::try_join_all;

use kairos_identity::{
    database::DatabaseError,
    domain::{AuthToken, User},
    entropy::Entropy,
    store::LookupOptions,
};
use tokio::{runtime::Handle, task::JoinSet};

use super::{World, open_with};
use crate::support::{
    engine::{Engine, TestDatabase},
    wait::until,
};

async fn users(world: &World, count: usize) -> Vec<User> {
    let mut users = Vec::new();
    for number in 0..count {
        users.push(world.register(&format!("user{number}")).await.0);
    }
    users
}

/// Makes many look-ups and cancels three in ten of them, some before and some during their query.
async fn look_up_with_cancellations(world: &World, users: &[User]) {
    let mut calls = JoinSet::new();
    // So many that the cancellations meet look-ups in every stage: waiting, in a batch and answered.
    for number in 0..10_000 {
        let (store, user) = (world.store.clone(), users[number % users.len()].clone());
        calls.spawn(async move {
            let call = store.find_user_by_auth_token(user.auth_token);
            if number % 10 < 3 {
                let moment = Duration::from_micros(number as u64 % 7 * 50);
                tokio::time::timeout(moment, call).await.ok();
            } else {
                assert_eq!(call.await.unwrap(), Some(user));
            }
        });
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
}

on_both_engines! {
    async fn a_token_resolves_to_its_user_or_none(engine: Engine) {
        let world = World::new(engine).await;
        let (ada, _) = world.register("ada").await;

        assert_eq!(world.store.find_user_by_auth_token(ada.auth_token).await.unwrap(), Some(ada));
        assert_eq!(world.store.find_user_by_auth_token(AuthToken::from_random([3; 16])).await.unwrap(), None);
    }

    async fn each_of_2000_concurrent_look_ups_gets_its_own_user(engine: Engine) {
        let world = World::new(engine).await;
        let users = users(&world, 20).await;
        let mut calls = JoinSet::new();
        // Several times as many as fit into one batch (256 tokens).
        for number in 0..2_000 {
            let (store, user) = (world.store.clone(), users[number % 20].clone());
            let stranger = number % 7 == 0;
            calls.spawn(async move {
                let token = if stranger { AuthToken::from_random([5; 16]) } else { user.auth_token };
                let found = store.find_user_by_auth_token(token).await.unwrap();
                assert_eq!(found, (!stranger).then_some(user));
            });
        }
        calls.join_all().await;
    }

    async fn users_are_returned_in_the_order_of_their_tokens(engine: Engine) {
        let world = World::new(engine).await;
        let users = users(&world, 20).await;
        let strangers = (0..980_u32).map(|number| AuthToken::from_uuid(uuid::Uuid::from_u128(number.into())));
        let mut tokens: Vec<_> = strangers.collect();
        for (number, user) in users.iter().enumerate() {
            tokens.insert(number * 47, user.auth_token);
        }
        tokens.push(users[3].auth_token);

        let found = world.store.find_users_by_auth_tokens(&tokens).await.unwrap();

        let expected: Vec<_> = users.iter().chain([&users[3]]).cloned().collect();
        assert_eq!(found, expected);
        assert!(world.store.find_users_by_auth_tokens(&[]).await.unwrap().is_empty());
    }

    async fn a_change_is_seen_by_the_next_look_up(engine: Engine) {
        let world = World::new(engine).await;
        let (ada, token) = world.register("ada").await;
        world.store.verify_email(token.digest(), super::event(super::NOW)).await.unwrap();
        assert!(world.store.find_user_by_auth_token(ada.auth_token).await.unwrap().unwrap().is_verified);

        world.store.delete_user(ada.id, super::event(super::NOW)).await.unwrap();
        assert_eq!(world.store.find_user_by_auth_token(ada.auth_token).await.unwrap(), None);
    }

    async fn cancelled_look_ups_do_not_affect_others(engine: Engine) {
        let world = World::new(engine).await;
        let (ada, _) = world.register("ada").await;
        // So many that some are cancelled in a batch with others.
        for _ in 0..200 {
            let store = world.store.clone();
            tokio::spawn(async move { store.find_user_by_auth_token(ada.auth_token).await }).abort();
        }

        assert_eq!(world.store.find_user_by_auth_token(ada.auth_token).await.unwrap(), Some(ada));
    }

    async fn cancelled_look_ups_leave_no_task_behind(engine: Engine) {
        let world = World::new(engine).await;
        let users = users(&world, 20).await;
        // The first run opens the connections, which have tasks of their own.
        look_up_with_cancellations(&world, &users).await;
        let tasks = Handle::current().metrics().num_alive_tasks();

        look_up_with_cancellations(&world, &users).await;

        let as_before = async || (Handle::current().metrics().num_alive_tasks() <= tasks).then_some(());
        until("the number of tasks returns to that before", Duration::from_secs(10), as_before).await;
        let ada = &users[0];
        assert_eq!(world.store.find_user_by_auth_token(ada.auth_token).await.unwrap().as_ref(), Some(ada));
    }

    async fn random_arrivals_cancellations_and_failures_change_no_answer(engine: Engine) {
        let world = World::new(engine).await;
        let users = users(&world, 30).await;
        let store = open_with(
            world.database.url(),
            LookupOptions { batch_tokens_max: 32, lanes: 2, waiting_max: 100_000 },
        );
        let seed = u64::from_le_bytes(Entropy::system().bytes());
        eprintln!("seed {seed}");
        let entropy = Entropy::seeded(seed);
        let below = |bound: usize| usize::try_from(u64::from_le_bytes(entropy.bytes()) % bound as u64).unwrap();
        for round in 0..30 {
            let is_broken = round % 3 == 2;
            let mut calls = JoinSet::new();
            for _ in 0..=below(200) {
                let requested: Vec<Option<User>> = (0..if below(4) == 0 { below(100) } else { 1 })
                    .map(|_| users.get(below(users.len() + 5)).cloned())
                    .collect();
                let unknown = AuthToken::from_random([1; 16]);
                let tokens: Vec<_> =
                    requested.iter().map(|user| user.as_ref().map_or(unknown, |user| user.auth_token)).collect();
                let (store, yields, is_cancelled) = (store.clone(), below(20), below(10) < 3);
                calls.spawn(async move {
                    for _ in 0..yields { tokio::task::yield_now().await; }
                    let limit = if is_cancelled { Duration::ZERO } else { Duration::from_mins(1) };
                    let expected: Vec<User> = requested.into_iter().flatten().collect();
                    let call = async {
                        match tokens.as_slice() {
                            [token] => Ok(store.find_user_by_auth_token(*token).await?.into_iter().collect()),
                            tokens => store.find_users_by_auth_tokens(tokens).await,
                        }
                    };
                    match tokio::time::timeout(limit, call).await {
                        Ok(Ok(found)) => assert_eq!(found, expected),
                        Ok(Err(error)) => assert!(is_broken, "{error:?}"),
                        Err(_) => assert!(is_cancelled),
                    }
                });
            }
            if is_broken {
                world.database.execute("ALTER TABLE core_user RENAME TO core_user_away");
                tokio::time::sleep(Duration::from_millis(2)).await;
                world.database.execute("ALTER TABLE core_user_away RENAME TO core_user");
            }
            while let Some(call) = calls.join_next().await {
                call.unwrap();
            }
        }
    }

    async fn a_full_queue_rejects_new_look_ups_and_answers_the_queued_ones(engine: Engine) {
        const QUEUE_LENGTH: usize = 4;
        // So many that the queue is full for most of them, however fast it is emptied.
        const CALLS: usize = 500;
        let world = World::new(engine).await;
        let (ada, _) = world.register("ada").await;
        let options = LookupOptions { batch_tokens_max: 4, lanes: 1, waiting_max: QUEUE_LENGTH };
        let store = open_with(world.database.url(), options);
        let mut calls = JoinSet::new();
        for _ in 0..CALLS {
            let store = store.clone();
            calls.spawn(async move { store.find_user_by_auth_token(ada.auth_token).await });
        }

        let mut answered = 0;
        for answer in calls.join_all().await {
            match answer {
                Ok(user) => {
                    assert_eq!(user.as_ref(), Some(&ada));
                    answered += 1;
                }
                Err(error) => assert!(matches!(error, DatabaseError::Overloaded), "{error:?}"),
            }
        }
        assert!((QUEUE_LENGTH..CALLS).contains(&answered), "{answered} of {CALLS} were answered");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_replaced_within_the_call() {
    let world = World::new(Engine::Postgres).await;
    let (ada, _) = world.register("ada").await;
    for _ in 0..5 {
        let mut callers = JoinSet::new();
        for _ in 0..4 {
            let (store, ada) = (world.store.clone(), ada.clone());
            callers.spawn(async move {
                // So many that they are still running when the connections are closed.
                for _ in 0..500 {
                    let found = store.find_user_by_auth_token(ada.auth_token).await.unwrap();
                    assert_eq!(found.as_ref(), Some(&ada));
                }
            });
        }
        world.database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
        callers.join_all().await;
    }
}

#[tokio::test]
async fn other_tasks_run_between_the_batches_of_a_long_queue() {
    const BATCHES: usize = 100;
    let database = TestDatabase::new(Engine::Sqlite);
    let options = LookupOptions { batch_tokens_max: 1, lanes: 1, waiting_max: BATCHES };
    let store = open_with(database.url(), options);
    store.migrate().await.unwrap();
    let token = AuthToken::from_random([3; 16]);
    let look_ups = (0..BATCHES).map(|_| store.find_user_by_auth_token(token));
    let mut look_ups = pin!(try_join_all(look_ups));

    // Each turn of this task is one between two of the lane, which shares its thread.
    let mut turns = 0;
    let found = poll_fn(|context| {
        turns += 1;
        let found = look_ups.as_mut().poll(context);
        if found.is_pending() {
            context.waker().wake_by_ref();
        }
        found
    });
    assert_eq!(found.await.unwrap(), vec![None; BATCHES]);
    assert!(turns >= BATCHES, "{turns} turns");
}
