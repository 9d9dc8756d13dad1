//! Verification links that Django mailed: they contain the `auth_token` of the user.

use kairos_identity::proto::{LoginRequest, RegisterRequest, ResolveTokenRequest, VerifyEmailRequest};
use tonic::Code;

use super::Django;
use crate::support::{
    engine::Engine,
    errors::assert_refused,
    http::{get, post, request},
    people::{PASSWORD, registration},
    program::{stderr, stdout},
    server::TestServer,
};

const UNTIL: &str = "KAIROS_IDENTITY_VERIFICATION_ACCEPT_AUTH_TOKEN_UNTIL";

async fn start_with_import(engine: Engine, until: &str) -> (TestServer, Django) {
    let server = TestServer::builder(engine).with_env(UNTIL, until).start().await;
    // The first of three bulk users is verified, the others are not.
    let django = Django::small(Engine::Sqlite, 3);
    let output = server.command(&["import", "django", "--from", django.url()]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    (server, django)
}

async fn open_link(server: &TestServer, token: &str) -> Result<(), tonic::Status> {
    let request = VerifyEmailRequest { token: token.to_owned() };
    server.client().await.verify_email(request).await.map(drop)
}

/// Opens a link in a browser, and returns the URL to which the button of its page sends the token.
fn target_of_button(server: &TestServer, link: &str) -> String {
    let page = get(server.http_address(), link);
    assert_eq!(page.status, 200, "{link}: {page:?}");
    // The templates escape slashes.
    let body = page.body.replace("&#x2f;", "/");
    let (_, rest) = body.split_once("action=\"").unwrap();
    let (action, _) = rest.split_once('"').unwrap();
    let base = url::Url::parse(&format!("http://kairos.test{link}")).unwrap();
    let (_, rest) = body.split_once("<link rel=\"stylesheet\" href=\"").unwrap();
    let (style, _) = rest.split_once('"').unwrap();
    assert_eq!(base.join(style).unwrap().path(), "/style.css");
    base.join(action).unwrap().path().to_owned()
}

async fn is_verified(server: &TestServer, token: &str) -> bool {
    let request = ResolveTokenRequest { auth_token: token.to_owned() };
    server.client().await.resolve_token(request).await.unwrap().into_inner().user.unwrap().is_verified
}

on_both_engines! {
    async fn the_page_takes_old_links_until_the_date_and_only_its_button_verifies(engine: Engine) {
        let (server, django) = start_with_import(engine, "2999-01-01T00:00:00Z").await;
        let http = server.http_address();
        for (row, path) in [(1, "/verify?token=UUID"), (2, "/api/verify/UUID/")] {
            let token = &django.truth[row].auth_token;
            let link = path.replace("UUID", token);
            // Mail scanners open every link.
            for method in ["GET", "HEAD"] {
                let opened = request(http, method, &link, &[], "");
                assert_eq!(opened.status, 200, "{link}");
                assert_eq!(opened.body.contains(token), method == "GET", "{link}");
            }
            assert!(!is_verified(&server, token).await);
            assert_eq!(request(http, "POST", &link, &[], "").status, if row == 1 { 415 } else { 405 });

            assert_eq!(target_of_button(&server, &link), "/verify");
            let done = post(http, "/verify", &[("token", token)]);
            assert!(done.status == 200 && done.body.contains("Your address is confirmed"), "{done:?}");
            assert!(is_verified(&server, token).await);
            let again = post(http, "/verify", &[("token", token)]);
            assert!(again.status == 200 && again.body.contains("already confirmed"), "{again:?}");
        }
        assert_eq!(target_of_button(&server, &format!("/api/verify/{}", django.truth[1].auth_token.replace('-', ""))), "/verify");
        assert_eq!(get(http, "/api/verify/x/").status, 404);
        // Such a token opens no other page.
        for page in ["reset-password", "confirm-email", "undo-email-change"] {
            assert_eq!(get(http, &format!("/{page}?token={}", django.truth[1].auth_token)).status, 400, "{page}");
        }
        let stranger = post(http, "/verify", &[("token", "3fbf2702-352c-4d48-a5e5-56a4d16d9f56")]);
        assert!(stranger.status == 400 && stranger.body.contains("This link does not work"), "{stranger:?}");
        server.logged("Accepted a link with an auth_token").await;
        let audit = stdout(&server.command(&["audit", "--kind", "user_updated"]).output().unwrap());
        let lines: Vec<_> = audit.lines().filter(|line| line.contains("auth_token link")).collect();
        assert!(lines.len() == 2 && lines.iter().all(|line| line.contains("\tpages\t127.0.0.1")), "{audit}");
        let log = server.log();
        let requests: Vec<_> = log.lines().filter(|line| line.contains("HTTP request answered")).collect();
        assert!(requests.len() > 10 && requests.iter().all(|line| !line.contains(&django.truth[2].auth_token)), "{log}");
    }

    async fn the_page_says_that_an_old_link_has_ended_after_the_date(engine: Engine) {
        let (server, django) = start_with_import(engine, "2020-01-01T00:00:00Z").await;
        let (http, token) = (server.http_address(), &django.truth[1].auth_token);
        let answers = [
            get(http, &format!("/verify?token={token}")),
            get(http, &format!("/api/verify/{token}/")),
            post(http, "/verify", &[("token", token)]),
        ];
        for answer in answers {
            assert!(answer.status == 400 && answer.body.contains("This link has ended"), "{answer:?}");
            assert!(!answer.body.contains(token), "{answer:?}");
        }
        assert!(!is_verified(&server, token).await);
        server.logged("Refused a link with an auth_token").await;
    }

    async fn the_page_knows_no_old_links_by_default(engine: Engine) {
        let (server, django) = start_with_import(engine, "").await;
        let (http, token) = (server.http_address(), &django.truth[1].auth_token);
        let refused = get(http, &format!("/verify?token={token}"));
        assert!(refused.status == 400 && refused.body.contains("This link does not work"), "{refused:?}");
        assert_eq!(post(http, "/verify", &[("token", token)]).status, 400);
        assert_eq!(get(http, &format!("/api/verify/{token}/")).status, 404);
        assert!(!is_verified(&server, token).await);
    }

    async fn an_old_link_is_accepted_until_the_date_and_each_use_is_logged(engine: Engine) {
        let (server, django) = start_with_import(engine, "2999-01-01T00:00:00Z").await;
        let token = |row: usize| django.truth[row].auth_token.clone();

        open_link(&server, &token(1).replace('-', "")).await.unwrap();
        server.logged("Accepted a link with an auth_token").await;
        assert_refused(&open_link(&server, &token(1)).await.unwrap_err(), Code::FailedPrecondition, "EMAIL_ALREADY_VERIFIED");
        assert_refused(&open_link(&server, &token(0)).await.unwrap_err(), Code::FailedPrecondition, "EMAIL_ALREADY_VERIFIED");
        let request = LoginRequest { email: django.truth[1].email.clone(), password: "bulk-password-1".to_owned() };
        server.client().await.login(request).await.unwrap();
        let audit = stdout(&server.command(&["audit", "--kind", "user_updated"]).output().unwrap());
        assert!(audit.contains("auth_token link") && audit.contains(&token(1)), "{audit}");
    }

    async fn an_old_link_is_refused_for_users_who_registered_here_or_changed_since(engine: Engine) {
        let (server, django) = start_with_import(engine, "2999-01-01T00:00:00Z").await;
        let own = server.unverified_user("ada").await;
        assert_refused(&open_link(&server, &own.auth_token).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
        assert_refused(&open_link(&server, "00000000-0000-4000-8000-00000000ffff").await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");

        let token = &django.truth[1].auth_token;
        for verb in ["verify", "unverify"] {
            assert!(server.command(&["user", verb, token]).output().unwrap().status.success());
        }
        assert_refused(&open_link(&server, token).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
        let other = &django.truth[2].auth_token;
        assert!(server.command(&["user", "disable", other]).output().unwrap().status.success());
        assert_refused(&open_link(&server, other).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
    }

    async fn an_old_link_that_two_rows_share_verifies_neither(engine: Engine) {
        let server = TestServer::builder(engine).with_env(UNTIL, "2999-01-01T00:00:00Z").start().await;
        let django = Django::fresh(Engine::Sqlite, super::Model::WithoutTimestamps, &["--only-bulk", "--count", "3"]);
        django.execute("UPDATE core_user SET auth_token = (SELECT auth_token FROM core_user WHERE id = 2) WHERE id = 3");
        let arguments = [&["import", "django", "--from", django.url()], &super::RESOLVE_ALL_CONFLICTS[..]].concat();
        assert!(server.command(&arguments).output().unwrap().status.success());
        let refusal = open_link(&server, &django.truth[1].auth_token).await.unwrap_err();
        assert_refused(&refusal, Code::InvalidArgument, "INVALID_TOKEN");
    }

    async fn an_old_link_is_refused_after_the_date_and_by_default(engine: Engine) {
        for until in ["2020-01-01T00:00:00Z", ""] {
            let (server, django) = start_with_import(engine, until).await;
            let refusal = open_link(&server, &django.truth[1].auth_token).await.unwrap_err();
            assert_refused(&refusal, Code::InvalidArgument, "INVALID_TOKEN");
            server.logged("Refused a link with an auth_token").await;
        }
    }

    async fn an_imported_user_is_never_replaced_by_a_registration(engine: Engine) {
        let server = TestServer::builder(engine).with_env("KAIROS_IDENTITY_VERIFICATION_UNVERIFIED_KEPT", "1s").start().await;
        let django = Django::small(Engine::Sqlite, 3);
        assert!(server.command(&["import", "django", "--from", django.url()]).output().unwrap().status.success());

        // The imported user registered long ago, never verified the email and has no link. The email of a
        // user who registered here and is in this state could be registered again.
        let again = RegisterRequest { email: django.truth[1].email.clone(), password: PASSWORD.to_owned(), ..registration("mallory") };
        let refusal = server.client().await.register(again).await.unwrap_err();

        assert_refused(&refusal, Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");
    }
}
