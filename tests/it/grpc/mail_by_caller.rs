//! Callers that mail links themselves: the right `receives-mail-tokens`, the returned tokens, and that the
//! service does not mail these links too.

use kairos_identity::{
    callers::ServiceToken,
    proto::{
        ConfirmEmailChangeRequest, RegisterRequest, RequestEmailChangeRequest, RequestPasswordResetRequest,
        ResendVerificationEmailRequest, ResetPasswordRequest, VerifyEmailRequest,
        account_service_client::AccountServiceClient, identity_service_client::IdentityServiceClient,
    },
};
use tonic::{Code, service::interceptor::InterceptedService, transport::Channel};

use crate::support::{
    callers::{Bearer, CallersFile, token},
    engine::TestDatabase,
    errors::assert_refused,
    mail::{mails_to, newest_mail, wait_for_mails},
    people::{PASSWORD, address, login, registration},
    server::TestServer,
    sessions::acting,
};

async fn identity(
    server: &TestServer,
    caller: &ServiceToken,
) -> IdentityServiceClient<InterceptedService<Channel, Bearer>> {
    IdentityServiceClient::with_interceptor(server.channel().await, Bearer(Some(caller.clone())))
}

async fn accounts(
    server: &TestServer,
    caller: &ServiceToken,
) -> AccountServiceClient<InterceptedService<Channel, Bearer>> {
    AccountServiceClient::with_interceptor(server.channel().await, Bearer(Some(caller.clone())))
}

/// How the token of the link of a registration gets to the user: values of `return_mail_token`.
const RETURNED_TO_CALLER: bool = true;
const MAILED_BY_SERVICE: bool = false;

fn register(name: &str, return_mail_token: bool) -> RegisterRequest {
    let request_id = "5f1c1c9e-8b51-4c53-9b36-0d4a3d1c9b11".to_owned();
    RegisterRequest { request_id, return_mail_token, ..registration(name) }
}

fn resend(name: &str) -> ResendVerificationEmailRequest {
    ResendVerificationEmailRequest { email: address(name), return_mail_token: true }
}

fn request_reset(name: &str) -> RequestPasswordResetRequest {
    RequestPasswordResetRequest { email: address(name), return_mail_token: true }
}

fn email_change(name: &str) -> RequestEmailChangeRequest {
    RequestEmailChangeRequest {
        current_password: PASSWORD.to_owned(),
        new_email: address(name),
        return_mail_token: true,
    }
}

on_both_engines! {
    async fn a_caller_with_receives_mail_tokens_gets_each_token(engine: Engine) {
        let bff = token(1);
        let file = CallersFile::new(&[("bff", &bff, "*", "*")]);
        file.add("receives-mail-tokens = true");
        let server = file.serve(engine).await;
        let (mut identity, mut accounts) = (identity(&server, &bff).await, accounts(&server, &bff).await);

        let first = identity.register(register("ada", RETURNED_TO_CALLER)).await.unwrap().into_inner().mail_token;
        let again = identity.register(register("ada", RETURNED_TO_CALLER)).await.unwrap().into_inner();
        assert_eq!((again.mail_token.as_str(), again.user.is_some()), ("", true), "a repeated registration returns no token, since only its hash is stored");
        let second = identity.resend_verification_email(resend("ada")).await.unwrap().into_inner().mail_token;
        let refusal = identity.verify_email(VerifyEmailRequest { token: first }).await.unwrap_err();
        assert_refused(&refusal, Code::InvalidArgument, "INVALID_TOKEN");
        identity.verify_email(VerifyEmailRequest { token: second }).await.unwrap();

        let verified = identity.resend_verification_email(resend("ada")).await.unwrap().into_inner();
        let unknown = accounts.request_password_reset(request_reset("eve")).await.unwrap().into_inner();
        assert_eq!((verified.mail_token.as_str(), unknown.mail_token.as_str()), ("", ""));

        let link = accounts.request_password_reset(request_reset("ada")).await.unwrap().into_inner().mail_token;
        let reset = ResetPasswordRequest { token: link, new_password: PASSWORD.to_owned() };
        accounts.reset_password(reset).await.unwrap();
        let tokens = identity.login(login("ada", PASSWORD)).await.unwrap().into_inner().tokens.unwrap();
        let link = accounts.request_email_change(acting(&tokens, email_change("ada2"))).await.unwrap().into_inner().mail_token;
        accounts.confirm_email_change(ConfirmEmailChangeRequest { token: link }).await.unwrap();

        // The service still mails the notices: of the reset, of the requested email change and of the
        // completed one, whose link undoes the change.
        let mails = wait_for_mails(&server, &address("ada"), 3).await;
        let links: Vec<_> = mails.iter().filter(|mail| mail.text.contains("?token=")).collect();
        assert!(links.len() == 1 && links[0].text.contains("/undo-email-change?token="), "{mails:?}");
        assert_eq!((mails.len(), mails_to(&server.mail_folder(), &address("ada2")).len()), (3, 0));
        let trail = String::from_utf8(server.command(&["audit"]).output().unwrap().stdout).unwrap();
        assert_eq!(trail.matches("mailed by the caller").count(), 4, "{trail}");
    }

    async fn other_callers_are_refused_mail_tokens(engine: Engine) {
        let agent = token(1);
        let file = CallersFile::new(&[("agent", &agent, "*", "*")]);
        let database = TestDatabase::new(engine);
        let server = file.serve_on(TestServer::on_url(database.url().to_owned())).await;
        let (mut identity, mut accounts) = (identity(&server, &agent).await, accounts(&server, &agent).await);

        let refused = identity.register(register("ada", RETURNED_TO_CALLER)).await.unwrap_err();
        assert_refused(&refused, Code::PermissionDenied, "CALLER_NOT_ALLOWED");
        let registered = identity.register(register("ada", MAILED_BY_SERVICE)).await.unwrap().into_inner();
        assert_eq!(registered.mail_token, "");
        let link = newest_mail(&server, &address("ada"), 1).await.token();
        let refusal = identity.resend_verification_email(resend("ada")).await.unwrap_err();
        assert_refused(&refusal, Code::PermissionDenied, "CALLER_NOT_ALLOWED");
        identity.verify_email(VerifyEmailRequest { token: link }).await.unwrap();
        let refusal = accounts.request_password_reset(request_reset("ada")).await.unwrap_err();
        assert_refused(&refusal, Code::PermissionDenied, "CALLER_NOT_ALLOWED");
        let tokens = identity.login(login("ada", PASSWORD)).await.unwrap().into_inner().tokens.unwrap();
        let refusal = accounts.request_email_change(acting(&tokens, email_change("ada2"))).await.unwrap_err();
        assert_refused(&refusal, Code::PermissionDenied, "CALLER_NOT_ALLOWED");

        assert_eq!(database.count("core_mail_token"), 1, "a refused call stores no link");
    }

    async fn a_token_returned_to_the_caller_is_not_in_the_outbox_or_the_log(engine: Engine) {
        let bff = token(1);
        let file = CallersFile::new(&[("bff", &bff, "*", "*")]);
        file.add("receives-mail-tokens = true");
        let database = TestDatabase::new(engine);
        let server = file.serve_on(TestServer::on_url(database.url().to_owned())).await;
        let mut identity = identity(&server, &bff).await;
        let token = identity.register(register("ada", RETURNED_TO_CALLER)).await.unwrap().into_inner().mail_token;
        assert_eq!((database.count("core_mail_token"), database.count("core_mail_outbox")), (1, 0));
        assert!(!server.log().contains(&token), "the token is not in the log");
    }
}
