//! Every method with success over each protocol: two users from the registration to the deletion. The
//! responses must be the same, but for what differs between any two users.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use kairos_identity::proto;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{UNKNOWN, client::Protocol};
use crate::support::{
    api::methods,
    audit::RECORDED_LIMIT,
    engine::Engine,
    mail::link_to,
    people::{NEW_PASSWORD, PASSWORD, address},
    server::TestServer,
    wait::until,
};

/// The calls over one protocol. Messages are JSON here, and are converted to and from what the protocol
/// sends.
struct Calls<'a> {
    server: &'a TestServer,
    api: DescriptorPool,
    protocol: Protocol,
    /// The name of the user, who exists only for this protocol.
    name: String,
    /// The paths of the methods.
    called: Vec<String>,
    /// The responses, without what differs between two users.
    answers: Vec<String>,
}

impl<'a> Calls<'a> {
    fn new(server: &'a TestServer, protocol: Protocol, name: String) -> Self {
        let api = DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
        Self { server, api, protocol, name, called: Vec::new(), answers: Vec::new() }
    }

    /// Calls a method, as the user of an access token if there is one.
    async fn ask(&self, method: &str, request: &Value, access_token: Option<&Value>) -> Value {
        let (service, name) = method.split_once('/').unwrap();
        let service = self.api.get_service_by_name(&format!("kairos.identity.v1.{service}")).unwrap();
        let types = service.methods().find(|found| found.name() == name).unwrap();
        let message = DynamicMessage::deserialize(types.input(), request).unwrap().encode_to_vec();
        let path = format!("/kairos.identity.v1.{method}");
        let bearer = access_token.map(|token| token.as_str().unwrap());
        let json = request.to_string();
        let call = self.protocol.call(self.server, &path, (&message, &json), bearer);
        let answer = call.await.unwrap_or_else(|status| panic!("{:?} {method}: {status:?}", self.protocol));
        if let Protocol::Json(_) = self.protocol {
            return serde_json::from_slice(&answer).unwrap();
        }
        serde_json::to_value(DynamicMessage::decode(types.output(), &answer[..]).unwrap()).unwrap()
    }

    fn record(&mut self, method: &str, answer: &Value) {
        self.called.push(format!("/kairos.identity.v1.{method}"));
        self.answers.push(format!("{method} {}", comparable(answer, &self.name)));
    }

    /// Calls a method and records the response.
    async fn call(&mut self, method: &str, request: Value) -> Value {
        let answer = self.ask(method, &request, None).await;
        self.record(method, &answer);
        answer
    }

    /// Like [`Self::call`], as the user of this session.
    async fn act(&mut self, method: &str, request: Value, tokens: &Value) -> Value {
        let answer = self.ask(method, &request, Some(&tokens["accessToken"])).await;
        self.record(method, &answer);
        answer
    }

    async fn register(&mut self, name: &str) -> (Value, Value) {
        let request =
            json!({"username": name, "email": address(name), "password": PASSWORD, "returnMailToken": true});
        let answer = self.call("IdentityService/Register", request).await;
        (answer["user"]["authToken"].clone(), answer["mailToken"].clone())
    }

    async fn log_in(&mut self, name: &str, password: &str) -> Value {
        let request = json!({"email": address(name), "password": password});
        self.call("IdentityService/Login", request).await["tokens"].clone()
    }
}

/// Replaces what differs between two users: the name, ids, times and secrets.
fn comparable(answer: &Value, name: &str) -> Value {
    match answer {
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| (key.clone(), comparable(value, name))).collect()
        }
        Value::Array(values) => values.iter().map(|value| comparable(value, name)).collect(),
        Value::String(text) if Uuid::parse_str(text).is_ok() => "ID".into(),
        Value::String(text) if text.starts_with("20") && text.ends_with('Z') => "TIME".into(),
        Value::String(text) if text.len() >= 40 => "SECRET".into(),
        Value::String(text) => text.replace(name, "NAME").into(),
        other => other.clone(),
    }
}

/// Ada's sessions, until only one is left. Returns its tokens.
async fn use_sessions(calls: &mut Calls<'_>) -> Value {
    let name = calls.name.clone();
    let first = calls.log_in(&name, PASSWORD).await;
    let refresh = json!({"refreshToken": first["refreshToken"]});
    let tokens = calls.call("SessionService/RefreshSession", refresh).await["tokens"].clone();
    let introspect = json!({"accessToken": tokens["accessToken"]});
    assert_eq!(calls.call("SessionService/IntrospectToken", introspect).await["active"], true);
    calls.call("SessionService/GetJwks", json!({})).await;

    let second = calls.log_in(&name, PASSWORD).await;
    calls.act("SessionService/ListSessions", json!({}), &tokens).await;
    let revoke = json!({"sessionId": second["sessionId"]});
    calls.act("SessionService/RevokeSession", revoke, &tokens).await;
    let third = calls.log_in(&name, PASSWORD).await;
    calls.call("SessionService/Logout", json!({"refreshToken": third["refreshToken"]})).await;
    calls.log_in(&name, PASSWORD).await;
    calls.act("SessionService/RevokeAllSessions", json!({"keepCurrent": true}), &tokens).await;
    tokens
}

/// Ada's account, from the registration to the deletion.
async fn live(calls: &mut Calls<'_>) {
    let name = calls.name.clone();
    let (ada, _) = calls.register(&name).await;
    let resend = json!({"email": address(&name), "returnMailToken": true});
    let link = calls.call("IdentityService/ResendVerificationEmail", resend).await["mailToken"].clone();
    calls.call("IdentityService/VerifyEmail", json!({"token": link})).await;
    calls.call("IdentityService/ResolveToken", json!({"authToken": ada})).await;
    calls.call("IdentityService/ResolveTokens", json!({"authTokens": [ada, UNKNOWN]})).await;
    calls.call("IdentityService/FindUser", json!({"username": name})).await;

    let tokens = use_sessions(calls).await;
    calls.act("AccountService/GetAccount", json!({}), &tokens).await;
    let update = json!({"username": format!("{name}x"), "updateMask": "username"});
    calls.act("AccountService/UpdateAccount", update, &tokens).await;
    let passwords = json!({"currentPassword": PASSWORD, "newPassword": NEW_PASSWORD});
    calls.act("AccountService/ChangePassword", passwords, &tokens).await;

    let new_email = address(&format!("new{name}"));
    let change = json!({"currentPassword": NEW_PASSWORD, "newEmail": new_email, "returnMailToken": true});
    let link = calls.act("AccountService/RequestEmailChange", change, &tokens).await["mailToken"].clone();
    calls.call("AccountService/ConfirmEmailChange", json!({"token": link})).await;
    let link = link_to(calls.server, &address(&name), "undo-email-change").await;
    calls.call("AccountService/UndoEmailChange", json!({"token": link})).await;

    let forgot = json!({"email": address(&name), "returnMailToken": true});
    let link = calls.call("AccountService/RequestPasswordReset", forgot).await["mailToken"].clone();
    let reset = json!({"token": link, "newPassword": PASSWORD});
    calls.call("AccountService/ResetPassword", reset).await;
    let tokens = calls.log_in(&name, PASSWORD).await;
    calls.act("AccountService/DeleteAccount", json!({"currentPassword": PASSWORD}), &tokens).await;
}

/// The account of another user, as an operator manages it.
async fn be_managed(calls: &mut Calls<'_>) {
    let name = format!("{}b", calls.name);
    let (bob, _) = calls.register(&name).await;
    let user = json!({"authToken": bob});
    calls.call("AdminService/SetVerified", json!({"authToken": bob, "isVerified": true})).await;
    calls.log_in(&name, PASSWORD).await;
    calls.call("AdminService/GetUser", json!({"email": address(&name)})).await;
    calls.call("AdminService/ListUsers", json!({"text": name, "isDisabled": false, "pageSize": 10})).await;
    for method in ["RevokeUserSessions", "DisableUser", "EnableUser", "UnlockUser", "StartPasswordReset"] {
        calls.call(&format!("AdminService/{method}"), user.clone()).await;
    }
    let (method, registrations) =
        ("AdminService/ListAuditEvents", json!({"authToken": bob, "kinds": ["user_created"]}));
    let events = until("the registration is in the trail", RECORDED_LIMIT, async || {
        let answer = calls.ask(method, &registrations, None).await;
        answer["events"].is_array().then_some(answer)
    });
    let events = events.await;
    calls.record(method, &events);
    calls.call("AdminService/DeleteUser", user).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_succeeds_with_the_same_response_over_each_protocol() {
    let server = TestServer::start(Engine::Sqlite).await;
    let play = async |(number, protocol): (usize, Protocol)| {
        let mut calls = Calls::new(&server, protocol, format!("ada{number}"));
        live(&mut calls).await;
        be_managed(&mut calls).await;
        calls
    };
    let played = join_all(Protocol::ALL_VERSIONS.into_iter().enumerate().map(play)).await;
    let called: BTreeSet<_> = played[0].called.iter().collect();
    assert_eq!(called, methods().iter().collect(), "this test must call every method");
    for other in &played[1..] {
        for (answer, expected) in other.answers.iter().zip(&played[0].answers) {
            assert_eq!(answer, expected, "{:?}", other.protocol);
        }
        assert_eq!(other.called, played[0].called);
    }
}
