//! `Register`.

use kairos_identity::proto::{
    RegisterRequest, UpdateAccountRequest, account_service_client::AccountServiceClient,
    identity_service_client::IdentityServiceClient,
};
use tonic::{Code, Request, transport::Endpoint};
use uuid::Uuid;

use crate::support::{
    errors::{assert_refused, violations},
    mail::{mails_to, wait_for_mails},
    people::{PASSWORD, address, registration},
    server::TestServer,
    sessions::{acting, log_in},
};

on_both_engines! {
    async fn a_mailed_link_uses_the_configured_base_url_and_ignores_host_headers(engine: Engine) {
        let server = TestServer::start(engine).await;
        let channel = Endpoint::from_shared(format!("http://{}", server.address()))
            .unwrap()
            .origin("http://evil.example".parse().unwrap())
            .connect()
            .await
            .unwrap();
        let mut request = Request::new(registration("ada"));
        for (name, value) in [
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-proto", "evil"),
            ("x-original-host", "evil.example"),
            ("forwarded", "host=evil.example;proto=https"),
            ("referer", "https://evil.example/"),
        ] {
            request.metadata_mut().insert(name, value.parse().unwrap());
        }
        IdentityServiceClient::new(channel).register(request).await.unwrap();

        let mail = wait_for_mails(&server, &address("ada"), 1).await.remove(0);
        assert!(mail.text.contains("http://localhost:50080/verify?token="), "{mail:?}");
        for file in std::fs::read_dir(server.mail_folder()).unwrap() {
            let raw = std::fs::read_to_string(file.unwrap().path()).unwrap();
            assert!(!raw.contains("evil"), "{raw}");
        }
    }

    async fn a_registered_user_gets_an_auth_token_and_a_mail(engine: Engine) {
        let server = TestServer::start(engine).await;
        let request = RegisterRequest { email: "ADA@Exämple.COM".into(), username: "  Ada   Lovelace ".into(), ..registration("ada") };

        let answer = server.client().await.register(request).await.unwrap().into_inner();

        let user = answer.user.unwrap();
        assert_eq!(Uuid::parse_str(&user.auth_token).unwrap().get_version_num(), 4);
        assert_eq!((user.username.as_str(), user.email.as_str()), ("Ada Lovelace", "ada@xn--exmple-cua.com"));
        assert!(!user.is_verified && user.created_at == user.updated_at && user.created_at.is_some());
        let mails = wait_for_mails(&server, &user.email, 1).await;
        assert_eq!(mails.len(), 1);
    }

    async fn all_invalid_fields_are_reported_at_once(engine: Engine) {
        let server = TestServer::start(engine).await;
        let request = RegisterRequest {
            username: "ada@home".into(),
            email: "ada".into(),
            password: "short".into(),
            request_id: "not-a-uuid".into(),
            return_mail_token: false,
        };

        let refusal = server.client().await.register(request).await.unwrap_err();

        assert_refused(&refusal, Code::InvalidArgument, "INVALID_FIELDS");
        let mut fields: Vec<_> = violations(&refusal).into_iter().map(|(field, _)| field).collect();
        fields.sort();
        assert_eq!(fields, ["email", "password", "request_id", "username"]);
        let empty = server.client().await.register(RegisterRequest::default()).await.unwrap_err();
        let mut fields: Vec<_> = violations(&empty).into_iter().map(|(field, _)| field).collect();
        fields.sort();
        assert_eq!(fields, ["email", "password", "username"]);
    }

    async fn a_short_long_or_guessable_password_is_refused_with_a_reason(engine: Engine) {
        let server = TestServer::start(engine).await;
        for (password, word) in [
            ("1234567", "at least 8"),
            ("password123", "is too easy to guess"),
            ("ada.lovelace", "is too easy to guess"),
            (&*"x".repeat(1_025), "1024"),
        ] {
            let request = RegisterRequest { password: password.into(), username: "ada lovelace".into(), ..registration("ada.lovelace") };
            let refusal = server.client().await.register(request).await.unwrap_err();
            assert_refused(&refusal, Code::InvalidArgument, "INVALID_FIELDS");
            let violations = violations(&refusal);
            assert_eq!(violations.len(), 1, "{violations:?}");
            assert!(violations[0].0 == "password" && violations[0].1.contains(word), "{violations:?}");
        }
    }

    async fn a_taken_email_and_a_taken_username_have_different_reasons(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.unverified_user("ada").await;
        let mut client = server.client().await;

        let same_email = RegisterRequest { username: "bob".into(), email: "ADA@example.COM".into(), ..registration("ada") };
        let same_name = RegisterRequest { username: "ADA".into(), ..registration("bob") };
        let both = registration("ada");

        assert_refused(&client.register(same_email).await.unwrap_err(), Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");
        assert_refused(&client.register(same_name).await.unwrap_err(), Code::AlreadyExists, "USERNAME_ALREADY_EXISTS");
        assert_refused(&client.register(both).await.unwrap_err(), Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");
        assert!(mails_to(&server.mail_folder(), &address("bob")).is_empty());
    }

    async fn a_repeated_request_id_returns_the_same_answer_without_a_second_mail(engine: Engine) {
        let server = TestServer::start(engine).await;
        let mut client = server.client().await;
        let request = RegisterRequest { request_id: Uuid::from_u128(7).to_string(), ..registration("ada") };

        let first = client.register(request.clone()).await.unwrap().into_inner();
        let respelt = RegisterRequest {
            email: "ADA@example.com".into(),
            username: "ADA".into(),
            request_id: request.request_id.to_uppercase(),
            ..request.clone()
        };
        let second = client.register(respelt).await.unwrap().into_inner();

        assert_eq!(first, second);
        for other in [
            RegisterRequest { email: address("bob"), ..request.clone() },
            RegisterRequest { username: "bob".into(), ..request.clone() },
        ] {
            let refusal = client.register(other).await.unwrap_err();
            assert_refused(&refusal, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(violations(&refusal)[0].0, "request_id");
        }
        server.unverified_user("last").await;
        wait_for_mails(&server, &address("last"), 1).await;
        assert_eq!(mails_to(&server.mail_folder(), &address("ada")).len(), 1);

        // The sender of the request need not be the user any more: it gets no later email or username.
        let verified = server.command(&["user", "verify", "ada"]).output().unwrap();
        assert!(verified.status.success(), "{verified:?}");
        let tokens = log_in(&server, "ada").await;
        let renamed = UpdateAccountRequest { username: "lovelace".into(), update_mask: None };
        let mut account = AccountServiceClient::new(server.channel().await);
        account.update_account(acting(&tokens, renamed)).await.unwrap();
        let refusal = client.register(request).await.unwrap_err();
        assert_eq!(violations(&refusal)[0].0, "request_id");
    }

    async fn a_password_is_used_exactly_as_received(engine: Engine) {
        let server = TestServer::start(engine).await;
        let long = "long quiet river ".repeat(30);
        // Each password with what another service might make of it: by trimming, normalizing or cutting it.
        for (number, (password, altered)) in [
            (" leading and trailing spaces ".to_owned(), "leading and trailing spaces ".to_owned()),
            (" leading and trailing spaces ".to_owned(), " leading and trailing spaces".to_owned()),
            ("e\u{301}clair-at-the-\u{1F980}-bar".to_owned(), "\u{e9}clair-at-the-\u{1F980}-bar".to_owned()),
            (format!("{PASSWORD}\0after a zero byte"), PASSWORD.to_owned()),
            (format!("{long}Z"), long),
        ]
        .into_iter()
        .enumerate()
        {
            let name = format!("user{number}");
            let request = RegisterRequest { password: password.clone(), ..registration(&name) };
            let mut client = server.client().await;
            client.register(request).await.unwrap();

            // The password is right: only then is EMAIL_NOT_VERIFIED returned.
            let login = crate::support::people::login(&name, &password);
            assert_refused(&client.login(login).await.unwrap_err(), Code::PermissionDenied, "EMAIL_NOT_VERIFIED");
            let login = crate::support::people::login(&name, &altered);
            assert_refused(&client.login(login).await.unwrap_err(), Code::Unauthenticated, "INVALID_CREDENTIALS");
        }
    }
}
