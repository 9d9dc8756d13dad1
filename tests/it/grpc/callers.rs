//! The rights of callers, checked for every method in the API descriptors.

use std::{fs, time::Duration};

use kairos_identity::{
    callers::ServiceToken,
    proto::{
        LoginRequest, RefreshSessionRequest, VerifyEmailRequest,
        identity_service_client::IdentityServiceClient, session_service_client::SessionServiceClient,
    },
};
use tonic::{Code, Request, Status, client::Grpc};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_prost::ProstCodec;

use crate::support::{
    api::methods,
    callers::{Bearer, CallersFile, token},
    errors::assert_refused,
    mail::verification_token,
    people::{PASSWORD, address, by_email, from, registration},
    private_file,
    server::{SLOW_HASH_COST, TestServer},
    wait::until,
};

/// Longer than the interval (2 s) at which the service checks the file.
const RELOAD_LIMIT: Duration = Duration::from_secs(10);

macro_rules! client {
    ($server:expr, $token:expr) => {
        IdentityServiceClient::with_interceptor($server.channel().await, Bearer($token))
    };
}

/// Calls the method at `path` with an empty request.
async fn answer(server: &TestServer, token: Option<ServiceToken>, path: &str) -> Result<(), Status> {
    let mut grpc = Grpc::new(tonic::service::interceptor::InterceptedService::new(
        server.channel().await,
        Bearer(token),
    ));
    grpc.ready().await.unwrap();
    let codec = ProstCodec::<(), ()>::default();
    grpc.unary(Request::new(()), path.parse().unwrap(), codec).await.map(tonic::Response::into_inner)
}

/// Calls the method at `path` with an empty request and returns its error.
async fn refusal(server: &TestServer, token: Option<ServiceToken>, path: &str) -> Status {
    answer(server, token, path).await.unwrap_err()
}

/// Asserts that the answer to an empty request came from the handler of `method`, not from the check of the
/// caller.
#[track_caller]
fn assert_handled(method: &str, answer: Result<(), Status>) {
    match method.rsplit('/').next().unwrap() {
        // No field is required; `IntrospectToken` reports an empty token as not active.
        "GetJwks" | "IntrospectToken" | "ListUsers" | "ListAuditEvents" => answer.unwrap(),
        "ListSessions" | "RevokeSession" | "RevokeAllSessions" | "GetAccount" | "UpdateAccount"
        | "ChangePassword" | "RequestEmailChange" | "DeleteAccount" => {
            assert_refused(&answer.unwrap_err(), Code::Unauthenticated, "INVALID_ACCESS_TOKEN");
        }
        _ => assert_refused(&answer.unwrap_err(), Code::InvalidArgument, "INVALID_FIELDS"),
    }
}

on_both_engines! {
    async fn each_caller_may_call_only_the_methods_in_its_entry(engine: Engine) {
        let methods = methods();
        assert!(methods.len() >= 7, "the descriptors have at least the methods of IdentityService: {methods:?}");
        let short = |path: &str| path.rsplit('.').next().unwrap().to_owned();
        let names: Vec<_> = (0..methods.len()).map(|number| format!("caller{number}")).collect();
        let tokens: Vec<_> = (0..methods.len()).map(|number| token(u8::try_from(number).unwrap())).collect();
        let patterns: Vec<_> = methods.iter().map(|path| short(path)).collect();
        let callers: Vec<_> = (0..methods.len())
            .map(|number| (names[number].as_str(), &tokens[number], patterns[number].as_str(), "*"))
            .collect();
        let file = CallersFile::new(&callers);
        let server = file.serve(engine).await;

        for (number, token) in tokens.iter().enumerate() {
            for (other, path) in methods.iter().enumerate() {
                let answer = answer(&server, Some(token.clone()), path).await;
                if number == other {
                    assert_handled(path, answer);
                } else {
                    let refusal = answer.unwrap_err();
                    assert_refused(&refusal, Code::PermissionDenied, "CALLER_NOT_ALLOWED");
                    assert!(refusal.message().contains(&short(path)), "{refusal:?}");
                }
            }
        }
        for path in &methods {
            for stranger in [None, Some(token(200))] {
                assert_refused(&refusal(&server, stranger, path).await, Code::Unauthenticated, "CALLER_UNKNOWN");
            }
        }
        let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        assert_refused(&refusal(&server, None, reflection).await, Code::Unauthenticated, "CALLER_UNKNOWN");
        // Health needs no token: load balancers have none.
        let mut health = HealthClient::new(server.channel().await);
        health.check(HealthCheckRequest::default()).await.unwrap();
    }

    async fn the_callers_file_is_reloaded_on_change_and_an_invalid_file_is_ignored(engine: Engine) {
        let (old, new) = (token(1), token(2));
        let file = CallersFile::new(&[("bff", &old, "*", "*")]);
        let server = file.serve(engine).await;
        // All calls share one connection, which a reload must not close.
        let channel = server.channel().await;
        let is_unknown = async |token: &ServiceToken| {
            let mut client = IdentityServiceClient::with_interceptor(channel.clone(), Bearer(Some(token.clone())));
            client.find_user(by_email("unknown@example.com")).await.unwrap_err().code() == Code::Unauthenticated
        };
        assert_eq!((is_unknown(&old).await, is_unknown(&new).await), (false, true));

        private_file::write(file.path(), "[bff]\ntoken-hashes = []\n");
        server.logged("Could not reload the callers").await;
        assert_eq!((is_unknown(&old).await, is_unknown(&new).await), (false, true));

        file.write(&[("bff", &new, "*", "*")]);
        until("the new token is accepted", RELOAD_LIMIT, async || (!is_unknown(&new).await).then_some(())).await;
        assert!(is_unknown(&old).await);

        fs::remove_file(file.path()).unwrap();
        until("the log reports the missing file", RELOAD_LIMIT, async || (server.log().matches("Could not reload the callers").count() == 2).then_some(())).await;
        assert!(!is_unknown(&new).await);
    }

    async fn a_client_ip_from_a_caller_without_tells_client_is_ignored(engine: Engine) {
        let (agent, bff) = (token(1), token(2));
        let file = CallersFile::new(&[("agent", &agent, "*", "*"), ("bff", &bff, "*", "*")]);
        file.add("tells-client = true");
        let server = TestServer::builder(engine)
            .with_env("KAIROS_IDENTITY_CALLERS_FILE", file.path().to_str().unwrap())
            .with_env("KAIROS_IDENTITY_CLIENT_REGISTRATIONS_MAX", "1")
            .start()
            .await;
        let from_there = |name: &str| from("192.0.2.1", registration(name));

        let mut agent = client!(server, Some(agent));
        for name in ["ada", "bob"] {
            agent.register(from_there(name)).await.unwrap();
        }
        let mut bff = client!(server, Some(bff));
        bff.register(from_there("eve")).await.unwrap();
        let refusal = bff.register(from_there("joe")).await.unwrap_err();
        assert_refused(&refusal, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
    }

    async fn a_caller_at_its_call_limit_does_not_block_other_callers(engine: Engine) {
        let (greedy, modest) = (token(1), token(2));
        let file = CallersFile::new(&[("modest", &modest, "*", "*"), ("greedy", &greedy, "*", "*")]);
        file.add("calls-max = 2");
        let server = TestServer::builder(engine)
            .with_env("KAIROS_IDENTITY_CALLERS_FILE", file.path().to_str().unwrap())
            .with_env("KAIROS_IDENTITY_PASSWORD_COST", SLOW_HASH_COST)
            .with_env("KAIROS_IDENTITY_SERVER_REQUEST_TIMEOUT_DEFAULT", "10s")
            .start()
            .await;
        let client = client!(server, Some(greedy));
        let mut slow = tokio::task::JoinSet::new();
        for _ in 0..2 {
            let mut client = client.clone();
            // Each login takes seconds or times out. While a probe below holds its slot it is refused and
            // retried.
            slow.spawn(async move {
                let login = LoginRequest { email: address("ada"), password: PASSWORD.to_owned() };
                while client.login(login.clone()).await.unwrap_err().code() == Code::ResourceExhausted {}
            });
        }

        let refused = async || {
            let refusal = client.clone().find_user(by_email(&address("ada"))).await.unwrap_err();
            (refusal.code() == Code::ResourceExhausted).then_some(refusal)
        };
        let refusal = until("both logins are in progress", RELOAD_LIMIT, refused).await;
        assert_refused(&refusal, Code::ResourceExhausted, "OVERLOADED");
        let others = client!(server, Some(modest)).find_user(by_email(&address("ada"))).await.unwrap_err();
        assert_refused(&others, Code::NotFound, "USER_NOT_FOUND");

        slow.abort_all();
        until("a slot is free again", RELOAD_LIMIT, async || refused().await.is_none().then_some(())).await;
    }

    async fn a_session_can_be_refreshed_only_by_its_own_caller(engine: Engine) {
        let (bff, agent) = (token(1), token(2));
        let file = CallersFile::new(&[("bff", &bff, "*", "*"), ("agent", &agent, "*", "*")]);
        let server = file.serve(engine).await;
        let mut identity = client!(server, Some(bff.clone()));
        identity.register(registration("ada")).await.unwrap();
        let link = verification_token(&server, &address("ada")).await;
        identity.verify_email(VerifyEmailRequest { token: link }).await.unwrap();
        let login = LoginRequest { email: address("ada"), password: PASSWORD.to_owned() };
        let tokens = identity.login(login).await.unwrap().into_inner().tokens.unwrap();
        let refresh = async |caller: &ServiceToken, refresh_token: &str| {
            let channel = server.channel().await;
            let mut sessions = SessionServiceClient::with_interceptor(channel, Bearer(Some(caller.clone())));
            let request = RefreshSessionRequest { refresh_token: refresh_token.to_owned() };
            sessions.refresh_session(request).await.map(|answer| answer.into_inner().tokens.unwrap())
        };

        let foreign = refresh(&agent, &tokens.refresh_token).await.unwrap_err();
        assert_refused(&foreign, Code::Unauthenticated, "INVALID_REFRESH_TOKEN");
        let next = refresh(&bff, &tokens.refresh_token).await.unwrap();
        // A replaced token sent by another caller was stolen: the session is revoked for its own caller too.
        refresh(&agent, &tokens.refresh_token).await.unwrap_err();
        let revoked = refresh(&bff, &next.refresh_token).await.unwrap_err();
        assert_refused(&revoked, Code::Unauthenticated, "INVALID_REFRESH_TOKEN");
    }
}
