//! `UndoEmailChange`.

use kairos_identity::proto::{
    ChangePasswordRequest, ConfirmEmailChangeRequest, DisableUserRequest, EnableUserRequest,
    RequestEmailChangeRequest, RequestPasswordResetRequest, ResetPasswordRequest, SetVerifiedRequest,
    UndoEmailChangeRequest, VerifyEmailRequest, account_service_client::AccountServiceClient,
    admin_service_client::AdminServiceClient,
};
use tonic::{Code, Status, transport::Channel};

use crate::support::{
    engine::TestDatabase,
    errors::{assert_refused, violations},
    mail::{link_to, mails_to, newest_mail},
    people::{NEW_PASSWORD, PASSWORD, address, by_email, login, registration},
    server::TestServer,
    sessions::{acting, age, introspect, log_in},
    tools::RACING_CALLS,
    wait::until,
};

/// The last segment of the path of the link.
const PAGE: &str = "undo-email-change";

async fn client(server: &TestServer) -> AccountServiceClient<Channel> {
    AccountServiceClient::new(server.channel().await)
}

/// Changes the email of the user `from` to that of `to`. Returns the token of the link that undoes it.
async fn change_email(server: &TestServer, from: &str, to: &str, password: &str) -> String {
    let tokens =
        server.client().await.login(login(from, password)).await.unwrap().into_inner().tokens.unwrap();
    let request = RequestEmailChangeRequest {
        current_password: password.to_owned(),
        new_email: address(to),
        return_mail_token: true,
    };
    let link = client(server).await.request_email_change(acting(&tokens, request)).await.unwrap();
    let token = link.into_inner().mail_token;
    client(server).await.confirm_email_change(ConfirmEmailChangeRequest { token }).await.unwrap();
    link_to(server, &address(from), PAGE).await
}

async fn undo(server: &TestServer, token: &str) -> Result<String, Status> {
    let request = UndoEmailChangeRequest { token: token.to_owned() };
    Ok(client(server).await.undo_email_change(request).await?.into_inner().user.unwrap().email)
}

#[track_caller]
fn assert_invalid(answer: &Result<String, Status>) {
    assert_refused(answer.as_ref().unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
}

on_both_engines! {
    async fn an_email_change_is_undone_once_from_the_old_address(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await;
        let token = change_email(&server, "ada", "eve", PASSWORD).await;
        let intruder = log_in(&server, "eve").await;
        let request = RequestPasswordResetRequest { email: address("eve"), return_mail_token: true };
        let reset = client(&server).await.request_password_reset(request).await.unwrap().into_inner().mail_token;

        assert_eq!(undo(&server, &token).await.unwrap(), address("ada"));

        let found = server.client().await.find_user(by_email(&address("ada"))).await.unwrap().into_inner().user.unwrap();
        assert_eq!((&found.auth_token, found.is_verified), (&ada.auth_token, true));
        server.client().await.find_user(by_email(&address("eve"))).await.unwrap_err();
        assert!(!introspect(&server, &intruder.access_token).await.active);
        let request = ResetPasswordRequest { token: reset, new_password: NEW_PASSWORD.to_owned() };
        assert_refused(&client(&server).await.reset_password(request).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
        let notice = newest_mail(&server, &address("eve"), 1).await;
        assert!(notice.text.contains("no longer belongs") && !notice.text.contains("token="), "{notice:?}");
        let restored = async || mails_to(&server.mail_folder(), &address("ada")).into_iter().find(|mail| mail.text.contains("was undone"));
        until("the old address is notified", std::time::Duration::from_secs(10), restored).await;
        assert_invalid(&undo(&server, &token).await);
        log_in(&server, "ada").await;

        let empty = undo(&server, "").await.unwrap_err();
        assert_refused(&empty, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(violations(&empty)[0].0, "token");
        for unknown in ["x", &ada.auth_token, &"A".repeat(43)] {
            assert_invalid(&undo(&server, unknown).await);
        }
        let log = server.logged("email, undone").await;
        assert!(log.lines().any(|line| line.contains("user_updated") && line.contains(&ada.auth_token)));
    }

    async fn an_intruder_cannot_void_the_link_that_undoes_the_change(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        // The intruder has the password of ada and changes the email to eve's.
        let undo_of_owner = change_email(&server, "ada", "eve", PASSWORD).await;
        let intruders_password = NEW_PASSWORD.to_owned();
        let tokens = log_in(&server, "eve").await;
        let change = ChangePasswordRequest { current_password: PASSWORD.to_owned(), new_password: intruders_password.clone() };
        client(&server).await.change_password(acting(&tokens, change)).await.unwrap();
        let request = RequestPasswordResetRequest { email: address("eve"), return_mail_token: true };
        let token = client(&server).await.request_password_reset(request).await.unwrap().into_inner().mail_token;
        client(&server).await.reset_password(ResetPasswordRequest { token, new_password: intruders_password.clone() }).await.unwrap();
        // A later change and its undoing.
        let undo_of_intruder = change_email(&server, "eve", "mallory", &intruders_password).await;
        assert_eq!(undo(&server, &undo_of_intruder).await.unwrap(), address("eve"));
        let undo_of_intruder = change_email(&server, "eve", "mallory2", &intruders_password).await;

        assert_eq!(undo(&server, &undo_of_owner).await.unwrap(), address("ada"));

        // The undoing by the owner voids the later link of the intruder.
        assert_invalid(&undo(&server, &undo_of_intruder).await);
    }

    async fn disabling_the_account_of_an_intruder_keeps_the_link_that_undoes_the_change(engine: Engine) {
        let server = TestServer::start(engine).await;
        let auth_token = server.member("ada").await.auth_token;
        let token = change_email(&server, "ada", "eve", PASSWORD).await;
        let mut admin = AdminServiceClient::new(server.channel().await);
        admin.disable_user(DisableUserRequest { auth_token: auth_token.clone() }).await.unwrap();
        assert_invalid(&undo(&server, &token).await);
        let unverified = SetVerifiedRequest { auth_token: auth_token.clone(), is_verified: Some(false) };
        admin.set_verified(unverified).await.unwrap();
        admin.enable_user(EnableUserRequest { auth_token }).await.unwrap();

        assert_eq!(undo(&server, &token).await.unwrap(), address("ada"));
    }

    async fn an_undo_link_works_for_72_hours_unless_the_old_address_is_taken(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        for name in ["ada", "bob", "cyd"] {
            server.member(name).await;
        }
        let of_ada = change_email(&server, "ada", "ada2", PASSWORD).await;
        let of_bob = change_email(&server, "bob", "bob2", PASSWORD).await;
        let of_cyd = change_email(&server, "cyd", "cyd2", PASSWORD).await;
        // The old addresses are free: another user may register with one, and verify it.
        let other = |name: &str| kairos_identity::proto::RegisterRequest { username: format!("{name} other"), return_mail_token: true, ..registration(name) };
        server.client().await.register(other("ada")).await.unwrap();
        let mail_token = server.client().await.register(other("bob")).await.unwrap().into_inner().mail_token;
        server.client().await.verify_email(VerifyEmailRequest { token: mail_token }).await.unwrap();

        age(&database, "core_mail_token", "expires_at", 72 * 3_600 - 120);
        // A user who has not verified the address gives way.
        assert_eq!(undo(&server, &of_ada).await.unwrap(), address("ada"));
        let refusal = undo(&server, &of_bob).await.unwrap_err();
        assert_refused(&refusal, Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");
        age(&database, "core_mail_token", "expires_at", 121);
        assert_invalid(&undo(&server, &of_cyd).await);
    }

    async fn only_one_of_64_concurrent_undos_succeeds(engine: Engine) {
        let server = TestServer::start(engine).await;
        let second_instance = server.second_instance().await;
        server.member("ada").await;
        let token = change_email(&server, "ada", "eve", PASSWORD).await;
        let mut calls = tokio::task::JoinSet::new();
        for number in 0..RACING_CALLS {
            let mut client = client(if number % 2 == 0 { &server } else { &second_instance }).await;
            let request = UndoEmailChangeRequest { token: token.clone() };
            calls.spawn(async move { client.undo_email_change(request).await });
        }
        let answers = calls.join_all().await;
        assert_eq!(answers.iter().flatten().count(), 1);
        for refusal in answers.into_iter().filter_map(Result::err) {
            assert_refused(&refusal, Code::InvalidArgument, "INVALID_TOKEN");
        }
    }
}
