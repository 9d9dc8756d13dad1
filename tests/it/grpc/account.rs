//! `AccountService`: an account's life after registration.

use std::time::Duration;

use kairos_identity::proto::{
    ChangePasswordRequest, ConfirmEmailChangeRequest, DeleteAccountRequest, GetAccountRequest,
    RequestEmailChangeRequest, RequestPasswordResetRequest, ResetPasswordRequest, SessionTokens,
    UpdateAccountRequest, VerifyEmailRequest, account_service_client::AccountServiceClient,
};
use prost_types::FieldMask;
use tonic::{Code, Request, Status, transport::Channel};

use crate::support::{
    engine::TestDatabase,
    errors::{assert_refused, violations},
    mail::{Mail, mails_to, wait_for_mails},
    people::{PASSWORD, address, by_email, login, registration},
    server::TestServer,
    sessions::{acting, age, introspect, log_in, refresh},
    tools::race_rounds,
};

const OTHER: &str = "quartz-Lantern-57-meadow";

async fn client(server: &TestServer) -> AccountServiceClient<Channel> {
    AccountServiceClient::new(server.channel().await)
}

/// The newest mail to an address, once there are so many.
async fn newest(server: &TestServer, email: &str, count: usize) -> Mail {
    wait_for_mails(server, email, count).await.pop().unwrap()
}

async fn can_log_in(server: &TestServer, name: &str, password: &str) -> bool {
    match server.client().await.login(login(name, password)).await {
        Ok(_) => true,
        Err(refusal) => {
            assert_refused(&refusal, Code::Unauthenticated, "INVALID_CREDENTIALS");
            false
        }
    }
}

fn change(tokens: &SessionTokens, current: &str, new: &str) -> Request<ChangePasswordRequest> {
    acting(tokens, ChangePasswordRequest { current_password: current.into(), new_password: new.into() })
}

fn move_to(tokens: &SessionTokens, current: &str, new_email: &str) -> Request<RequestEmailChangeRequest> {
    acting(
        tokens,
        RequestEmailChangeRequest {
            current_password: current.into(),
            new_email: new_email.into(),
            return_mail_token: false,
        },
    )
}

async fn ask_for_reset(server: &TestServer, email: &str) {
    let request = RequestPasswordResetRequest { email: email.to_owned(), return_mail_token: false };
    client(server).await.request_password_reset(request).await.unwrap();
}

async fn reset(server: &TestServer, token: &str, new_password: &str) -> Result<(), Status> {
    let request = ResetPasswordRequest { token: token.to_owned(), new_password: new_password.to_owned() };
    client(server).await.reset_password(request).await.map(drop)
}

async fn confirm(server: &TestServer, token: &str) -> Result<String, Status> {
    let request = ConfirmEmailChangeRequest { token: token.to_owned() };
    let confirmed = client(server).await.confirm_email_change(request).await?;
    Ok(confirmed.into_inner().user.unwrap().auth_token)
}

on_both_engines! {
    async fn who_acts_is_told_who_they_are(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        let told = client(&server).await.get_account(acting(&tokens, GetAccountRequest {})).await.unwrap();
        assert_eq!(told.into_inner().user, Some(ada));
    }

    async fn a_username_is_changed_and_told(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await;
        server.member("bob").await;
        let tokens = log_in(&server, "ada").await;
        let update = |username: &str, paths: Option<&[&str]>| {
            let update_mask = paths.map(|paths| FieldMask { paths: paths.iter().map(ToString::to_string).collect() });
            acting(&tokens, UpdateAccountRequest { username: username.into(), update_mask })
        };
        let mut client = client(&server).await;

        let updated = client.update_account(update("Ada Lovelace", Some(&["username"]))).await.unwrap().into_inner();
        let user = updated.user.unwrap();
        assert_eq!((user.username.as_str(), &user.auth_token), ("Ada Lovelace", &ada.auth_token));
        let mail = newest(&server, &address("ada"), 2).await;
        assert!(mail.text.contains("Hello Ada Lovelace,") && mail.text.contains("this is your name"), "{mail:?}");
        let again = client.update_account(update("ada lovelace", None)).await.unwrap().into_inner().user.unwrap();
        assert_eq!(again.username, "ada lovelace");

        let taken = client.update_account(update("BOB", None)).await.unwrap_err();
        assert_refused(&taken, Code::AlreadyExists, "USERNAME_ALREADY_EXISTS");
        for (faulty, field) in [
            (update("", None), "username"),
            (update("a@b", None), "username"),
            (update("ok", Some(&["email"])), "update_mask"),
            (update("ok", Some(&["username", "auth_token"])), "update_mask"),
        ] {
            let refusal = client.update_account(faulty).await.unwrap_err();
            assert_refused(&refusal, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(violations(&refusal)[0].0, field);
        }
        assert!(introspect(&server, &tokens.access_token).await.active, "the session goes on");
    }

    async fn a_password_is_changed_with_the_current_one(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        let (tokens, other) = (log_in(&server, "ada").await, log_in(&server, "ada").await);
        let mut client = client(&server).await;

        let wrong = client.change_password(change(&tokens, "wrong", OTHER)).await.unwrap_err();
        assert_refused(&wrong, Code::Unauthenticated, "INVALID_CREDENTIALS");
        let weak = client.change_password(change(&tokens, PASSWORD, "ada12345")).await.unwrap_err();
        assert_eq!(violations(&weak)[0].0, "new_password");
        assert!(can_log_in(&server, "ada", PASSWORD).await);

        client.change_password(change(&tokens, PASSWORD, OTHER)).await.unwrap();

        assert!(!can_log_in(&server, "ada", PASSWORD).await);
        assert!(can_log_in(&server, "ada", OTHER).await);
        assert!(introspect(&server, &tokens.access_token).await.active, "one's own session goes on");
        assert!(!introspect(&server, &other.access_token).await.active);
        refresh(&server, &other.refresh_token).await.unwrap_err();
        refresh(&server, &tokens.refresh_token).await.unwrap();
        let mail = newest(&server, &address("ada"), 2).await;
        assert!(mail.text.contains("password for Kairos was changed"), "{mail:?}");
    }

    async fn guesses_at_the_current_password_share_the_budget_of_logins(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        let mut client = client(&server).await;
        for _ in 0..3 {
            client.change_password(change(&tokens, "wrong", OTHER)).await.unwrap_err();
            client.request_email_change(move_to(&tokens, "wrong", "new@example.com")).await.unwrap_err();
            let deletion = DeleteAccountRequest { current_password: "wrong".into() };
            client.delete_account(acting(&tokens, deletion)).await.unwrap_err();
        }
        assert!(!can_log_in(&server, "ada", "wrong").await);

        let refusal = client.change_password(change(&tokens, PASSWORD, OTHER)).await.unwrap_err();
        assert_refused(&refusal, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
        let refusal = server.client().await.login(login("ada", PASSWORD)).await.unwrap_err();
        assert_refused(&refusal, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
    }

    async fn a_forgotten_password_is_reset_by_mail_once(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        for _ in 0..10 {
            server.client().await.login(login("ada", "wrong")).await.unwrap_err();
        }
        ask_for_reset(&server, "ADA@example.com").await;
        let token = newest(&server, &address("ada"), 2).await.token();
        assert!(introspect(&server, &tokens.access_token).await.active, "to ask changes nothing");

        let weak = reset(&server, &token, "ada12345").await.unwrap_err();
        assert_eq!(violations(&weak)[0].0, "new_password");
        reset(&server, &token, OTHER).await.unwrap();

        assert!(can_log_in(&server, "ada", OTHER).await, "whoever waited waits no more");
        assert!(!can_log_in(&server, "ada", PASSWORD).await);
        assert!(!introspect(&server, &tokens.access_token).await.active);
        refresh(&server, &tokens.refresh_token).await.unwrap_err();
        let again = reset(&server, &token, PASSWORD).await.unwrap_err();
        assert_refused(&again, Code::InvalidArgument, "INVALID_TOKEN");
        let mail = newest(&server, &address("ada"), 3).await;
        assert!(mail.text.contains("password for Kairos was changed"), "{mail:?}");
    }

    async fn of_many_resets_at_once_one_is_done(engine: Engine) {
        let server = TestServer::builder(engine).with_env("KAIROS_IDENTITY_VERIFICATION_RESENDS_MAX", "1000").start().await;
        let twin = server.twin().await;
        server.member("ada").await;
        for round in 0..race_rounds(1) {
            ask_for_reset(&server, &address("ada")).await;
            let token = newest(&server, &address("ada"), 2 * round + 2).await.token();
            let mut calls = tokio::task::JoinSet::new();
            for number in 0..64 {
                let mut client = client(if number % 2 == 0 { &server } else { &twin }).await;
                let new_password = format!("{OTHER}-{round}-{number}");
                let request = ResetPasswordRequest { token: token.clone(), new_password: new_password.clone() };
                calls.spawn(async move { client.reset_password(request).await.map(|_| new_password) });
            }
            let done: Vec<_> = calls.join_all().await.into_iter().filter_map(Result::ok).collect();
            assert_eq!(done.len(), 1);
            assert!(can_log_in(&server, "ada", &done[0]).await);
            wait_for_mails(&server, &address("ada"), 2 * round + 3).await;
        }
    }

    async fn of_many_confirmations_at_once_one_is_done(engine: Engine) {
        let server = TestServer::start(engine).await;
        let twin = server.twin().await;
        let ada = server.member("ada").await;
        let mut name = "ada".to_owned();
        for round in 0..race_rounds(1) {
            let tokens = log_in(&server, &name).await;
            name = format!("ada{round}");
            let new = address(&name);
            let mut accounts = client(&server).await;
            accounts.request_email_change(move_to(&tokens, PASSWORD, &new)).await.unwrap();
            let token = newest(&server, &new, 1).await.token();
            let mut calls = tokio::task::JoinSet::new();
            for number in 0..64 {
                let mut client = client(if number % 2 == 0 { &server } else { &twin }).await;
                let request = ConfirmEmailChangeRequest { token: token.clone() };
                calls.spawn(async move { client.confirm_email_change(request).await });
            }
            let answers = calls.join_all().await;
            let done: Vec<_> = answers.iter().flatten().collect();
            assert_eq!(done.len(), 1);
            for refusal in answers.into_iter().filter_map(Result::err) {
                assert_refused(&refusal, Code::InvalidArgument, "INVALID_TOKEN");
            }
            let found = server.client().await.find_user(by_email(&new)).await.unwrap().into_inner().user.unwrap();
            assert_eq!(found.auth_token, ada.auth_token);
        }
    }

    async fn a_newer_reset_link_and_a_change_of_the_password_void_the_older_one(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        ask_for_reset(&server, &address("ada")).await;
        let first = newest(&server, &address("ada"), 2).await.token();
        ask_for_reset(&server, &address("ada")).await;
        let second = newest(&server, &address("ada"), 3).await.token();
        assert_refused(&reset(&server, &first, OTHER).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");

        let tokens = log_in(&server, "ada").await;
        client(&server).await.change_password(change(&tokens, PASSWORD, OTHER)).await.unwrap();
        assert_refused(&reset(&server, &second, PASSWORD).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
        assert!(can_log_in(&server, "ada", OTHER).await);
    }

    async fn a_reset_proves_the_address_of_who_never_opened_their_link(engine: Engine) {
        let server = TestServer::start(engine).await;
        // Whoever registered with somebody else's address has chosen the password; its owner chooses another.
        server.newcomer("ada").await;
        let first = newest(&server, &address("ada"), 1).await.token();
        ask_for_reset(&server, &address("ada")).await;
        let token = newest(&server, &address("ada"), 2).await.token();

        reset(&server, &token, OTHER).await.unwrap();

        assert!(can_log_in(&server, "ada", OTHER).await);
        assert!(!can_log_in(&server, "ada", PASSWORD).await);
        let late = server.client().await.verify_email(VerifyEmailRequest { token: first }).await.unwrap_err();
        assert_refused(&late, Code::InvalidArgument, "INVALID_TOKEN");
    }

    async fn a_reset_for_nobody_mails_nobody_and_says_the_same(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        ask_for_reset(&server, "stranger@example.com").await;
        ask_for_reset(&server, &address("ada")).await;
        newest(&server, &address("ada"), 2).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(mails_to(&server.mail_folder(), "stranger@example.com").is_empty());
        for email in ["stranger@example.com", &address("ada")] {
            let ask = || RequestPasswordResetRequest { email: email.to_owned(), return_mail_token: false };
            let mut client = client(&server).await;
            for _ in 0..2 {
                client.request_password_reset(ask()).await.unwrap();
            }
            let refusal = client.request_password_reset(ask()).await.unwrap_err();
            assert_refused(&refusal, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
        }
    }

    async fn an_email_is_changed_by_the_new_mailbox_and_told_to_the_old(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        let mut client = client(&server).await;
        let wrong = client.request_email_change(move_to(&tokens, "wrong", "lovelace@example.com")).await.unwrap_err();
        assert_refused(&wrong, Code::Unauthenticated, "INVALID_CREDENTIALS");
        let same = client.request_email_change(move_to(&tokens, PASSWORD, "ADA@example.com")).await.unwrap_err();
        assert_eq!(violations(&same)[0].0, "new_email");

        client.request_email_change(move_to(&tokens, PASSWORD, "Lovelace@Example.com")).await.unwrap();
        let token = newest(&server, "lovelace@example.com", 1).await.token();
        let told = newest(&server, &address("ada"), 2).await;
        assert!(told.text.contains("another email address") && !told.text.contains("token="), "{told:?}");
        assert!(can_log_in(&server, "ada", PASSWORD).await, "until the link is opened nothing changes");

        assert_eq!(confirm(&server, &token).await.unwrap(), ada.auth_token);

        assert!(can_log_in(&server, "lovelace", PASSWORD).await);
        assert!(!can_log_in(&server, "ada", PASSWORD).await);
        assert!(!introspect(&server, &tokens.access_token).await.active);
        let told = newest(&server, &address("ada"), 3).await;
        assert!(told.text.contains("no longer belongs"), "{told:?}");
        assert_refused(&confirm(&server, &token).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
        // The old address is free.
        server.client().await.register(registration("ada2")).await.unwrap();
    }

    async fn an_address_that_somebody_has_proven_is_not_taken(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        server.member("bob").await;
        server.newcomer("eve").await;
        let tokens = log_in(&server, "ada").await;
        let mut client = client(&server).await;
        let taken = client.request_email_change(move_to(&tokens, PASSWORD, &address("bob"))).await.unwrap_err();
        assert_refused(&taken, Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");

        // Proven while the link was on its way.
        client.request_email_change(move_to(&tokens, PASSWORD, &address("joe"))).await.unwrap();
        let link = newest(&server, &address("joe"), 1).await.token();
        server.newcomer("joe").await;
        let joes = newest(&server, &address("joe"), 2).await.token();
        server.client().await.verify_email(VerifyEmailRequest { token: joes }).await.unwrap();
        assert_refused(&confirm(&server, &link).await.unwrap_err(), Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");

        // Whoever registered with it and has not proven it makes room.
        client.request_email_change(move_to(&tokens, PASSWORD, &address("eve"))).await.unwrap();
        let link = newest(&server, &address("eve"), 2).await.token();
        confirm(&server, &link).await.unwrap();
        let found = server.client().await.find_user(by_email(&address("eve"))).await.unwrap().into_inner().user.unwrap();
        assert_eq!(found.username, "ada");
    }

    async fn an_account_is_deleted_with_the_current_password(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        let delete = |password: &str| acting(&tokens, DeleteAccountRequest { current_password: password.to_owned() });
        let mut client = client(&server).await;
        let wrong = client.delete_account(delete("wrong")).await.unwrap_err();
        assert_refused(&wrong, Code::Unauthenticated, "INVALID_CREDENTIALS");

        client.delete_account(delete(PASSWORD)).await.unwrap();

        for table in ["core_user", "core_session", "core_mail_token", "core_mail_outbox"] {
            assert_eq!(database.count(table), 0, "{table}");
        }
        let gone = client.delete_account(delete(PASSWORD)).await.unwrap_err();
        assert_refused(&gone, Code::Unauthenticated, "INVALID_ACCESS_TOKEN");
        refresh(&server, &tokens.refresh_token).await.unwrap_err();
    }

    async fn a_mailed_token_is_good_for_its_purpose_alone(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await;
        server.newcomer("bob").await;
        let verify = newest(&server, &address("bob"), 1).await.token();
        ask_for_reset(&server, &address("ada")).await;
        let reset_token = newest(&server, &address("ada"), 2).await.token();
        let tokens = log_in(&server, "ada").await;
        client(&server).await.request_email_change(move_to(&tokens, PASSWORD, "new@example.com")).await.unwrap();
        let change = newest(&server, "new@example.com", 1).await.token();

        for (name, token) in [("verify", &verify), ("reset", &reset_token), ("change", &change)] {
            if name != "verify" {
                let other = server.client().await.verify_email(VerifyEmailRequest { token: token.clone() }).await;
                assert_refused(&other.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
            }
            if name != "reset" {
                assert_refused(&reset(&server, token, OTHER).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
            }
            if name != "change" {
                assert_refused(&confirm(&server, token).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
            }
            refresh(&server, token).await.unwrap_err();
            assert!(!introspect(&server, token).await.active);
        }
        for other in [&tokens.access_token, &tokens.refresh_token, &tokens.session_id, &ada.auth_token] {
            assert_refused(&reset(&server, other, OTHER).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
            assert_refused(&confirm(&server, other).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
        }
        // Each is as good as before for what it is for.
        server.client().await.verify_email(VerifyEmailRequest { token: verify }).await.unwrap();
        reset(&server, &reset_token, OTHER).await.unwrap();
        // And then void: whoever asked for it may have known the old password.
        assert_refused(&confirm(&server, &change).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
    }

    async fn a_new_password_voids_what_an_intruder_asked_for(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        let (thief, ada) = (log_in(&server, "ada").await, log_in(&server, "ada").await);
        client(&server).await.request_email_change(move_to(&thief, PASSWORD, "thief@example.com")).await.unwrap();
        let link = newest(&server, "thief@example.com", 1).await.token();

        client(&server).await.change_password(change(&ada, PASSWORD, OTHER)).await.unwrap();

        assert_refused(&confirm(&server, &link).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
        assert!(can_log_in(&server, "ada", OTHER).await);
    }

    async fn a_right_password_is_no_guess_whatever_comes_of_the_change(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        server.member("bob").await;
        let tokens = log_in(&server, "ada").await;
        let mut client = client(&server).await;
        for _ in 0..12 {
            let taken = client.request_email_change(move_to(&tokens, PASSWORD, &address("bob"))).await.unwrap_err();
            assert_refused(&taken, Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");
        }
        assert!(can_log_in(&server, "ada", PASSWORD).await);
    }

    async fn a_link_ends_when_its_time_is_over(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        server.member("ada").await;
        ask_for_reset(&server, &address("ada")).await;
        let token = newest(&server, &address("ada"), 2).await.token();
        age(&database, "core_mail_token", "expires_at", 20 * 60 - 30);
        let weak = reset(&server, &token, "short").await.unwrap_err();
        assert_refused(&weak, Code::InvalidArgument, "INVALID_FIELDS");
        age(&database, "core_mail_token", "expires_at", 31);
        assert_refused(&reset(&server, &token, OTHER).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
    }

    async fn who_tries_to_register_with_somebodys_address_is_told_to_them(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        let mut thief = registration("thief");
        thief.email = address("ada");
        for _ in 0..5 {
            let refusal = server.client().await.register(thief.clone()).await.unwrap_err();
            assert_refused(&refusal, Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");
        }
        let mail = newest(&server, &address("ada"), 4).await;
        assert!(mail.text.contains("Hello ada,") && mail.text.contains("tried to sign up"), "{mail:?}");
        // Their own reset has a budget of its own.
        ask_for_reset(&server, &address("ada")).await;
        let mails = wait_for_mails(&server, &address("ada"), 5).await;
        assert_eq!(mails.len(), 5, "three were told, however often it was tried");
    }

    async fn an_address_whose_link_ended_unopened_may_be_registered_anew(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        let squatter = server.newcomer("ada").await;
        // With the same name too, as somebody does who lost the first mail.
        let owner = registration("ada");
        let early = server.client().await.register(owner.clone()).await.unwrap_err();
        assert_refused(&early, Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");
        let first = newest(&server, &address("ada"), 1).await.token();

        age(&database, "core_mail_token", "expires_at", 86_401);
        let registered = server.client().await.register(owner).await.unwrap().into_inner().user.unwrap();

        assert_ne!(registered.auth_token, squatter.auth_token);
        let token = newest(&server, &address("ada"), 2).await.token();
        let old = server.client().await.verify_email(VerifyEmailRequest { token: first }).await.unwrap_err();
        assert_refused(&old, Code::InvalidArgument, "INVALID_TOKEN");
        server.client().await.verify_email(VerifyEmailRequest { token }).await.unwrap();
        assert_eq!(database.count("core_user"), 1);
        let log = server.logged("abandoned").await;
        assert!(log.lines().any(|line| line.contains("user_deleted") && line.contains(&squatter.auth_token)));
    }
}
