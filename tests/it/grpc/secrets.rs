//! No secret is in the log at any level, nor in plain text in the database.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use kairos_identity::{
    callers::ServiceToken,
    domain::hex,
    proto::{
        IntrospectTokenRequest, ListSessionsRequest, LoginRequest, RefreshSessionRequest, RegisterRequest,
        RequestPasswordResetRequest, ResendVerificationEmailRequest, VerifyEmailRequest,
        account_service_client::AccountServiceClient, identity_service_client::IdentityServiceClient,
        session_service_client::SessionServiceClient,
    },
};
use tonic::transport::{Channel, Endpoint};

use crate::support::{
    engine::TestDatabase,
    mail::{Mail, verification_token, wait_for_mails},
    people::{PASSWORD, address, by_username, login, registration},
    private_file,
    server::TestServer,
    sessions::{acting, with_bearer},
    tls::Certificate,
};

async fn over_tls(server: &TestServer, certificate: &Certificate) -> Channel {
    let endpoint = Endpoint::from_shared(format!("https://{}", server.address())).unwrap();
    endpoint.tls_config(certificate.trust()).unwrap().connect().await.unwrap()
}

const CANARY: &str = "canary-Password-7f3a-kettle";

on_both_engines! {
    async fn no_secret_is_logged_at_any_level(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).with_args(&["--log-level", "trace"]).start().await;
        let mut client = server.client().await;
        let request = RegisterRequest { password: CANARY.into(), ..registration("ada") };
        client.register(request.clone()).await.unwrap();
        client.register(request).await.unwrap_err();
        client.register(RegisterRequest { email: "ada".into(), password: CANARY.into(), ..registration("x") }).await.unwrap_err();
        let first = wait_for_mails(&server, &address("ada"), 1).await[0].token();
        client.resend_verification_email(ResendVerificationEmailRequest { email: address("ada"), return_mail_token: false }).await.unwrap();
        let mails = wait_for_mails(&server, &address("ada"), 2).await;
        let second = mails.iter().map(Mail::token).find(|token| *token != first).unwrap();
        client.verify_email(VerifyEmailRequest { token: first.clone() }).await.unwrap_err();
        client.verify_email(VerifyEmailRequest { token: second.clone() }).await.unwrap();
        let tokens = client.login(login("ada", CANARY)).await.unwrap().into_inner().tokens.unwrap();
        let mut sessions = SessionServiceClient::new(server.channel().await);
        let refresh = RefreshSessionRequest { refresh_token: tokens.refresh_token.clone() };
        let next = sessions.refresh_session(refresh).await.unwrap().into_inner().tokens.unwrap();
        sessions.list_sessions(acting(&next, ListSessionsRequest {})).await.unwrap();
        sessions.introspect_token(IntrospectTokenRequest { access_token: tokens.access_token.clone() }).await.unwrap();
        client.login(login("ada", &format!("{CANARY}!"))).await.unwrap_err();
        let hash = database.rows("SELECT password AS value FROM core_user").remove(0);

        // Log lines are written in order: once that of the last call is there, all earlier ones are.
        client.find_user(by_username("unknown")).await.unwrap_err();
        let log = server.logged("USER_NOT_FOUND").await;

        assert!(log.contains("Mail written") && log.contains("INVALID_CREDENTIALS"), "the log covers these calls");
        let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
        let (signed, signed_next) = (signature(&tokens.access_token), signature(&next.access_token));
        // Without the prefix `krt_`, which is no secret.
        let (refreshed, live) = (&tokens.refresh_token[4..], &next.refresh_token[4..]);
        for secret in [CANARY, &first, &second, &hash, "ada@example.com", &signed, &signed_next, refreshed, live] {
            assert!(!log.contains(secret), "{secret} is in the log");
        }
    }

    async fn no_service_token_is_logged_whether_known_or_unknown(engine: Engine) {
        let (known, unknown) = (ServiceToken::from_random([1; 32]), ServiceToken::from_random([2; 32]));
        let folder = tempfile::tempdir().unwrap();
        let callers = folder.path().join("callers.toml");
        let hash = known.hash();
        private_file::write(&callers, format!("[bff]\ntoken-hashes = [\"{hash}\"]\nmethods = [\"*\"]\nuser-fields = []\n"));
        let server = TestServer::builder(engine)
            .with_args(&["--log-level", "trace", "--callers", callers.to_str().unwrap()])
            .start()
            .await;
        let mut client = server.client().await;
        for token in [&unknown, &known] {
            let request = with_bearer(token.expose(), tonic::Request::new(by_username("unknown")));
            let refusal = client.find_user(request).await.unwrap_err();
            assert!(!format!("{refusal:?}").contains(&token.expose()[4..]));
        }

        let log = server.logged("USER_NOT_FOUND").await;

        assert!(log.contains("CALLER_UNKNOWN"), "the log covers both calls");
        for token in [&unknown, &known] {
            assert!(!log.contains(&token.expose()[4..]), "a token is in the log");
        }
    }

    async fn no_secret_from_the_settings_is_logged_or_returned(engine: Engine) {
        const MAIL_PASSWORD: &str = "canary-mail-5d1c";
        const DATABASE_PASSWORD: &str = "canary-database-9e2f";
        let database = TestDatabase::new(engine);
        let url = database.url().replace("postgres@", &format!("postgres:{DATABASE_PASSWORD}@"));
        assert_eq!(url.contains(DATABASE_PASSWORD), engine == crate::support::engine::Engine::Postgres);
        let certificate = Certificate::localhost();
        let (chain, key) = (certificate.certificate(), certificate.key());
        // No server listens on port 1, so the attempt to send the mail fails and the error is logged.
        let server = TestServer::on_url(url)
            .with_mail_url(&format!("smtp://kairos:{MAIL_PASSWORD}@127.0.0.1:1"))
            .with_env("KAIROS_IDENTITY_MAIL_INSECURE_PLAINTEXT", "true")
            .with_args(&["--log-level", "trace", "--tls-cert", chain.to_str().unwrap(), "--tls-key", key.to_str().unwrap()])
            .start()
            .await;
        let mut client = IdentityServiceClient::new(over_tls(&server, &certificate).await);
        client.register(registration("ada")).await.unwrap();
        let refusal = client.login(login("ada", PASSWORD)).await.unwrap_err();
        let log = server.logged("Mail delivery failed; retrying").await;

        let key = std::fs::read_to_string(key).unwrap();
        let secrets = [MAIL_PASSWORD, DATABASE_PASSWORD, server.secret_key().trim(), key.lines().nth(1).unwrap()].map(str::to_owned);
        for secret in secrets {
            assert!(!log.contains(&secret), "{secret} is in the log");
            assert!(!format!("{refusal:?}").contains(&secret), "{secret} is in an answer");
        }
    }

    async fn the_database_contains_no_plaintext_password_or_token(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        let mut client = server.client().await;
        let request = RegisterRequest { password: CANARY.into(), ..registration("ada") };
        client.register(request).await.unwrap();
        let verification = verification_token(&server, &address("ada")).await;
        let mut dumps = vec![database.dump()];
        client.verify_email(VerifyEmailRequest { token: verification.clone() }).await.unwrap();
        let tokens = client.login(LoginRequest { password: CANARY.into(), ..login("ada", "") }).await.unwrap();
        let tokens = tokens.into_inner().tokens.unwrap();
        let reset = RequestPasswordResetRequest { email: address("ada"), ..RequestPasswordResetRequest::default() };
        AccountServiceClient::new(server.channel().await).request_password_reset(reset).await.unwrap();
        let reset = wait_for_mails(&server, &address("ada"), 2).await[1].token();
        dumps.push(database.dump());

        assert!(dumps[0].contains("bcrypt_sha256$$2b$04$") && dumps[1].contains(&address("ada")), "{dumps:?}");
        let secret_bytes = |token: &str| {
            // The 32 random bytes of a token; those of a refresh token are at its end.
            let bytes = URL_SAFE_NO_PAD.decode(token.trim_start_matches("krt_")).unwrap_or_default();
            hex(&bytes[bytes.len().saturating_sub(32)..])
        };
        let secrets = [CANARY, &verification, &reset, &tokens.refresh_token, &tokens.access_token];
        for dump in dumps {
            let in_lower_case = dump.to_lowercase();
            for secret in secrets {
                let as_bytes = hex(secret.as_bytes());
                assert!(!dump.contains(secret) && !in_lower_case.contains(&as_bytes), "{secret}: {dump}");
            }
            for token in [&verification, &reset, &tokens.refresh_token] {
                let bytes = secret_bytes(token);
                assert_eq!(bytes.len(), 64, "{token}");
                assert!(!in_lower_case.contains(&bytes), "{token}: {dump}");
            }
        }
    }

    async fn the_token_of_a_mail_that_waits_is_stored_encrypted(engine: Engine) {
        let database = TestDatabase::new(engine);
        // No server listens on port 1, so the mail stays in the outbox with its token.
        let server = TestServer::on_url(database.url().to_owned()).with_mail_url("smtp://127.0.0.1:1").start().await;
        server.unverified_user("ada").await;

        let lengths = database.rows(
            "SELECT CAST(length(sealed_token) AS VARCHAR(9)) AS value FROM core_mail_outbox WHERE sealed_token IS NOT NULL",
        );

        // Bytes: version 1, key id 8, nonce 12, ciphertext 32, authentication tag 16.
        assert_eq!(lengths, ["69"]);
    }
}
