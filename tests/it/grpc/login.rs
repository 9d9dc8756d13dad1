//! `Login`.

use std::time::Duration;

use kairos_identity::proto::LoginRequest;
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{
    engine::TestDatabase,
    errors::{assert_refused, violations},
    people::{PASSWORD, login},
    server::TestServer,
    wait::until,
};

on_both_engines! {
    async fn a_verified_user_logs_in_with_the_right_password(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await;

        let request = LoginRequest { email: "ADA@Example.com".into(), password: PASSWORD.into() };
        let answer = server.client().await.login(request).await.unwrap().into_inner();

        assert_eq!(answer.user, Some(ada));
    }

    async fn an_unknown_email_and_a_wrong_password_look_the_same(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        server.unverified_user("bob").await;
        let mut client = server.client().await;

        let mut refusals = Vec::new();
        for request in [login("unknown", PASSWORD), login("ada", "wrong"), login("bob", "wrong")] {
            let refusal = client.login(request).await.unwrap_err();
            assert_refused(&refusal, Code::Unauthenticated, "INVALID_CREDENTIALS");
            let mut metadata = refusal.metadata().clone().into_headers();
            for changing in ["date", "kairos-request-id"] {
                metadata.remove(changing);
            }
            refusals.push((refusal.message().to_owned(), refusal.details().to_vec(), metadata));
        }

        assert!(refusals[0] == refusals[1] && refusals[1] == refusals[2], "{refusals:?}");
    }

    async fn an_unverified_email_is_reported_only_after_the_right_password(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.unverified_user("ada").await;
        let mut client = server.client().await;

        let right = client.login(login("ada", PASSWORD)).await.unwrap_err();
        let wrong = client.login(login("ada", "wrong")).await.unwrap_err();

        assert_refused(&right, Code::PermissionDenied, "EMAIL_NOT_VERIFIED");
        assert_refused(&wrong, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }

    async fn an_auth_token_is_not_accepted_as_a_password(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await;
        let refusal = server.client().await.login(login("ada", &ada.auth_token)).await.unwrap_err();
        assert_refused(&refusal, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }

    async fn missing_fields_are_named(engine: Engine) {
        let server = TestServer::start(engine).await;
        let refusal = server.client().await.login(LoginRequest::default()).await.unwrap_err();
        assert_refused(&refusal, Code::InvalidArgument, "INVALID_FIELDS");
        let fields: Vec<_> = violations(&refusal).into_iter().map(|(field, _)| field).collect();
        assert_eq!(fields, ["email", "password"]);
    }

    async fn every_django_hash_format_logs_in_and_is_rewritten(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        let password = "pässwörd 1";
        // Hashes of the password above, each verified with Django 5.2.
        for (name, hash) in [
            ("sha", "bcrypt_sha256$$2b$12$R9h/cIPz0gi.URNNX3kh2OYEnGawxEyRpLbFB99lPr2.b35ouTmeu"),
            ("bcrypt", "bcrypt$$2b$12$R9h/cIPz0gi.URNNX3kh2OfeLXUWvYCZvDt0ytkZlfUce4q2hxDeK"),
            ("pbkdf", "pbkdf2_sha256$1000000$Zm9vYmFyc2FsdDEyMzQ1Nn$nIZvV0yN967Z2wcZspFbwGIDBjBGDuItJzNpQ+4TsY0="),
            ("argon", "argon2$argon2id$v=19$m=102400,t=2,p=8$Wm05dlltRnljMkZzZERFeU16UTFObg$8302zhaD0V+p9PvmTsZrlCUZ+h07QlN+n2CYRBBhu/Y"),
            ("scrypt", "scrypt$16384$Zm9vYmFyc2FsdDEyMzQ1Nn$8$5$o1yP34A6dpzjCLfvmiIP2XVjnyU5wbCfIBnpeER5HPnAA6xZPiABlURGndQ3AcLESh21Z18WwZg4ICCOqq/qUg=="),
        ] {
            let user = server.member(name).await;
            database.execute(&format!("UPDATE core_user SET password = '{hash}' WHERE username = '{name}'"));
            let mut client = server.client().await;

            let wrong = client.login(login(name, "pässwörd 2")).await.unwrap_err();
            assert_refused(&wrong, Code::Unauthenticated, "INVALID_CREDENTIALS");
            let answer = client.login(login(name, password)).await.unwrap().into_inner();
            assert_eq!(answer.user, Some(user), "{name}");

            let stored = database.rows(&format!("SELECT password AS value FROM core_user WHERE username = '{name}'"));
            // This server hashes at cost 4, so it keeps a `bcrypt_sha256` hash of cost 12.
            let is_kept = stored[0] == hash;
            assert_eq!(is_kept, name == "sha", "{name}: {stored:?}");
            assert!(is_kept || stored[0].starts_with("bcrypt_sha256$$2b$04$"), "{name}: {stored:?}");
            client.login(login(name, password)).await.unwrap();
        }
    }

    async fn an_unreadable_hash_affects_only_its_own_user(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned())
            .with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "100")
            .start()
            .await;
        server.member("ada").await;
        server.member("bob").await;
        for hash in ["", "!", "plaintext", "md5$salt$hash", "bcrypt_sha256$$2b$31$R9h/cIPz0gi.URNNX3kh2OYEnGawxEyRpLbFB99lPr2.b35ouTmeu"] {
            database.execute(&format!("UPDATE core_user SET password = '{hash}' WHERE username = 'ada'"));
            for guess in [hash, PASSWORD, "!"] {
                if guess.is_empty() {
                    continue;
                }
                let refusal = server.client().await.login(login("ada", guess)).await.unwrap_err();
                assert_refused(&refusal, Code::Unauthenticated, "INVALID_CREDENTIALS");
            }
        }
        server.client().await.login(login("bob", PASSWORD)).await.unwrap();
    }

    async fn a_full_hashing_queue_refuses_logins_with_retry_info(engine: Engine) {
        let server = TestServer::builder(engine)
            // A hash takes about 0.2 s, so the other calls arrive while it is computed.
            .with_env("KAIROS_IDENTITY_PASSWORD_COST", "12")
            .with_env("KAIROS_IDENTITY_PASSWORD_THREADS", "1")
            .with_env("KAIROS_IDENTITY_PASSWORD_QUEUE_LENGTH", "1")
            .with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "100")
            .start()
            .await;
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let mut client = server.client().await;
            calls.spawn(async move { client.login(login("unknown", PASSWORD)).await.unwrap_err() });
        }

        let refusals = calls.join_all().await;

        let (overloaded, checked): (Vec<_>, Vec<_>) =
            refusals.iter().partition(|refusal| refusal.code() == Code::ResourceExhausted);
        assert!(!overloaded.is_empty() && !checked.is_empty(), "{refusals:?}");
        for refusal in overloaded {
            assert_refused(refusal, Code::ResourceExhausted, "OVERLOADED");
            let delay = refusal.get_details_retry_info().and_then(|info| info.retry_delay);
            assert!(delay.is_some_and(|delay| delay >= Duration::from_secs(1)), "{delay:?}");
        }
        until("the queue is empty", Duration::from_secs(10), async || {
            let refusal = server.client().await.login(login("unknown", PASSWORD)).await.unwrap_err();
            (refusal.code() == Code::Unauthenticated).then_some(())
        })
        .await;
    }
}
