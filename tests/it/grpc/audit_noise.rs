//! Noise in the audit trail: how many rows it makes, and that it hides nothing.

use std::{net::IpAddr, time::Duration};

use kairos_identity::{callers::ServiceToken, proto::LoginRequest};
use tokio::task::JoinSet;
use tonic::transport::Endpoint;

use crate::support::{
    api::methods,
    audit::{RECORDED_LIMIT, audit, count},
    callers::{CallersFile, token},
    engine::TestDatabase,
    people::{PASSWORD, address, from},
    raw::{Value, call},
    server::TestServer,
    sessions::with_bearer,
    wait::until,
};

/// Starts a server on `database` with the callers `bff` and `agent` and small limits on different events.
async fn serve(database: &TestDatabase) -> (CallersFile, TestServer) {
    let file = CallersFile::new(&[("agent", &token(1), "Health/*", "*"), ("bff", &token(2), "*", "*")]);
    file.add("tells-client = true");
    let server = TestServer::on_url(database.url().to_owned())
        .with_env("KAIROS_IDENTITY_AUDIT_REFUSALS_MAX", "5")
        .with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "100");
    let server = file.serve_on(server).await;
    (file, server)
}

/// Calls each method once with this service token, or without one.
async fn call_all(server: &TestServer, service: Option<&ServiceToken>) -> usize {
    let methods = methods();
    for path in &methods {
        call(server, path, &[], service.map(ServiceToken::expose)).await.unwrap_err();
    }
    methods.len()
}

/// Logs in with a wrong password, as `bff` for the end user at `client`.
async fn guess(server: &TestServer, name: &str, client: &str) {
    let request = from(client, LoginRequest { email: address(name), password: "wrong".into() });
    server.client().await.login(with_bearer(token(2).expose(), request)).await.unwrap_err();
}

on_both_engines! {
    async fn calls_of_an_unknown_caller_are_one_row_a_minute_whatever_they_call(engine: Engine) {
        let database = TestDatabase::new(engine);
        let (_file, server) = serve(&database).await;
        let mut calls = 0;
        for _ in 0..3 {
            calls += call_all(&server, None).await;
            tokio::time::sleep(Duration::from_millis(1_100)).await;
        }
        let of_strangers = async || Some(audit(&server, &["--caller", "nobody"])).filter(|lines| count(lines) == calls);
        let lines = until("every call is counted", RECORDED_LIMIT, of_strangers).await;
        // A second row if a minute ended meanwhile.
        assert!(lines.len() <= 2, "{lines:?}");
        assert_eq!((&*lines[0].outcome, &*lines[0].address), ("CALLER_UNKNOWN", "127.0.0.1"));
    }

    async fn unknown_callers_from_many_addresses_have_a_limited_number_of_rows(engine: Engine) {
        let database = TestDatabase::new(engine);
        let file = CallersFile::new(&[("bff", &token(2), "*", "*")]);
        let server = TestServer::on_url(database.url().to_owned()).with_env("KAIROS_IDENTITY_AUDIT_STRANGERS_MAX", "4");
        let server = file.serve_on(server).await;
        let mut calls = JoinSet::new();
        for number in 1..=40 {
            let uri = format!("http://{}", server.address());
            calls.spawn(async move {
                let address: IpAddr = format!("127.0.1.{number}").parse().unwrap();
                let channel = Endpoint::from_shared(uri).unwrap().local_address(Some(address)).connect().await.unwrap();
                let mut client = kairos_identity::proto::identity_service_client::IdentityServiceClient::new(channel);
                client.login(LoginRequest::default()).await.unwrap_err();
            });
        }
        calls.join_all().await;
        let of_strangers = async || Some(audit(&server, &["--caller", "nobody"])).filter(|lines| count(lines) == 40);
        let lines = until("every call is counted", RECORDED_LIMIT, of_strangers).await;
        // Four addresses and the rest, twice if a minute ended meanwhile.
        assert!(lines.len() <= 10, "{lines:?}");
        assert!(lines.iter().any(|line| line.address == "-" && line.count > 1), "{lines:?}");
    }

    async fn noise_of_others_hides_no_failed_login(engine: Engine) {
        let database = TestDatabase::new(engine);
        let (_file, server) = serve(&database).await;
        let users: Vec<_> = (0..8).map(|number| format!("user{number}")).collect();
        for name in &users {
            let (username, email) = (name.clone(), address(name));
            let fields = [("username", username), ("email", email), ("password", PASSWORD.to_owned())];
            let fields = fields.map(|(field, value)| (field, Value::Text(value)));
            let register = "/kairos.identity.v1.IdentityService/Register";
            call(&server, register, &fields, Some(token(2).expose())).await.unwrap();
        }
        // Strangers, a caller without rights, and the same caller: each makes more different refusals than
        // are recorded separately.
        call_all(&server, None).await;
        call_all(&server, Some(&token(1))).await;
        for number in 0..20 {
            guess(&server, "unknown", &format!("192.0.3.{number}")).await;
        }
        for (number, name) in users.iter().enumerate() {
            guess(&server, name, &format!("192.0.2.{number}")).await;
        }

        let failed = async || {
            let lines = audit(&server, &["--kind", "authn_login_fail"]);
            Some(lines).filter(|lines| count(lines) == 28)
        };
        let lines = until("every failed login is counted", RECORDED_LIMIT, failed).await;
        let about_users: Vec<_> = lines.iter().filter(|line| line.user != "-").collect();
        assert_eq!(about_users.len(), 8, "{lines:?}");
        for number in 0..8 {
            let client = format!("192.0.2.{number}");
            assert!(about_users.iter().any(|line| line.address == client), "{client}: {lines:?}");
        }
        // The guesses at an email without an account are of the caller: five addresses and the rest, twice if
        // a minute ended meanwhile.
        assert!(lines.len() <= 8 + 12, "{lines:?}");
    }
}
