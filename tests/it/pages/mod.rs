//! The pages of mailed links, as raw responses and in a browser.

mod http_port;

use std::{fs, time::Duration};

use kairos_identity::proto::{
    RequestEmailChangeRequest, RequestPasswordResetRequest, account_service_client::AccountServiceClient,
};

use crate::support::{
    engine::Engine,
    http::{HttpResponse, get, post, request},
    mail::{link_to, mails_to, newest_mail, verification_token},
    people::{NEW_PASSWORD, PASSWORD, address, by_email, login},
    server::TestServer,
    sessions::{acting, introspect, log_in},
    tools::{python, repository},
    wait::until,
};

/// Requests a password reset for the user `name`, and returns the token of the mailed link.
async fn reset_token(server: &TestServer, name: &str) -> String {
    let before = mails_to(&server.mail_folder(), &address(name)).len();
    let request = RequestPasswordResetRequest { email: address(name), return_mail_token: false };
    AccountServiceClient::new(server.channel().await).request_password_reset(request).await.unwrap();
    newest_mail(server, &address(name), before + 1).await.token()
}

/// Logs in the user `name`, requests a change of the email to that of `new`, and returns the token of the
/// mailed link.
async fn email_change_token(server: &TestServer, name: &str, new: &str) -> String {
    let tokens = log_in(server, name).await;
    let change = RequestEmailChangeRequest {
        current_password: PASSWORD.to_owned(),
        new_email: address(new),
        return_mail_token: false,
    };
    let mut accounts = AccountServiceClient::new(server.channel().await);
    accounts.request_email_change(acting(&tokens, change)).await.unwrap();
    verification_token(server, &address(new)).await
}

/// Asserts that the page must not be cached, must not be framed, and loads nothing from other origins.
#[track_caller]
fn assert_security_headers(answer: &HttpResponse) {
    let policy = answer.header("content-security-policy");
    for rule in ["default-src 'none'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert_eq!(answer.header("referrer-policy"), "no-referrer");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("x-frame-options"), "DENY");
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
}

on_both_engines! {
    async fn a_scanner_that_opens_the_link_changes_nothing_and_the_button_verifies(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.unverified_user("ada").await;
        let token = verification_token(&server, &address("ada")).await;
        let http = server.http_address();
        let link = format!("/verify?token={token}");
        let is_verified = async || {
            server.client().await.find_user(by_email(&address("ada"))).await.unwrap().into_inner().user.unwrap().is_verified
        };

        for method in ["GET", "HEAD", "GET"] {
            let opened = request(http, method, &link, &[], "");
            assert_eq!(opened.status, 200);
            assert_security_headers(&opened);
            assert_eq!(opened.body.contains(&token), method == "GET", "{}", opened.body);
        }
        assert!(!is_verified().await);

        let done = post(http, "/verify", &[("token", &token)]);
        assert_eq!((done.status, is_verified().await), (200, true));
        assert!(done.body.contains("Your address is confirmed") && !done.body.contains(&token), "{}", done.body);
        assert_security_headers(&done);
        let again = post(http, "/verify", &[("token", &token)]);
        assert!(again.status == 200 && again.body.contains("already confirmed"), "{}", again.body);
        assert!(!server.log().contains(&token), "the token is not logged");
        let trail = String::from_utf8(server.command(&["audit"]).output().unwrap().stdout).unwrap();
        assert!(trail.contains("user_updated\tOK") && trail.contains("\tpages\t127.0.0.1"), "{trail}");
    }

    async fn each_refused_button_press_is_recorded(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        let token = reset_token(&server, "ada").await;
        let http = server.http_address();
        assert_eq!(post(http, "/verify", &[("token", "zzz")]).status, 400);
        assert_eq!(post(http, "/confirm-email", &[]).status, 400);
        assert_eq!(post(http, "/reset-password", &[("token", "zzz"), ("new_password", "x")]).status, 400);
        let different = [("token", token.as_str()), ("new_password", "one"), ("new_password_again", "two")];
        assert_eq!(post(http, "/reset-password", &different).status, 422);
        let long = "x".repeat(9_000);
        assert_eq!(post(http, "/reset-password", &[("token", &long)]).status, 413);

        // Five refusals in three rows, two of them with `count=2`.
        let expected = [
            "authn_password_change_fail\tINVALID_TOKEN", "input_validation_fail\tINVALID_FIELDS",
            "user_update_fail\tINVALID_TOKEN",
        ];
        until("each refusal is recorded", Duration::from_secs(15), async || {
            let output = server.command(&["audit", "--caller", "pages"]).output().unwrap();
            let trail = String::from_utf8(output.stdout).unwrap();
            let decision = |line: &str| line.split('\t').skip(1).take(2).collect::<Vec<_>>().join("\t");
            let mut found: Vec<_> = trail.lines().map(decision).collect();
            found.sort();
            let counts = trail.matches("count=2").count();
            (found == expected && counts == 2).then_some(())
        }).await;
    }

    async fn a_new_password_is_chosen_on_the_page(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        let token = reset_token(&server, "ada").await;
        let http = server.http_address();
        let send = |first: &str, second: &str| {
            post(http, "/reset-password", &[("token", &token), ("new_password", first), ("new_password_again", second)])
        };

        assert_security_headers(&get(http, &format!("/reset-password?token={token}")));
        for (first, second, words) in [
            (NEW_PASSWORD, PASSWORD, "must be the same in both fields"),
            ("ada", "ada", "at least 8 characters"),
            ("password1", "password1", "The password"),
        ] {
            let refused = send(first, second);
            assert_eq!(refused.status, 422);
            assert!(refused.body.contains(words) && refused.body.contains(&token), "{}", refused.body);
            assert!(!refused.body.contains(&format!("\"{first}\"")), "the response does not repeat the password");
            assert_security_headers(&refused);
        }
        assert!(introspect(&server, &tokens.access_token).await.active);

        let done = send(NEW_PASSWORD, NEW_PASSWORD);
        assert!(done.status == 200 && done.body.contains("Your password is changed"), "{}", done.body);
        server.client().await.login(login("ada", NEW_PASSWORD)).await.unwrap();
        assert!(!introspect(&server, &tokens.access_token).await.active);
        let again = send(PASSWORD, PASSWORD);
        assert!(again.status == 400 && again.body.contains("This link does not work"), "{}", again.body);
        assert!(!server.log().contains(NEW_PASSWORD) && !server.log().contains(&token));
    }

    async fn a_new_address_is_confirmed_on_the_page(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await;
        let link = email_change_token(&server, "ada", "lovelace").await;
        let http = server.http_address();
        assert_security_headers(&get(http, &format!("/confirm-email?token={link}")));
        let found = async |name| server.client().await.find_user(by_email(&address(name))).await.is_ok();
        assert_eq!((found("ada").await, found("lovelace").await), (true, false));

        let done = post(http, "/confirm-email", &[("token", &link)]);
        assert!(done.status == 200 && done.body.contains("Your new address is confirmed"), "{}", done.body);
        let user = server.client().await.find_user(by_email(&address("lovelace"))).await.unwrap().into_inner().user.unwrap();
        assert_eq!(user.auth_token, ada.auth_token);

        // An email that another user has verified meanwhile stays with that user.
        server.member("bob").await;
        let link = email_change_token(&server, "bob", "eve").await;
        server.unverified_user("eve").await;
        let eve = newest_mail(&server, &address("eve"), 2).await.token();
        assert_eq!(post(http, "/verify", &[("token", &eve)]).status, 200);
        let taken = post(http, "/confirm-email", &[("token", &link)]);
        assert!(taken.status == 409 && taken.body.contains("This address is taken"), "{}", taken.body);
    }

    async fn an_email_change_is_undone_on_the_page(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await;
        let http = server.http_address();
        let link = email_change_token(&server, "ada", "lovelace").await;
        assert_eq!(post(http, "/confirm-email", &[("token", &link)]).status, 200);
        let link = link_to(&server, &address("ada"), "undo-email-change").await;
        assert_security_headers(&get(http, &format!("/undo-email-change?token={link}")));
        let found = async |name| server.client().await.find_user(by_email(&address(name))).await;
        assert!(found("ada").await.is_err(), "opening the page changes nothing");

        let done = post(http, "/undo-email-change", &[("token", &link)]);
        assert!(done.status == 200 && done.body.contains("The change is undone"), "{}", done.body);
        assert_eq!(found("ada").await.unwrap().into_inner().user.unwrap().auth_token, ada.auth_token);
        let again = post(http, "/undo-email-change", &[("token", &link)]);
        assert!(again.status == 400 && again.body.contains("This link does not work"), "{}", again.body);
        assert!(!server.log().contains(&link));
    }

    async fn a_link_works_only_on_its_own_page(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await;
        server.member("cyd").await;
        server.member("dan").await;
        server.unverified_user("bob").await;
        let http = server.http_address();
        let verify = verification_token(&server, &address("bob")).await;
        let reset = reset_token(&server, "ada").await;
        let change = email_change_token(&server, "cyd", "lovelace").await;
        let link = email_change_token(&server, "dan", "daniel").await;
        assert_eq!(post(http, "/confirm-email", &[("token", &link)]).status, 200);
        let undo = link_to(&server, &address("dan"), "undo-email-change").await;
        let session = log_in(&server, "ada").await;
        let pages = ["/verify", "/reset-password", "/confirm-email", "/undo-email-change"];
        // The first four tokens belong to the four pages, in order.
        let tokens = [&verify, &reset, &change, &undo, &session.refresh_token, &session.access_token, &ada.auth_token, &String::new()];
        for (page_index, path) in pages.iter().enumerate() {
            for (token_index, token) in tokens.iter().enumerate().filter(|(index, _)| *index != page_index) {
                let fields = [("token", token.as_str()), ("new_password", NEW_PASSWORD), ("new_password_again", NEW_PASSWORD)];
                let refused = post(http, path, &fields);
                assert!(refused.status == 400 && refused.body.contains("This link does not work"), "{path}, token {token_index}: {refused:?}");
                assert_security_headers(&refused);
            }
        }
        for (path, token) in pages.iter().zip(tokens) {
            let fields = [("token", token.as_str()), ("new_password", NEW_PASSWORD), ("new_password_again", NEW_PASSWORD)];
            assert_eq!(post(http, path, &fields).status, 200, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_can_be_replaced_and_pages_and_port_can_be_disabled() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("verify.done.html"), "Fertig.").unwrap();
    let own = folder.path().to_str().unwrap();
    let server =
        TestServer::builder(Engine::Sqlite).with_env("KAIROS_IDENTITY_PAGES_TEMPLATES", own).start().await;
    server.unverified_user("ada").await;
    let token = verification_token(&server, &address("ada")).await;
    assert_eq!(post(server.http_address(), "/verify", &[("token", &token)]).body, "Fertig.");

    let off =
        TestServer::builder(Engine::Sqlite).with_env("KAIROS_IDENTITY_PAGES_ENABLED", "false").start().await;
    assert_eq!(get(off.http_address(), "/.well-known/jwks.json").status, 200);
    for path in ["/verify", "/style.css", "/"] {
        assert_eq!(post(off.http_address(), path, &[("token", &token)]).status, 404);
    }

    let none = TestServer::builder(Engine::Sqlite).with_args(&["--http-listen", ""]).start().await;
    assert!(!none.log().contains("Serving HTTP"), "{}", none.log());

    fs::write(folder.path().join("verify.html"), "{{ tokne }}").unwrap();
    let mut command = server.command(&["serve", "--listen", "127.0.0.1:0", "--insecure-low-cost"]);
    let refused = command.env("KAIROS_IDENTITY_PAGES_TEMPLATES", own).output().unwrap();
    let printed = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && printed.contains("pages.templates: verify.html"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pages_work_in_a_browser_without_javascript() {
    let server = TestServer::start(Engine::Sqlite).await;
    server.unverified_user("ada").await;
    let verify = verification_token(&server, &address("ada")).await;
    let pictures = repository().join("target/pages");
    fs::create_dir_all(&pictures).unwrap();
    let http = format!("http://{}", server.http_address());
    let browse = |page: &str, token: &str, password: &str| {
        let output = python("browser.py", &[&http, page, token, password, pictures.to_str().unwrap()]);
        let (printed, errors) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{page}: {printed}{errors}");
        printed
    };

    assert!(browse("verify", &verify, "").contains("Your address is confirmed"));
    log_in(&server, "ada").await;
    let change = email_change_token(&server, "ada", "lovelace").await;
    assert!(browse("confirm-email", &change, "").contains("Your new address is confirmed"));
    let reset = reset_token(&server, "lovelace").await;
    assert!(browse("reset-password", &reset, NEW_PASSWORD).contains("Your password is changed"));
    server.client().await.login(login("lovelace", NEW_PASSWORD)).await.unwrap();
    assert!(browse("reset-password", &reset, NEW_PASSWORD).contains("This link does not work"));
}
