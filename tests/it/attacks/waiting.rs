//! Calls that have arrived completely and wait, because the database does not answer: the memory that they
//! occupy has a limit, for each caller and for all together.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kairos_identity::{
    callers::ServiceToken,
    proto::{
        FindUserRequest, LoginRequest, ResolveTokensRequest, find_user_request::Key,
        identity_service_client::IdentityServiceClient,
    },
};
use prost::Message;
use tokio::task::{JoinHandle, JoinSet};

use super::memory::connect_from;
use crate::support::{
    callers::{Bearer, CallersFile, token},
    engine::{Engine, TestDatabase},
    server::TestServer,
    wait::until,
};

/// The number of callers, each at an address of its own.
const CALLERS: u8 = 5;

/// The calls that each caller makes, on one connection.
const CALLS: usize = 250;

/// What the requests of all callers may occupy in these tests, in MiB.
const WAITING_MAX_MIB: u64 = 8;

/// Limit of the memory growth of the service, in MiB: the requests, and the calls and connections themselves.
const GROWTH_MAX_MIB: u64 = WAITING_MAX_MIB + 32;

/// Time in which what is beyond the limits has been refused, on a busy machine.
const REFUSED_LIMIT: Duration = Duration::from_secs(30);

/// Time for which the other calls wait before the memory is measured.
const WATCHED: Duration = Duration::from_secs(1);

/// A client of the database that holds a lock of all users, so that no query is answered.
struct Lock(tokio_postgres::Client, JoinHandle<()>);

impl Lock {
    async fn take(database: &TestDatabase) -> Self {
        let (client, connection) =
            tokio_postgres::connect(database.url(), tokio_postgres::NoTls).await.unwrap();
        let running = tokio::spawn(async move { connection.await.unwrap_or_default() });
        client.batch_execute("BEGIN; LOCK TABLE core_user").await.unwrap();
        Self(client, running)
    }

    async fn release(self) {
        drop(self.0);
        self.1.await.unwrap();
    }
}

/// What a caller sends.
#[derive(Clone)]
struct Call {
    path: &'static str,
    message: Bytes,
    headers: usize,
}

impl Call {
    fn new(method: &str, message: &impl Message, headers: usize) -> Self {
        let path = format!("http://kairos.test/kairos.identity.v1.IdentityService/{method}").leak();
        let encoded = message.encode_to_vec();
        let length = u32::try_from(encoded.len()).unwrap();
        Self { path, message: [&[0][..], &length.to_be_bytes(), &encoded].concat().into(), headers }
    }
}

/// Makes the calls of one connection, and counts in `refused` those that are refused with `OVERLOADED`.
async fn make_calls(
    from: IpAddr,
    address: SocketAddr,
    call: Call,
    token: ServiceToken,
    refused: Arc<AtomicUsize>,
) {
    let socket = TokioIo::new(connect_from(from, address).await);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), socket).await.unwrap();
    let mut answers = JoinSet::new();
    answers.spawn(async { drop(connection.await) });
    for _ in 0..CALLS {
        let mut request = Request::post(call.path)
            .header("content-type", "application/grpc")
            .header("kairos-caller-token", token.expose());
        for number in 0..call.headers {
            request = request.header(format!("x-{number}"), "y");
        }
        let request = request.body(Full::new(call.message.clone())).unwrap();
        sender.ready().await.unwrap();
        let (answer, refused) = (sender.send_request(request), Arc::clone(&refused));
        answers.spawn(async move {
            let Ok(answer) = answer.await else { return };
            let is_refused = answer.headers().get("grpc-status").is_some_and(|status| status == "8");
            refused.fetch_add(usize::from(is_refused), Ordering::Relaxed);
        });
    }
    while answers.join_next().await.is_some() {}
}

/// Makes the call as often as all callers may, while the database does not answer. All but `waiting_max` of
/// the calls must be refused with `OVERLOADED`, and the memory must stay limited.
async fn assert_bounded(call: Call, waiting_max: usize) {
    let callers: Vec<_> = (1..=CALLERS).map(|number| (format!("caller{number}"), token(number))).collect();
    let entries: Vec<_> = callers.iter().map(|(name, token)| (&**name, token, "*", "*")).collect();
    let database = TestDatabase::new(Engine::Postgres);
    let builder = TestServer::on_url(database.url().to_owned())
        .with_env("KAIROS_IDENTITY_SERVER_WAITING_BYTES_MAX", &format!("{WAITING_MAX_MIB}MiB"))
        .with_env("KAIROS_IDENTITY_SERVER_REQUEST_TIMEOUT_DEFAULT", "1m")
        .with_env("KAIROS_IDENTITY_SERVER_REQUEST_TIMEOUT_MAX", "1m")
        .with_env("KAIROS_IDENTITY_DATABASE_STATEMENT_TIMEOUT", "1m")
        .with_env("KAIROS_IDENTITY_DATABASE_ACQUIRE_TIMEOUT", "1m");
    let file = CallersFile::new(&entries);
    let server = file.serve_on(builder).await;
    let lock = Lock::take(&database).await;
    let before = server.resident_mib();

    let (refused, mut calls) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    for (number, (_, token)) in (1..).zip(&callers) {
        let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, number));
        calls.spawn(make_calls(from, server.address(), call.clone(), token.clone(), Arc::clone(&refused)));
    }
    let refused_min = usize::from(CALLERS) * CALLS - waiting_max;
    let is_reached = async || (refused.load(Ordering::Relaxed) >= refused_min).then_some(());
    until(&format!("{refused_min} calls are refused"), REFUSED_LIMIT, is_reached).await;
    tokio::time::sleep(WATCHED).await;
    let after = server.resident_mib();
    println!("{}: from {before} to {after} MiB, {refused:?} refused", call.path);
    assert!(after < before + GROWTH_MAX_MIB, "from {before} to {after} MiB");

    drop(calls);
    lock.release().await;
    let client = IdentityServiceClient::with_interceptor(server.channel().await, Bearer(Some(token(1))));
    let auth_tokens = vec![uuid::Uuid::from_u128(1).to_string(); 1_000];
    let again = async || {
        client.clone().resolve_tokens(ResolveTokensRequest { auth_tokens: auth_tokens.clone() }).await.ok()
    };
    until("calls are answered again", REFUSED_LIMIT, again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_requests_that_wait_occupy_little_memory() {
    let auth_tokens = (0..1_000).map(|number| uuid::Uuid::from_u128(number).to_string()).collect();
    let message = ResolveTokensRequest { auth_tokens };
    let waiting_max = usize::try_from(WAITING_MAX_MIB).unwrap() * 1_024 * 1_024 / message.encoded_len();
    assert_bounded(Call::new("ResolveTokens", &message, 0), waiting_max).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_with_many_headers_that_wait_occupy_little_memory() {
    let email = format!("{}@example.com", "a".repeat(60));
    let call = Call::new("FindUser", &FindUserRequest { key: Some(Key::Email(email)) }, 300);
    assert_bounded(call, usize::from(CALLERS) * CALLS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_that_wait_occupy_little_memory() {
    let login =
        LoginRequest { email: format!("{}@example.com", "a".repeat(60)), password: "p".repeat(1_024) };
    // The hashing queue has 64 places.
    assert_bounded(Call::new("Login", &login, 0), 64).await;
}
