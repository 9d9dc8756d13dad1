//! Calls with the events that each of them must leave.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use kairos_identity::proto;
use prost::Message as _;
use tonic::Status;

use crate::support::{
    audit::{RECORDED_LIMIT, audit},
    engine::{Engine, TestDatabase},
    people::{PASSWORD, address},
    raw::{Value, call_with},
    server::TestServer,
};

pub(super) fn path(method: &str) -> String {
    format!("/kairos.identity.v1.{method}")
}

pub(super) fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

/// A server, the calls that were made to it, and the events that each of them must leave.
pub(super) struct Trail {
    pub(super) database: TestDatabase,
    pub(super) server: TestServer,
    /// The call, its events as `KIND OUTCOME` and its client address.
    pub(super) calls: Vec<(String, Vec<String>, String)>,
}

impl Trail {
    pub(super) async fn start(engine: Engine) -> Self {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned())
            .with_env("KAIROS_IDENTITY_AUDIT_REFUSALS_MAX", "1000")
            .with_env("KAIROS_IDENTITY_AUDIT_ACCOUNT_MAX", "1000")
            .with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "4")
            .start()
            .await;
        Self { database, server, calls: Vec::new() }
    }

    /// Makes a call with this bearer token, or without one if it is empty. The call must leave exactly these
    /// events.
    pub(super) async fn call(
        &mut self,
        method: &str,
        fields: &[(&str, Value)],
        bearer: &str,
        events: &[&str],
    ) -> Result<Vec<u8>, Status> {
        self.call_with(method, fields, bearer, &[], events).await
    }

    /// Like [`Trail::call`], with more metadata.
    pub(super) async fn call_with(
        &mut self,
        method: &str,
        fields: &[(&str, Value)],
        bearer: &str,
        metadata: &[(&'static str, &str)],
        events: &[&str],
    ) -> Result<Vec<u8>, Status> {
        let number = self.calls.len();
        let client = format!("198.18.{}.{}", number / 250, number % 250);
        let metadata = [metadata, &[("kairos-client-ip", client.as_str())]].concat();
        let credential = (!bearer.is_empty()).then_some(bearer);
        let answer = call_with(&self.server, &path(method), fields, credential, &metadata).await;
        let what = format!("{method} {fields:?} {credential:?} {metadata:?}: {answer:?}");
        self.calls.push((what, events.iter().map(ToString::to_string).collect(), client));
        answer
    }

    /// Makes a call that is allowed.
    pub(super) async fn ok(
        &mut self,
        method: &str,
        fields: &[(&str, Value)],
        bearer: &str,
        events: &[&str],
    ) -> Vec<u8> {
        self.call(method, fields, bearer, events).await.unwrap_or_else(|error| panic!("{method}: {error:?}"))
    }

    /// Makes a call that is refused.
    pub(super) async fn refused(
        &mut self,
        method: &str,
        fields: &[(&str, Value)],
        bearer: &str,
        events: &[&str],
    ) {
        let answer = self.call(method, fields, bearer, events).await;
        assert!(answer.is_err(), "{method} {fields:?}");
    }

    /// Waits until the audit trail contains exactly the events of every call.
    pub(super) async fn assert_recorded(&self) {
        let began = Instant::now();
        loop {
            let differences = self.differences();
            if differences.is_empty() {
                return;
            }
            assert!(began.elapsed() < RECORDED_LIMIT, "{}", differences.join("\n"));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Returns the calls whose events differ from the expected ones.
    fn differences(&self) -> Vec<String> {
        let mut recorded: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in audit(&self.server, &[]) {
            recorded.entry(line.address.clone()).or_default().push(line.decision());
        }
        let mut differences = Vec::new();
        for (what, expected, client) in &self.calls {
            let (mut found, mut expected) = (recorded.remove(client).unwrap_or_default(), expected.clone());
            found.sort();
            expected.sort();
            if found != expected {
                differences.push(format!("{what}\n  expected {expected:?}, found {found:?}"));
            }
        }
        differences
    }

    /// Registers and verifies a user, logs the user in, and returns the user and the tokens.
    pub(super) async fn member(&mut self, name: &str) -> (proto::User, proto::SessionTokens) {
        let returned = ("return_mail_token", Value::Flag(true));
        let fields = [
            ("username", text(name)),
            ("email", text(&address(name))),
            ("password", text(PASSWORD)),
            returned,
        ];
        let registered = self.ok("IdentityService/Register", &fields, "", &["user_created OK"]).await;
        let registered = proto::RegisterResponse::decode(&*registered).unwrap();
        let link = [("token", text(&registered.mail_token))];
        self.ok("IdentityService/VerifyEmail", &link, "", &["user_updated OK"]).await;
        (registered.user.unwrap(), self.log_in(name, PASSWORD).await)
    }

    pub(super) async fn log_in(&mut self, name: &str, password: &str) -> proto::SessionTokens {
        let fields = [("email", text(&address(name))), ("password", text(password))];
        let answer = self.ok("IdentityService/Login", &fields, "", &["authn_login_success OK"]).await;
        proto::LoginResponse::decode(&*answer).unwrap().tokens.unwrap()
    }
}
