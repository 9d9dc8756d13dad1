//! `AdminService`, and the command `user`, which does the same.

mod disabled_users;
mod user_list;

use kairos_identity::proto::{
    AuditEvent, DeleteUserRequest, DisableUserRequest, EnableUserRequest, GetUserRequest,
    ListAuditEventsRequest, ManagedUser, ResetPasswordRequest, RevokeUserSessionsRequest, SetVerifiedRequest,
    StartPasswordResetRequest, StartPasswordResetResponse, UnlockUserRequest, VerifyEmailRequest,
    account_service_client::AccountServiceClient, admin_service_client::AdminServiceClient,
    get_user_request::Key,
};
use tonic::{Code, Status, transport::Channel};

use crate::support::{
    errors::{assert_refused, violations},
    mail::{mails_to, newest_mail, wait_for_mails},
    people::{NEW_PASSWORD, PASSWORD, address, login, registration},
    server::TestServer,
    sessions::{introspect, log_in},
};

async fn client(server: &TestServer) -> AdminServiceClient<Channel> {
    AdminServiceClient::new(server.channel().await)
}

async fn disable(server: &TestServer, auth_token: &str) -> ManagedUser {
    let request = DisableUserRequest { auth_token: auth_token.to_owned() };
    client(server).await.disable_user(request).await.unwrap().into_inner().user.unwrap()
}

async fn enable(server: &TestServer, auth_token: &str) -> ManagedUser {
    let request = EnableUserRequest { auth_token: auth_token.to_owned() };
    client(server).await.enable_user(request).await.unwrap().into_inner().user.unwrap()
}

async fn get(server: &TestServer, key: Key) -> Result<ManagedUser, Status> {
    let found = client(server).await.get_user(GetUserRequest { key: Some(key) }).await?;
    Ok(found.into_inner().user.unwrap())
}

/// Lists the matching audit events in pages of at most `size`, and returns the events of all pages.
async fn events(server: &TestServer, filter: ListAuditEventsRequest, size: i32) -> Vec<AuditEvent> {
    let mut request = ListAuditEventsRequest { page_size: size, ..filter };
    let mut events = Vec::new();
    loop {
        let page = client(server).await.list_audit_events(request.clone()).await.unwrap().into_inner();
        events.extend(page.events);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return events;
        }
    }
}

on_both_engines! {
    async fn get_user_finds_a_user_by_auth_token_email_or_username(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await;
        for key in [Key::AuthToken(ada.auth_token.to_uppercase()), Key::Email("ADA@example.com".into()), Key::Username("Ada".into())] {
            let found = get(&server, key).await.unwrap();
            assert_eq!((found.user, found.disabled_at), (Some(ada.clone()), None));
        }
        let unknown = get(&server, Key::Username("unknown".into())).await.unwrap_err();
        assert_refused(&unknown, Code::NotFound, "USER_NOT_FOUND");
        for (key, field) in [
            (Some(Key::AuthToken("1".into())), "auth_token"),
            (Some(Key::Email("ada".into())), "email"),
            (Some(Key::Username("a@b".into())), "username"),
            (None, "key"),
        ] {
            let faulty = client(&server).await.get_user(GetUserRequest { key }).await.unwrap_err();
            assert_eq!(violations(&faulty)[0].0, field);
        }
    }

    async fn an_operator_can_set_and_clear_the_verified_flag(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.unverified_user("ada").await;
        let set = async |is_verified| {
            let request = SetVerifiedRequest { auth_token: ada.auth_token.clone(), is_verified };
            client(&server).await.set_verified(request).await
        };
        let refusal = set(None).await.unwrap_err();
        assert_eq!(violations(&refusal), [("is_verified".to_owned(), "must be set".to_owned())]);

        for _ in 0..2 {
            let user = set(Some(true)).await.unwrap().into_inner().user.unwrap().user.unwrap();
            assert!(user.is_verified);
        }
        let tokens = log_in(&server, "ada").await;
        for _ in 0..2 {
            let user = set(Some(false)).await.unwrap().into_inner().user.unwrap().user.unwrap();
            assert!(!user.is_verified);
        }
        assert!(!introspect(&server, &tokens.access_token).await.active);
        let refusal = server.client().await.login(login("ada", PASSWORD)).await.unwrap_err();
        assert_refused(&refusal, Code::PermissionDenied, "EMAIL_NOT_VERIFIED");
        // A registration with the email does not replace the account: its user was mailed a new link.
        let refusal = server.client().await.register(registration("ada")).await.unwrap_err();
        assert_refused(&refusal, Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");
        let token = newest_mail(&server, &address("ada"), 2).await.token();
        server.client().await.verify_email(VerifyEmailRequest { token }).await.unwrap();
        log_in(&server, "ada").await;
        assert_eq!(mails_to(&server.mail_folder(), &address("ada")).len(), 2, "a call that changes nothing sends no mail");
    }

    async fn an_operator_can_start_a_password_reset_without_seeing_its_link(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        let start = StartPasswordResetRequest { auth_token: ada.auth_token.clone() };
        let StartPasswordResetResponse {} = client(&server).await.start_password_reset(start).await.unwrap().into_inner();

        let token = newest_mail(&server, &address("ada"), 2).await.token();
        assert!(introspect(&server, &tokens.access_token).await.active, "starting a reset does not revoke sessions");
        let reset = ResetPasswordRequest { token, new_password: NEW_PASSWORD.into() };
        AccountServiceClient::new(server.channel().await).reset_password(reset).await.unwrap();
        server.client().await.login(login("ada", NEW_PASSWORD)).await.unwrap();
    }

    async fn an_operator_can_unlock_a_user_revoke_sessions_and_delete_the_account(engine: Engine) {
        let server = TestServer::builder(engine).with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "1").start().await;
        let auth_token = server.member("ada").await.auth_token;
        let mut admin = client(&server).await;
        let unlock = UnlockUserRequest { auth_token: auth_token.clone() };

        assert!(!admin.unlock_user(unlock.clone()).await.unwrap().into_inner().had_failures);
        server.client().await.login(login("ada", "wrong")).await.unwrap_err();
        assert!(admin.unlock_user(unlock).await.unwrap().into_inner().had_failures);
        let sessions = [log_in(&server, "ada").await, log_in(&server, "ada").await];

        let revoke = RevokeUserSessionsRequest { auth_token: auth_token.clone() };
        assert_eq!(admin.revoke_user_sessions(revoke.clone()).await.unwrap().into_inner().revoked_count, 2);
        assert_eq!(admin.revoke_user_sessions(revoke).await.unwrap().into_inner().revoked_count, 0);
        for session in sessions {
            assert!(!introspect(&server, &session.access_token).await.active);
        }

        admin.delete_user(DeleteUserRequest { auth_token: auth_token.clone() }).await.unwrap();
        let gone = Code::NotFound;
        let refusals = [
            admin.delete_user(DeleteUserRequest { auth_token: auth_token.clone() }).await.map(drop),
            admin.disable_user(DisableUserRequest { auth_token: auth_token.clone() }).await.map(drop),
            admin.enable_user(EnableUserRequest { auth_token: auth_token.clone() }).await.map(drop),
            admin.unlock_user(UnlockUserRequest { auth_token: auth_token.clone() }).await.map(drop),
            admin.revoke_user_sessions(RevokeUserSessionsRequest { auth_token: auth_token.clone() }).await.map(drop),
            admin.start_password_reset(StartPasswordResetRequest { auth_token: auth_token.clone() }).await.map(drop),
            admin.set_verified(SetVerifiedRequest { auth_token, is_verified: Some(true) }).await.map(drop),
        ];
        for refusal in refusals {
            assert_refused(&refusal.unwrap_err(), gone, "USER_NOT_FOUND");
        }
    }

    async fn each_admin_change_is_one_audit_event_and_events_are_listed_in_pages(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.unverified_user("ada").await;
        let auth_token = ada.auth_token.clone();
        let set = |is_verified| SetVerifiedRequest { auth_token: auth_token.clone(), is_verified: Some(is_verified) };
        let mut admin = client(&server).await;
        admin.set_verified(set(true)).await.unwrap();
        admin.set_verified(set(true)).await.unwrap();
        log_in(&server, "ada").await;
        let revoke = RevokeUserSessionsRequest { auth_token: auth_token.clone() };
        admin.revoke_user_sessions(revoke).await.unwrap();
        disable(&server, &auth_token).await;
        enable(&server, &auth_token).await;
        admin.start_password_reset(StartPasswordResetRequest { auth_token: auth_token.clone() }).await.unwrap();
        admin.delete_user(DeleteUserRequest { auth_token: auth_token.clone() }).await.unwrap();

        let expected = [
            "user_created", "user_updated", "authn_login_success", "session_expired", "user_disabled", "user_enabled",
            "authn_token_created", "user_deleted",
        ];
        let of_ada = ListAuditEventsRequest { auth_token, ..ListAuditEventsRequest::default() };
        for size in [1, 3, 100] {
            let mut found = events(&server, of_ada.clone(), size).await;
            // The repeated call changed nothing and was recorded as a read, and so were these lists.
            found.retain(|event| event.kind != "sensitive_read");
            let kinds: Vec<_> = found.iter().map(|event| event.kind.as_str()).collect();
            assert_eq!(kinds, expected, "{size}");
            assert!(found.iter().all(|event| event.caller == "anybody" && event.peer_ip == "127.0.0.1" && event.count == 1));
        }
        let some = ListAuditEventsRequest { kinds: vec!["user_disabled".into()], ..of_ada.clone() };
        assert_eq!(events(&server, some, 100).await.len(), 1);
        let others = ListAuditEventsRequest { caller: "bff".into(), ..of_ada };
        assert_eq!(events(&server, others, 100).await, []);
    }

    async fn the_user_command_does_what_admin_service_does(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        server.unverified_user("bob").await;
        let user = |arguments: &[&str]| {
            let output = server.command(&[&["user"], arguments].concat()).output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let tokens = log_in(&server, "ada").await;

        assert_eq!(user(&["end-sessions", "ada"]), "revoked 1 session\n");
        assert!(!introspect(&server, &tokens.access_token).await.active);
        assert!(user(&["disable", "ada"]).contains("disabled_at"));
        assert!(user(&["list", "--disabled"]).contains("\tdisabled\t"));
        assert_eq!(user(&["list", "--verified", "--text", "ADA@"]).lines().count(), 1);
        assert_eq!(user(&["list", "--unverified", "--since", "1h"]).lines().count(), 1);
        assert_eq!(user(&["list", "--until", "1h"]).lines().count(), 0);
        assert!(!user(&["enable", "ada"]).contains("disabled_at"));
        assert!(user(&["reset-password", "ada"]).contains("ada@example.com"));
        // After the verification: the notice of the disabling, and the link.
        let mails = wait_for_mails(&server, &address("ada"), 3).await;
        let token = mails.iter().rfind(|mail| mail.text.contains("?token=")).unwrap().token();
        let reset = ResetPasswordRequest { token, new_password: NEW_PASSWORD.into() };
        AccountServiceClient::new(server.channel().await).reset_password(reset).await.unwrap();
        let foreign = server.secret_key_file().with_extension("foreign");
        crate::support::private_file::write(&foreign, "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=");
        let mut command = server.command(&["user", "unverify", "ada"]);
        let output = command.env("KAIROS_IDENTITY_SECRET_KEY_FILE", &foreign).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("secret.key-file"), "{stderr}");
        assert!(user(&["show", "ada"]).contains("is_verified  true"), "a command that fails changes nothing");
        assert!(user(&["unverify", "ada"]).contains("is_verified  false"));
        assert!(user(&["verify", "ada"]).contains("is_verified  true"));
        assert!(user(&["verify", "ada"]).contains("is_verified  true"), "verifying a verified user is no error");
    }
}
