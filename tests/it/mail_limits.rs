//! What a stranger can make the service mail: no text of their own, no link, and no flood.

use std::time::Duration;

use kairos_identity::proto::{
    ConfirmEmailChangeRequest, RegisterRequest, RequestEmailChangeRequest, RequestPasswordResetRequest,
    ResendVerificationEmailRequest, ResetPasswordRequest, UpdateAccountRequest,
    account_service_client::AccountServiceClient,
};

use crate::support::{
    engine::TestDatabase,
    errors::violations,
    mail::{mails_to, wait_for_mails},
    people::{NEW_PASSWORD, PASSWORD, address, registration},
    server::TestServer,
    sessions::{acting, log_in},
    wait::until,
};

/// A name that an attacker registers with the address of another person.
const BAIT: &str = "your account was locked";

on_both_engines! {
    async fn no_mail_to_an_unverified_address_contains_the_username(engine: Engine) {
        let server = TestServer::start(engine).await;
        let mut client = server.client().await;
        let register = RegisterRequest { username: BAIT.into(), ..registration("ada") };
        client.register(register).await.unwrap();
        let email = address("ada");
        let resend = ResendVerificationEmailRequest { email: email.clone(), return_mail_token: false };
        client.resend_verification_email(resend).await.unwrap();
        let reset = RequestPasswordResetRequest { email: email.clone(), return_mail_token: false };
        AccountServiceClient::new(server.channel().await).request_password_reset(reset).await.unwrap();

        for mail in wait_for_mails(&server, &email, 3).await {
            assert!(mail.text.starts_with("Hello,") && !mail.text.contains(BAIT), "{mail:?}");
        }
    }

    async fn the_link_to_a_new_address_does_not_contain_the_username(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        let change = RequestEmailChangeRequest {
            current_password: PASSWORD.into(),
            new_email: address("other"),
            return_mail_token: false,
        };
        let mut accounts = AccountServiceClient::new(server.channel().await);
        accounts.request_email_change(acting(&tokens, change)).await.unwrap();

        let to_new = wait_for_mails(&server, &address("other"), 1).await;
        let notices = wait_for_mails(&server, &address("ada"), 2).await;

        assert!(to_new[0].text.starts_with("Hello,"), "{to_new:?}");
        assert!(notices.last().unwrap().text.starts_with("Hello ada,"), "{notices:?}");
    }

    async fn a_username_with_a_web_address_is_refused_and_an_existing_one_stays(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        let mut accounts = AccountServiceClient::new(server.channel().await);
        let rule = "must not contain a web address, such as https://, www. or name.com";
        for name in
            ["your account was locked: https://evil.example/unlock,", "www.evil.example", "evil.zz/x", "evil.com", "evil.museum", "192.0.2.1", "2001:db8::1", "evil．中国"]
        {
            let register = RegisterRequest { username: name.into(), ..registration("eve") };
            let refused = server.client().await.register(register).await.unwrap_err();
            assert_eq!(violations(&refused), [("username".to_owned(), rule.to_owned())], "{name}");
            let rename = UpdateAccountRequest { username: name.into(), update_mask: None };
            let refused = accounts.update_account(acting(&tokens, rename)).await.unwrap_err();
            assert_eq!(violations(&refused), [("username".to_owned(), rule.to_owned())], "{name}");
        }

        // As an earlier release accepted it.
        database.execute("UPDATE core_user SET username = 'evil.com', username_key = 'evil.com'");
        let same = UpdateAccountRequest { username: "evil.com".into(), update_mask: None };
        let kept = accounts.update_account(acting(&tokens, same)).await.unwrap().into_inner().user.unwrap();
        assert_eq!(kept.username, "evil.com");
    }

    async fn mails_that_others_cause_leave_the_owner_the_daily_mails(engine: Engine) {
        let server = TestServer::builder(engine)
            .with_env("KAIROS_IDENTITY_MAIL_DAILY_PER_ADDRESS_MAX", "2")
            .with_env("KAIROS_IDENTITY_VERIFICATION_RESENDS_MAX", "10")
            .start()
            .await;
        server.member("ada").await;
        let mut client = server.client().await;
        for number in 0..4 {
            let taken = RegisterRequest { email: address("ada"), ..registration(&format!("eve{number}")) };
            client.register(taken).await.unwrap_err();
        }
        server.logged("mail.daily-per-address-max").await;
        let mut accounts = AccountServiceClient::new(server.channel().await);
        let reset = RequestPasswordResetRequest { email: address("ada"), return_mail_token: false };
        accounts.request_password_reset(reset).await.unwrap();
        let is_mailed = |page: &str| mails_to(&server.mail_folder(), &address("ada")).iter().any(|mail| mail.text.contains(page));
        until("the reset link arrives", Duration::from_secs(10), async || is_mailed("/reset-password").then_some(())).await;

        // Now the requested links are used up too: one verified the email.
        let tokens = log_in(&server, "ada").await;
        let change = RequestEmailChangeRequest { current_password: PASSWORD.into(), new_email: address("eve"), return_mail_token: true };
        let token = accounts.request_email_change(acting(&tokens, change)).await.unwrap().into_inner().mail_token;
        accounts.confirm_email_change(ConfirmEmailChangeRequest { token }).await.unwrap();
        until("the undo link arrives", Duration::from_secs(10), async || is_mailed("/undo-email-change").then_some(())).await;
    }

    async fn requests_of_strangers_leave_the_owner_a_link_that_works(engine: Engine) {
        let server = TestServer::builder(engine)
            .with_env("KAIROS_IDENTITY_MAIL_DAILY_PER_ADDRESS_MAX", "3")
            .with_env("KAIROS_IDENTITY_VERIFICATION_RESENDS_MAX", "100")
            .with_env("KAIROS_IDENTITY_MAIL_POLL_INTERVAL", "50ms")
            .start()
            .await;
        server.member("ada").await;
        let mut accounts = AccountServiceClient::new(server.channel().await);
        let reset = || RequestPasswordResetRequest { email: address("ada"), return_mail_token: false };
        // One of three mails verified the email.
        for sent in 2..=3 {
            accounts.request_password_reset(reset()).await.unwrap();
            wait_for_mails(&server, &address("ada"), sent).await;
        }
        for _ in 0..3 {
            accounts.request_password_reset(reset()).await.unwrap();
        }
        server.logged("mail.daily-per-address-max").await;

        let mails = mails_to(&server.mail_folder(), &address("ada"));
        let newest = mails.iter().rfind(|mail| mail.text.contains("/reset-password")).unwrap();
        let request = ResetPasswordRequest { token: newest.token(), new_password: NEW_PASSWORD.to_owned() };
        accounts.reset_password(request).await.unwrap();
        assert_eq!(mails.len(), 3);
    }

    async fn mails_to_one_address_and_in_total_have_a_daily_limit(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned())
            .with_env("KAIROS_IDENTITY_MAIL_DAILY_PER_ADDRESS_MAX", "2")
            // Of five, one is kept for mails to verified users.
            .with_env("KAIROS_IDENTITY_MAIL_DAILY_TOTAL_MAX", "5")
            .with_env("KAIROS_IDENTITY_MAIL_POLL_INTERVAL", "50ms")
            .start()
            .await;
        let mut client = server.client().await;
        client.register(registration("ada")).await.unwrap();
        wait_for_mails(&server, &address("ada"), 1).await;
        for count in 2..=3 {
            let email = address("ada");
            client
                .resend_verification_email(ResendVerificationEmailRequest { email, return_mail_token: false })
                .await
                .unwrap();
            if count == 2 {
                wait_for_mails(&server, &address("ada"), 2).await;
            }
        }
        server.logged("mail.daily-per-address-max").await;
        for name in ["bob", "cyd", "dan"] {
            client.register(registration(name)).await.unwrap();
            // Each mail is sent before the next registration, so that the fifth is that to `dan`.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }

        wait_for_mails(&server, &address("cyd"), 1).await;
        assert_eq!(mails_to(&server.mail_folder(), &address("ada")).len(), 2);
        assert_eq!(mails_to(&server.mail_folder(), &address("bob")).len(), 1);
        assert!(mails_to(&server.mail_folder(), &address("dan")).is_empty(), "the fifth mail of the day waits");
        // The third mail to `ada` and the mail to `dan`.
        let waiting = "SELECT CAST(count(*) AS VARCHAR(9)) AS value FROM core_mail_outbox WHERE next_attempt_at IS NOT NULL";
        assert_eq!(database.rows(waiting), ["2"]);
    }
}
