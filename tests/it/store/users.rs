//! Queries of `core_user`.

use kairos_identity::{
    database::{Constraint, DatabaseError},
    domain::{AuthToken, PasswordHash, UserId, Username},
    store::UserFilter,
};

use super::{DAY, NOW, RowCounts, World, email, event};

on_both_engines! {
    async fn a_user_is_found_by_email_and_username_in_any_case(engine: Engine) {
        let world = World::new(engine).await;
        let (ada, _) = world.register("ada").await;
        assert_eq!((ada.created_at, ada.updated_at, ada.is_verified), (NOW, NOW, false));

        let by_email = world.store.find_user_by_email(&email("ADA@example.com")).await.unwrap();
        let by_name = world.store.find_user_by_username(&Username::parse(" AdA ").unwrap()).await.unwrap();

        assert_eq!(by_email, Some(ada.clone()));
        assert_eq!(by_name, Some(ada));
    }

    async fn an_unknown_key_finds_no_user(engine: Engine) {
        let world = World::new(engine).await;
        world.register("ada").await;

        assert_eq!(world.store.find_user_by_email(&email("bob@example.com")).await.unwrap(), None);
        assert_eq!(world.store.find_user_by_username(&Username::parse("bob").unwrap()).await.unwrap(), None);
        assert!(world.store.find_credentials(&email("bob@example.com")).await.unwrap().is_none());
        assert_eq!(world.store.mark_verified(UserId::from_i64(99), event(NOW)).await.unwrap(), None);
        assert!(!world.store.delete_user(UserId::from_i64(99), event(NOW)).await.unwrap());
    }

    async fn a_taken_email_is_reported(engine: Engine) {
        let world = World::new(engine).await;
        world.register("ada").await;
        let (mut second, _) = world.registration("bob");
        second.email = email("ada@example.com");

        let refusal = world.store.register(second).await.unwrap_err();

        assert!(matches!(refusal, DatabaseError::NotUnique(Constraint::UserEmail)), "{refusal:?}");
    }

    async fn a_taken_username_is_reported_in_any_case(engine: Engine) {
        let world = World::new(engine).await;
        world.register("ada").await;
        for name in ["ada", "ADA"] {
            let (mut second, _) = world.registration(name);
            second.email = email("bob@example.com");

            let refusal = world.store.register(second).await.unwrap_err();

            assert!(matches!(refusal, DatabaseError::NotUnique(Constraint::UserUsername)), "{refusal:?}");
        }
    }

    async fn users_are_listed_in_pages_in_the_order_of_registration(engine: Engine) {
        let world = World::new(engine).await;
        for name in ["ada", "bob", "cyd"] {
            world.register(name).await;
        }

        let first = world.store.list_users(UserFilter::default(), None, 2).await.unwrap();
        let second = world.store.list_users(UserFilter::default(), Some(first[1].user.id), 2).await.unwrap();

        let names: Vec<_> = first.iter().chain(&second).map(|found| found.user.username.as_str()).collect();
        assert_eq!(names, ["ada", "bob", "cyd"]);
        assert!(world.store.list_users(UserFilter::default(), Some(second[0].user.id), 2).await.unwrap().is_empty());
    }

    async fn mark_verified_is_stored(engine: Engine) {
        let world = World::new(engine).await;
        let (ada, _) = world.register("ada").await;
        let later = NOW.plus(DAY);

        let marked = world.store.mark_verified(ada.id, event(later)).await.unwrap().unwrap();

        assert!(marked.is_verified);
        assert_eq!((marked.created_at, marked.updated_at, marked.auth_token), (NOW, later, ada.auth_token));
        assert_eq!(world.store.find_user_by_auth_token(ada.auth_token).await.unwrap(), Some(marked));
    }

    async fn a_deleted_user_leaves_no_rows(engine: Engine) {
        let world = World::new(engine).await;
        let (mut registration, _) = world.registration("ada");
        registration.request_id = Some(super::request_id(1));
        world.store.register(registration).await.unwrap();
        let ada = world.store.find_user_by_email(&email("ada@example.com")).await.unwrap().unwrap();

        assert!(world.store.delete_user(ada.id, event(NOW)).await.unwrap());

        assert_eq!(world.counts(), RowCounts::NONE);
        let (again, _) = world.register("ada").await;
        assert_ne!(again.id, ada.id);
    }

    async fn a_hash_is_rewritten_only_if_it_is_still_the_checked_one(engine: Engine) {
        let world = World::new(engine).await;
        let (ada, _) = world.register("ada").await;
        let stored = |text: &str| PasswordHash::from_stored(text.to_owned());

        let old = world.store.find_credentials(&ada.email).await.unwrap().unwrap().password;
        assert!(world.store.rewrite_password(ada.id, &old, &stored("stronger")).await.unwrap());
        assert!(!world.store.rewrite_password(ada.id, &old, &stored("late")).await.unwrap());

        let now = world.store.find_credentials(&ada.email).await.unwrap().unwrap();
        assert_eq!((now.password.expose(), now.user), ("stronger", ada));
    }

    async fn no_statement_changes_an_auth_token(engine: Engine) {
        let world = World::new(engine).await;
        let (ada, _) = world.register("ada").await;
        let other = AuthToken::from_random([9; 16]);

        let refusal = world.database.try_execute(&format!("UPDATE core_user SET auth_token = '{other}'")).unwrap_err();

        assert!(refusal.contains("auth_token never changes"), "{refusal}");
        assert!(world.store.find_user_by_auth_token(ada.auth_token).await.unwrap().is_some());
        world.database.execute(&format!("UPDATE core_user SET auth_token = '{}'", ada.auth_token));
    }

    async fn a_value_that_is_too_long_is_refused_by_the_schema(engine: Engine) {
        let world = World::new(engine).await;
        world.register("ada").await;
        for (column, length) in [("username", 151), ("username_key", 601), ("email", 255), ("password", 129)] {
            let long = "x".repeat(length);
            let refused = world.database.try_execute(&format!("UPDATE core_user SET {column} = '{long}'"));
            assert!(refused.is_err(), "{column} of {length} characters");
        }
    }
}

/// On SQLite only: its columns accept any text of the right length as a time.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_row_fails_only_its_own_look_up() {
    let world = World::new(crate::support::engine::Engine::Sqlite).await;
    let (ada, _) = world.register("ada").await;
    let (bob, _) = world.register("bob").await;
    world
        .database
        .execute("UPDATE core_user SET created_at = 'yesterday, more or less...' WHERE username = 'ada'");

    let broken = world.store.find_user_by_auth_token(ada.auth_token).await;

    assert!(matches!(broken, Err(DatabaseError::Internal(_))), "{broken:?}");
    assert_eq!(world.store.find_user_by_auth_token(bob.auth_token).await.unwrap(), Some(bob));
}
