//! Who may call what: every method, as the API's own descriptors have them.

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
    server::TestServer,
    wait::until,
};

/// Longer than the service takes to look at the file.
const RELOAD_LIMIT: Duration = Duration::from_secs(10);

macro_rules! client {
    ($server:expr, $token:expr) => {
        IdentityServiceClient::with_interceptor($server.channel().await, Bearer($token))
    };
}

/// What an empty request meets.
async fn answer(server: &TestServer, token: Option<ServiceToken>, path: &str) -> Result<(), Status> {
    let mut grpc = Grpc::new(tonic::service::interceptor::InterceptedService::new(
        server.channel().await,
        Bearer(token),
    ));
    grpc.ready().await.unwrap();
    let codec = ProstCodec::<(), ()>::default();
    grpc.unary(Request::new(()), path.parse().unwrap(), codec).await.map(tonic::Response::into_inner)
}

/// How an empty request is refused.
async fn refusal(server: &TestServer, token: Option<ServiceToken>, path: &str) -> Status {
    answer(server, token, path).await.unwrap_err()
}

/// Asserts that an empty request came to the handler of its method, and was answered as it should be.
#[track_caller]
fn assert_handled(method: &str, answer: Result<(), Status>) {
    match method.rsplit('/').next().unwrap() {
        // There is nothing that must be said, or whatever is said is no token.
        "GetJwks" | "IntrospectToken" | "ListUsers" | "ListAuditEvents" => answer.unwrap(),
        "ListSessions" | "RevokeSession" | "RevokeAllSessions" | "GetAccount" | "UpdateAccount"
        | "ChangePassword" | "RequestEmailChange" | "DeleteAccount" => {
            assert_refused(&answer.unwrap_err(), Code::Unauthenticated, "INVALID_ACCESS_TOKEN");
        }
        _ => assert_refused(&answer.unwrap_err(), Code::InvalidArgument, "INVALID_FIELDS"),
    }
}

on_both_engines! {
    async fn each_caller_may_call_what_its_entry_names_and_nothing_else(engine: Engine) {
        let methods = methods();
        assert!(methods.len() >= 7, "{methods:?}");
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
                    assert_refused(&answer.unwrap_err(), Code::PermissionDenied, "CALLER_NOT_ALLOWED");
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
        // Load balancers have no token.
        let mut health = HealthClient::new(server.channel().await);
        health.check(HealthCheckRequest::default()).await.unwrap();
    }

    async fn the_file_is_read_again_when_it_changes_and_a_faulty_one_changes_nothing(engine: Engine) {
        let (old, new) = (token(1), token(2));
        let file = CallersFile::new(&[("bff", &old, "*", "*")]);
        let server = file.serve(engine).await;
        // One connection for all: a change drops none.
        let channel = server.channel().await;
        let unknown = async |token: &ServiceToken| {
            let mut client = IdentityServiceClient::with_interceptor(channel.clone(), Bearer(Some(token.clone())));
            client.find_user(by_email("nobody@example.com")).await.unwrap_err().code() == Code::Unauthenticated
        };
        assert_eq!((unknown(&old).await, unknown(&new).await), (false, true));

        fs::write(file.path(), "[bff]\ntoken-hashes = []\n").unwrap();
        server.logged("the callers known so far stay").await;
        assert_eq!((unknown(&old).await, unknown(&new).await), (false, true));

        file.write(&[("bff", &new, "*", "*")]);
        until("the new token is known", RELOAD_LIMIT, async || (!unknown(&new).await).then_some(())).await;
        assert!(unknown(&old).await);

        fs::remove_file(file.path()).unwrap();
        until("the log tells of it", RELOAD_LIMIT, async || (server.log().matches("stay").count() == 2).then_some(())).await;
        assert!(!unknown(&new).await);
    }

    async fn who_may_not_tell_an_address_is_not_heard(engine: Engine) {
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

    async fn one_caller_cannot_take_the_place_of_others(engine: Engine) {
        let (greedy, modest) = (token(1), token(2));
        let file = CallersFile::new(&[("modest", &modest, "*", "*"), ("greedy", &greedy, "*", "*")]);
        file.add("calls-max = 2");
        let server = TestServer::builder(engine)
            .with_env("KAIROS_IDENTITY_CALLERS_FILE", file.path().to_str().unwrap())
            .with_env("KAIROS_IDENTITY_PASSWORD_COST", "15")
            .with_env("KAIROS_IDENTITY_SERVER_REQUEST_TIMEOUT_DEFAULT", "10s")
            .start()
            .await;
        let client = client!(server, Some(greedy));
        let mut slow = tokio::task::JoinSet::new();
        for _ in 0..2 {
            let mut client = client.clone();
            // Each takes seconds, or the whole time that a call may take; who comes beside a probe below comes again.
            slow.spawn(async move {
                let login = LoginRequest { email: address("ada"), password: PASSWORD.to_owned() };
                while client.login(login.clone()).await.unwrap_err().code() == Code::ResourceExhausted {}
            });
        }

        let refused = async || {
            let refusal = client.clone().find_user(by_email(&address("ada"))).await.unwrap_err();
            (refusal.code() == Code::ResourceExhausted).then_some(refusal)
        };
        let refusal = until("both calls are under way", RELOAD_LIMIT, refused).await;
        assert_refused(&refusal, Code::ResourceExhausted, "OVERLOADED");
        let others = client!(server, Some(modest)).find_user(by_email(&address("ada"))).await.unwrap_err();
        assert_refused(&others, Code::NotFound, "USER_NOT_FOUND");

        slow.abort_all();
        until("there is room again", RELOAD_LIMIT, async || refused().await.is_none().then_some(())).await;
    }

    async fn a_session_is_its_callers_alone(engine: Engine) {
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
        // One that was replaced is a copy in the wrong hands: nobody goes on with the session.
        refresh(&agent, &tokens.refresh_token).await.unwrap_err();
        let ended = refresh(&bff, &next.refresh_token).await.unwrap_err();
        assert_refused(&ended, Code::Unauthenticated, "INVALID_REFRESH_TOKEN");
    }
}
