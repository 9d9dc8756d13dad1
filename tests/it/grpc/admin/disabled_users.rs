//! `AdminService`: disables and enables users.

use kairos_identity::proto::{
    RequestPasswordResetRequest, ResetPasswordRequest, ResolveTokenRequest, StartPasswordResetRequest, User,
    UserState, VerifyEmailRequest, account_service_client::AccountServiceClient,
};
use tokio::task::JoinSet;
use tonic::Code;

use super::{client, disable, enable};
use crate::support::{
    engine::TestDatabase,
    errors::assert_refused,
    mail::{mails_to, newest_mail, verification_token},
    people::{NEW_PASSWORD, PASSWORD, address, login, registration},
    server::TestServer,
    sessions::{introspect, log_in, refresh},
    tools::race_rounds,
};

on_both_engines! {
    async fn a_disabled_user_cannot_log_in_until_enabled(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        let mut accounts = AccountServiceClient::new(server.channel().await);
        let request = RequestPasswordResetRequest { email: address("ada"), return_mail_token: false };
        accounts.request_password_reset(request.clone()).await.unwrap();
        let link = newest_mail(&server, &address("ada"), 2).await.token();

        let disabled = disable(&server, &ada.auth_token).await;
        assert!(disabled.disabled_at.is_some());
        assert_eq!(disable(&server, &ada.auth_token).await, disabled, "disabling a disabled user changes nothing");

        let mut identity = server.client().await;
        let refusal = identity.login(login("ada", PASSWORD)).await.unwrap_err();
        assert_refused(&refusal, Code::PermissionDenied, "ACCOUNT_DISABLED");
        let refusal = identity.login(login("ada", "wrong")).await.unwrap_err();
        assert_refused(&refusal, Code::Unauthenticated, "INVALID_CREDENTIALS");
        assert!(!introspect(&server, &tokens.access_token).await.active);
        refresh(&server, &tokens.refresh_token).await.unwrap_err();
        let reset = ResetPasswordRequest { token: link, new_password: NEW_PASSWORD.into() };
        let refusal = accounts.reset_password(reset.clone()).await.unwrap_err();
        assert_refused(&refusal, Code::InvalidArgument, "INVALID_TOKEN");
        accounts.request_password_reset(request).await.unwrap();
        let start = StartPasswordResetRequest { auth_token: ada.auth_token.clone() };
        let refusal = client(&server).await.start_password_reset(start).await.unwrap_err();
        assert_refused(&refusal, Code::PermissionDenied, "ACCOUNT_DISABLED");
        let refusal = identity.register(registration("ada")).await.unwrap_err();
        assert_refused(&refusal, Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");
        let known = ResolveTokenRequest { auth_token: ada.auth_token.clone() };
        let shown = User { state: UserState::Disabled.into(), ..ada.clone() };
        assert_eq!(identity.resolve_token(known).await.unwrap().into_inner().user, Some(shown));
        // A requested reset is handled in the background within a second after the answer.
        tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
        let mails = mails_to(&server.mail_folder(), &address("ada"));
        assert!(mails.iter().skip(2).all(|mail| !mail.text.contains("?token=")), "{mails:?}");

        assert_eq!(enable(&server, &ada.auth_token).await.disabled_at, None);
        assert_eq!(enable(&server, &ada.auth_token).await.disabled_at, None);
        accounts.reset_password(reset).await.unwrap_err();
        refresh(&server, &tokens.refresh_token).await.unwrap_err();
        log_in(&server, "ada").await;
    }

    async fn a_disabled_unverified_user_keeps_the_email_and_gets_a_link_if_enabled(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.unverified_user("ada").await;
        let link = verification_token(&server, &address("ada")).await;
        disable(&server, &ada.auth_token).await;

        let mut identity = server.client().await;
        let refusal = identity.verify_email(VerifyEmailRequest { token: link }).await.unwrap_err();
        assert_refused(&refusal, Code::InvalidArgument, "INVALID_TOKEN");
        let refusal = identity.login(login("ada", PASSWORD)).await.unwrap_err();
        assert_refused(&refusal, Code::PermissionDenied, "ACCOUNT_DISABLED");
        // The email stays taken.
        let refusal = identity.register(registration("ada")).await.unwrap_err();
        assert_refused(&refusal, Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");

        // Enabling mails a new link: without one the next purge could delete the user as abandoned.
        enable(&server, &ada.auth_token).await;
        let refusal = identity.register(registration("ada")).await.unwrap_err();
        assert_refused(&refusal, Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");
        let link = newest_mail(&server, &address("ada"), 2).await.token();
        identity.verify_email(VerifyEmailRequest { token: link }).await.unwrap();
        enable(&server, &ada.auth_token).await;
        assert_eq!(mails_to(&server.mail_folder(), &address("ada")).len(), 2);
    }

    async fn a_session_left_by_an_earlier_release_is_invalid_for_a_disabled_user(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        // Only the row, without revoking sessions: an instance of an earlier release does not read this table
        // and may open a session for a disabled user.
        database.execute("INSERT INTO core_disabled_user (user_id, disabled_at) SELECT id, created_at FROM core_user");
        assert!(!introspect(&server, &tokens.access_token).await.active);
        let refusal = refresh(&server, &tokens.refresh_token).await.unwrap_err();
        assert_refused(&refusal, Code::Unauthenticated, "INVALID_REFRESH_TOKEN");
    }

    async fn no_session_survives_a_concurrent_disable(engine: Engine) {
        let server = TestServer::builder(engine).with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "100").start().await;
        let second_instance = server.second_instance().await;
        let ada = server.member("ada").await;
        for _ in 0..race_rounds(1) {
            let mut logins = JoinSet::new();
            for number in 0..16 {
                let mut identity = if number % 2 == 0 { &server } else { &second_instance }.client().await;
                logins.spawn(async move { identity.login(login("ada", PASSWORD)).await });
            }
            let first = logins.join_next().await.unwrap().unwrap();
            disable(&server, &ada.auth_token).await;
            let mut answers = logins.join_all().await;
            answers.push(first);

            let mut opened = Vec::new();
            for answer in answers {
                match answer {
                    Ok(answer) => {
                        opened.push(answer.into_inner().tokens.unwrap().access_token);
                    }
                    Err(refusal) => assert_refused(&refusal, Code::PermissionDenied, "ACCOUNT_DISABLED"),
                }
            }
            assert!(!opened.is_empty());
            enable(&server, &ada.auth_token).await;
            for token in opened {
                assert!(!introspect(&server, &token).await.active, "a session that disabling revoked stays revoked");
            }
        }
    }
}
