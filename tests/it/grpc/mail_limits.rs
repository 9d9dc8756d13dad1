//! Limits on mails: strangers neither flood a mailbox nor use up the limits of its owner.

use std::time::Duration;

use kairos_identity::proto::{
    RequestEmailChangeRequest, RequestPasswordResetRequest, ResendVerificationEmailRequest,
    ResetPasswordRequest, SessionTokens, UpdateAccountRequest, account_service_client::AccountServiceClient,
};
use tonic::{Code, Request, Status, transport::Channel};

use crate::support::{
    engine::TestDatabase,
    errors::assert_refused,
    mail::{mails_to, newest_mail, wait_for_mails},
    people::{NEW_PASSWORD, PASSWORD, address, registration},
    server::TestServer,
    sessions::{acting, age, log_in},
    wait::until,
};

async fn accounts(server: &TestServer) -> AccountServiceClient<Channel> {
    AccountServiceClient::new(server.channel().await)
}

fn username_change(tokens: &SessionTokens, username: &str) -> Request<UpdateAccountRequest> {
    acting(tokens, UpdateAccountRequest { username: username.to_owned(), update_mask: None })
}

async fn request_email_change(server: &TestServer, tokens: &SessionTokens, new: &str) -> Result<(), Status> {
    let request = RequestEmailChangeRequest {
        current_password: PASSWORD.to_owned(),
        new_email: new.to_owned(),
        return_mail_token: false,
    };
    accounts(server).await.request_email_change(acting(tokens, request)).await.map(drop)
}

async fn request_reset(server: &TestServer, email: &str) {
    let request = RequestPasswordResetRequest { email: email.to_owned(), return_mail_token: false };
    accounts(server).await.request_password_reset(request).await.unwrap();
}

async fn request_resend(server: &TestServer, email: &str) {
    let request = ResendVerificationEmailRequest { email: email.to_owned(), return_mail_token: false };
    server.client().await.resend_verification_email(request).await.unwrap();
}

on_both_engines! {
    async fn strangers_do_not_use_up_the_limits_of_a_user(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        server.member("ada").await;
        server.member("eve").await;
        let (ada, eve) = (log_in(&server, "ada").await, log_in(&server, "eve").await);
        for number in 0..5 {
            let mut taken = registration(&format!("eve{number}"));
            taken.email = address("ada");
            server.client().await.register(taken).await.unwrap_err();
            for email in [&address("ada"), "new@example.com"] {
                request_resend(&server, email).await;
                request_reset(&server, email).await;
            }
        }
        for _ in 0..3 {
            request_email_change(&server, &eve, "new@example.com").await.unwrap();
        }

        accounts(&server).await.update_account(username_change(&ada, "Ada Lovelace")).await.unwrap();
        request_email_change(&server, &ada, "new@example.com").await.unwrap();
        request_reset(&server, &address("ada")).await;

        let mailed = "SELECT o.kind AS value FROM core_mail_outbox o JOIN core_user u ON u.id = o.user_id \
            WHERE u.username = 'Ada Lovelace' AND o.kind = 'confirm_email_change' AND o.sent_at IS NOT NULL";
        let is_mailed = async || (database.rows(mailed).len() == 1).then_some(());
        until("the link for the new address is mailed", Duration::from_secs(10), is_mailed).await;
        server.logged("LINK_ALREADY_MAILED").await;
        // A requested link is mailed in the background, within a second after the answer.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        // One of the reset links in the mailbox works: the newest one, also if a stranger requested it.
        let mut is_reset = false;
        for mail in mails_to(&server.mail_folder(), &address("ada")).iter().filter(|mail| mail.text.contains("/reset-password")) {
            let request = ResetPasswordRequest { token: mail.token(), new_password: NEW_PASSWORD.to_owned() };
            is_reset |= accounts(&server).await.reset_password(request).await.is_ok();
        }
        assert!(is_reset);
    }

    async fn beyond_the_limit_a_link_is_mailed_once_the_last_one_is_half_expired(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        server.member("ada").await;
        for sent in 0..3 {
            request_reset(&server, &address("ada")).await;
            wait_for_mails(&server, &address("ada"), 2 + sent).await;
        }
        request_reset(&server, &address("ada")).await;
        server.logged("LINK_ALREADY_MAILED").await;
        assert_eq!(mails_to(&server.mail_folder(), &address("ada")).len(), 4);

        // Reset links expire after 20 minutes.
        for column in ["created_at", "expires_at"] {
            age(&database, "core_mail_token", column, 10 * 60 + 1);
        }
        request_reset(&server, &address("ada")).await;
        let token = newest_mail(&server, &address("ada"), 5).await.token();
        let reset = ResetPasswordRequest { token, new_password: NEW_PASSWORD.to_owned() };
        accounts(&server).await.reset_password(reset).await.unwrap();

        // A used link does not count as one that still works. Mail 6 is the notice of the reset.
        request_reset(&server, &address("ada")).await;
        wait_for_mails(&server, &address("ada"), 7).await;
    }

    async fn the_own_changes_of_a_user_have_separate_limits(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        server.member("bob").await;
        let (ada, bob) = (log_in(&server, "ada").await, log_in(&server, "bob").await);
        let mut client = accounts(&server).await;
        for number in 0..3 {
            client.update_account(username_change(&ada, &format!("ada {number}"))).await.unwrap();
        }
        let refusal = client.update_account(username_change(&ada, "ada again")).await.unwrap_err();
        assert_refused(&refusal, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");

        for number in 0..3 {
            request_email_change(&server, &ada, &format!("new{number}@example.com")).await.unwrap();
        }
        let refusal = request_email_change(&server, &ada, "new3@example.com").await.unwrap_err();
        assert_refused(&refusal, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");

        client.update_account(username_change(&bob, "robert")).await.unwrap();
        request_email_change(&server, &bob, "new0@example.com").await.unwrap();
    }
}
