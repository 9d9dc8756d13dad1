//! Emails in several spellings: each mailbox has one account, also if an earlier release stored its email in
//! another form.

use kairos_identity::proto::{
    LoginRequest, RegisterRequest, RequestPasswordResetRequest, VerifyEmailRequest,
    account_service_client::AccountServiceClient,
};
use tonic::Code;

use crate::support::{
    engine::TestDatabase,
    errors::assert_refused,
    mail::{verification_token, wait_for_mails},
    people::{PASSWORD, by_email, registration},
    program::stdout,
    server::TestServer,
};

on_both_engines! {
    async fn all_spellings_of_a_sigma_are_one_mailbox(engine: Engine) {
        let server = TestServer::start(engine).await;
        let mut client = server.client().await;
        let first = RegisterRequest { email: "ΝΙΚΟΣ.Α1Σ@example.com".into(), ..registration("ada") };
        let user = client.register(first).await.unwrap().into_inner().user.unwrap();

        assert_eq!(user.email, "νικος.α1σ@example.com");
        for (number, email) in ["νικος.α1σ@example.com", "νικοσ.α1ς@example.com", "ΝΙΚΟς.Α1Σ@EXAMPLE.com"].iter().enumerate() {
            let again = RegisterRequest { email: (*email).into(), ..registration(&format!("bob{number}")) };
            assert_refused(&client.register(again).await.unwrap_err(), Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");
            assert_eq!(client.find_user(by_email(email)).await.unwrap().into_inner().user.unwrap(), user);
        }
    }

    async fn a_user_whose_email_was_stored_in_another_form_is_found(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        let mut client = server.client().await;
        let register = RegisterRequest { email: "νικος@example.com".into(), ..registration("ada") };
        client.register(register.clone()).await.unwrap();
        let token = verification_token(&server, "νικος@example.com").await;
        client.verify_email(VerifyEmailRequest { token }).await.unwrap();
        // As earlier releases stored this spelling.
        database.execute("UPDATE core_user SET email = 'νικοσ@example.com'");

        for email in ["νικοσ@example.com", "ΝΙΚΟΣ@example.com", "νικος@example.com"] {
            client.login(LoginRequest { email: email.into(), password: PASSWORD.into() }).await.unwrap();
            let again = RegisterRequest { email: email.into(), username: "bob".into(), ..register.clone() };
            assert_refused(&client.register(again).await.unwrap_err(), Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");
        }
        // What is counted for one spelling is counted for the account, and cleared with it.
        for _ in 0..10 {
            let wrong = LoginRequest { email: "ΝΙΚΟΣ@example.com".into(), password: "wrong".into() };
            client.login(wrong).await.unwrap_err();
        }
        let right = LoginRequest { email: "νικος@example.com".into(), password: PASSWORD.into() };
        let refusal = client.login(right.clone()).await.unwrap_err();
        assert_refused(&refusal, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
        let unlocked = server.command(&["user", "unlock", "νικος@example.com"]).output().unwrap();
        assert!(unlocked.status.success(), "{unlocked:?}");
        client.login(right).await.unwrap();

        let reset = RequestPasswordResetRequest { email: "ΝΙΚΟΣ@example.com".into(), return_mail_token: false };
        AccountServiceClient::new(server.channel().await).request_password_reset(reset).await.unwrap();
        // Three notices of the attempts to register, and the link.
        let mails = wait_for_mails(&server, "νικοσ@example.com", 4).await;
        assert!(mails.iter().any(|mail| mail.text.contains("reset-password?token=")), "{mails:?}");
    }

    async fn an_abandoned_registration_in_another_form_does_not_hold_its_email(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        let mut client = server.client().await;
        let register = RegisterRequest { email: "νικος@example.com".into(), ..registration("ada") };
        client.register(register.clone()).await.unwrap();
        database.execute("UPDATE core_user SET email = 'νικοσ@example.com', created_at = '2026-01-01 00:00:00.000000', \
             updated_at = '2026-01-01 00:00:00.000000'");

        let again = RegisterRequest { username: "bob".into(), ..register };
        let user = client.register(again).await.unwrap().into_inner().user.unwrap();
        assert_eq!((user.username.as_str(), user.email.as_str()), ("bob", "νικος@example.com"));
        assert_eq!(database.rows("SELECT username AS value FROM core_user"), ["bob"]);
    }

    async fn operators_find_both_forms_of_a_sigma_and_nothing_else(engine: Engine) {
        let server = TestServer::start(engine).await;
        let mut client = server.client().await;
        client.register(RegisterRequest { email: "νικος@example.com".into(), ..registration("ada") }).await.unwrap();
        server.unverified_user("bob").await;
        for text in ["σ", "ς", "κοσ@", "ΚΟΣ"] {
            let found = server.command(&["user", "list", "--text", text]).output().unwrap();
            let found = stdout(&found);
            assert!(found.lines().count() == 1 && found.contains("\tada\n"), "{text}: {found}");
        }
    }
}
