//! Coalesced look-ups.

use kairos_identity::{
    domain::{AuthToken, User},
    store::{LookupOptions, StoreError},
};
use tokio::task::JoinSet;

use super::{World, open_with};

async fn users(world: &World, count: usize) -> Vec<User> {
    let mut users = Vec::new();
    for number in 0..count {
        users.push(world.register(&format!("user{number}")).await.0);
    }
    users
}

on_both_engines! {
    async fn a_token_gives_its_user_or_nobody(engine: Engine) {
        let world = World::new(engine).await;
        let (ada, _) = world.register("ada").await;

        assert_eq!(world.store.find_user_by_auth_token(ada.auth_token).await.unwrap(), Some(ada));
        assert_eq!(world.store.find_user_by_auth_token(AuthToken::from_random([3; 16])).await.unwrap(), None);
    }

    async fn each_of_many_callers_gets_their_own_user(engine: Engine) {
        let world = World::new(engine).await;
        let users = users(&world, 20).await;
        let mut calls = JoinSet::new();
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

    async fn many_tokens_give_their_users_in_their_order(engine: Engine) {
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
        world.store.verify_email(token.digest(), super::NOW).await.unwrap();
        assert!(world.store.find_user_by_auth_token(ada.auth_token).await.unwrap().unwrap().is_verified);

        world.store.delete_user(ada.id).await.unwrap();
        assert_eq!(world.store.find_user_by_auth_token(ada.auth_token).await.unwrap(), None);
    }

    async fn callers_who_go_away_hurt_nobody(engine: Engine) {
        let world = World::new(engine).await;
        let (ada, _) = world.register("ada").await;
        for _ in 0..200 {
            let store = world.store.clone();
            tokio::spawn(async move { store.find_user_by_auth_token(ada.auth_token).await }).abort();
        }

        assert_eq!(world.store.find_user_by_auth_token(ada.auth_token).await.unwrap(), Some(ada));
    }

    async fn who_finds_the_queue_full_is_turned_away_and_the_others_are_answered(engine: Engine) {
        let world = World::new(engine).await;
        let (ada, _) = world.register("ada").await;
        let options = LookupOptions { batch_tokens_max: 4, lanes: 1, waiting_max: 4 };
        let store = open_with(world.database.url(), options);
        let mut calls = JoinSet::new();
        for _ in 0..500 {
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
                Err(error) => assert!(matches!(error, StoreError::Overloaded), "{error:?}"),
            }
        }
        assert!((4..500).contains(&answered), "{answered} of 500 were answered");
    }
}
