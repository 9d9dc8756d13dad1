//! Who may call what, and what of a user they see: every method and every field, as the API's own descriptors have them.

use std::{fs, path::PathBuf, time::Duration};

use kairos_identity::{
    callers::ServiceToken,
    proto::{
        ConfirmEmailChangeRequest, GetAccountRequest, IntrospectTokenRequest, LoginRequest,
        RefreshSessionRequest, RequestEmailChangeRequest, ResolveTokenRequest, ResolveTokensRequest,
        UpdateAccountRequest, User, VerifyEmailRequest, account_service_client::AccountServiceClient,
        identity_service_client::IdentityServiceClient, session_service_client::SessionServiceClient,
    },
};
use tempfile::TempDir;
use tonic::{Code, Request, Status, client::Grpc, metadata::MetadataValue, service::Interceptor};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_prost::ProstCodec;

use crate::support::{
    api::{fields_of, messages_with_users, methods},
    errors::assert_refused,
    mail::verification_token,
    people::{PASSWORD, address, by_email, from, registration},
    server::TestServer,
    sessions::acting,
    wait::until,
};

/// Longer than the service takes to look at the file.
const RELOAD_LIMIT: Duration = Duration::from_secs(10);

/// A file of callers that a test writes.
struct CallersFile(TempDir);

impl CallersFile {
    /// Each caller with its token, methods and fields.
    fn new(callers: &[(&str, &ServiceToken, &str, &str)]) -> Self {
        let file = Self(tempfile::tempdir().unwrap());
        file.write(callers);
        file
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("callers.toml")
    }

    fn write(&self, callers: &[(&str, &ServiceToken, &str, &str)]) {
        let entry = |(name, token, methods, fields): &(&str, &ServiceToken, &str, &str)| {
            format!(
                "[{name}]\ntoken-hashes = [\"{}\"]\nmethods = [\"{methods}\"]\nuser-fields = [\"{fields}\"]\n",
                token.hash()
            )
        };
        fs::write(self.path(), callers.iter().map(entry).collect::<String>()).unwrap();
    }
}

fn token(number: u8) -> ServiceToken {
    ServiceToken::from_random([number; 32])
}

/// Sends a token with every call.
#[derive(Clone)]
struct Bearer(Option<ServiceToken>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            let value = format!("Bearer {}", token.expose());
            // Beside it may be what the end user proves themselves with.
            request.metadata_mut().append("authorization", MetadataValue::try_from(value).unwrap());
        }
        Ok(request)
    }
}

async fn start(engine: crate::support::engine::Engine, file: &CallersFile) -> TestServer {
    TestServer::builder(engine)
        .with_env("KAIROS_IDENTITY_CALLERS_FILE", file.path().to_str().unwrap())
        .start()
        .await
}

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
        // There is nothing to say, or whatever is said is no token.
        "GetJwks" | "IntrospectToken" => answer.unwrap(),
        "ListSessions" | "RevokeSession" | "RevokeAllSessions" | "GetAccount" | "UpdateAccount"
        | "ChangePassword" | "RequestEmailChange" | "DeleteAccount" => {
            assert_refused(&answer.unwrap_err(), Code::Unauthenticated, "INVALID_ACCESS_TOKEN");
        }
        _ => assert_refused(&answer.unwrap_err(), Code::InvalidArgument, "INVALID_FIELDS"),
    }
}

/// The fields that hold something.
fn shown(user: &User) -> Vec<&'static str> {
    let fields = [
        ("auth_token", !user.auth_token.is_empty()),
        ("username", !user.username.is_empty()),
        ("email", !user.email.is_empty()),
        ("is_verified", user.is_verified),
        ("created_at", user.created_at.is_some()),
        ("updated_at", user.updated_at.is_some()),
    ];
    fields.into_iter().filter_map(|(name, is_shown)| is_shown.then_some(name)).collect()
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
        let server = start(engine, &file).await;

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

    async fn each_caller_sees_the_fields_that_its_entry_names_in_every_answer(engine: Engine) {
        let fields = fields_of("User");
        let tokens: Vec<_> = (0..fields.len()).map(|number| token(u8::try_from(number).unwrap())).collect();
        let callers: Vec<_> =
            fields.iter().zip(&tokens).map(|(field, token)| (field.as_str(), token, "*", field.as_str())).collect();
        let file = CallersFile::new(&callers);
        let server = start(engine, &file).await;

        for (field, token) in fields.iter().zip(tokens) {
            let mut client = client!(server, Some(token.clone()));
            let mut sessions = SessionServiceClient::with_interceptor(server.channel().await, Bearer(Some(token.clone())));
            let mut accounts = AccountServiceClient::with_interceptor(server.channel().await, Bearer(Some(token)));
            let name = field.replace('_', "-");
            let expected: Vec<_> = fields.iter().filter(|other| *other == "auth_token" || *other == field).collect();

            let registered = client.register(registration(&name)).await.unwrap().into_inner().user.unwrap();
            let link = verification_token(&server, &address(&name)).await;
            let verified = client.verify_email(VerifyEmailRequest { token: link }).await.unwrap().into_inner();
            let login = LoginRequest { email: address(&name), password: PASSWORD.to_owned() };
            let logged_in = client.login(login).await.unwrap().into_inner();
            let auth_token = registered.auth_token.clone();
            let resolved = client.resolve_token(ResolveTokenRequest { auth_token: auth_token.clone() }).await.unwrap();
            let batch = ResolveTokensRequest { auth_tokens: vec![auth_token] };
            let batch = client.resolve_tokens(batch).await.unwrap().into_inner();
            let found = client.find_user(by_email(&address(&name))).await.unwrap().into_inner();

            let refresh_token = logged_in.tokens.unwrap().refresh_token;
            let refreshed = sessions.refresh_session(RefreshSessionRequest { refresh_token }).await.unwrap().into_inner();
            let tokens = refreshed.tokens.unwrap();
            let introspection = IntrospectTokenRequest { access_token: tokens.access_token.clone() };
            let introspected = sessions.introspect_token(introspection).await.unwrap().into_inner();
            let told = accounts.get_account(acting(&tokens, GetAccountRequest {})).await.unwrap().into_inner();
            let update = UpdateAccountRequest { username: format!("{name}2"), update_mask: None };
            let updated = accounts.update_account(acting(&tokens, update)).await.unwrap().into_inner();
            let new_email = address(&format!("{name}2"));
            let change = RequestEmailChangeRequest { current_password: PASSWORD.to_owned(), new_email: new_email.clone() };
            accounts.request_email_change(acting(&tokens, change)).await.unwrap();
            let link = verification_token(&server, &new_email).await;
            let confirmed = accounts.confirm_email_change(ConfirmEmailChangeRequest { token: link }).await.unwrap().into_inner();

            // Nobody is verified at their registration.
            let at_registration: Vec<_> = expected.iter().filter(|field| **field != "is_verified").collect();
            assert_eq!(shown(&registered).iter().collect::<Vec<_>>(), at_registration, "Register");
            let answers = [
                ("ConfirmEmailChangeResponse", confirmed.user),
                ("FindUserResponse", found.user),
                ("GetAccountResponse", told.user),
                ("IntrospectTokenResponse", introspected.user),
                ("LoginResponse", logged_in.user),
                ("RefreshSessionResponse", refreshed.user),
                ("ResolveTokenResponse", resolved.into_inner().user),
                ("ResolveTokensResponse", batch.users.into_iter().next()),
                ("UpdateAccountResponse", updated.user),
                ("VerifyEmailResponse", verified.user),
            ];
            let mut tried: Vec<_> = answers.iter().map(|(name, _)| *name).chain(["RegisterResponse"]).collect();
            tried.sort_unstable();
            assert_eq!(tried, messages_with_users(), "each answer with a user is tried");
            for (answer, user) in answers {
                assert_eq!(shown(&user.unwrap()).iter().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>(), "{answer}: {field}");
            }
        }
    }

    async fn the_file_is_read_again_when_it_changes_and_a_faulty_one_changes_nothing(engine: Engine) {
        let (old, new) = (token(1), token(2));
        let file = CallersFile::new(&[("bff", &old, "*", "*")]);
        let server = start(engine, &file).await;
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
        let text = fs::read_to_string(file.path()).unwrap();
        fs::write(file.path(), format!("{text}tells-client = true\n")).unwrap();
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
        let text = fs::read_to_string(file.path()).unwrap();
        fs::write(file.path(), format!("{text}calls-max = 2\n")).unwrap();
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
        let server = start(engine, &file).await;
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
