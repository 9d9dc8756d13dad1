//! Strangers who take the places of `Watch` at the address of a monitor, as behind a shared proxy.

use std::time::Duration;

use tokio::time::timeout;
use tonic::{
    Code, Status, Streaming,
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_client::HealthClient};

use crate::support::{
    callers::{Bearer, CallersFile, token},
    engine::Engine,
    errors::assert_refused,
    server::{Builder, TestServer},
};

/// The number of streams that one address may have.
const PLACES: usize = 4;

/// Time in which a stream that is to end has ended.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Time for which a stream that is to stay open is watched.
const WATCHED: Duration = Duration::from_millis(300);

type Health = HealthClient<InterceptedService<Channel, Bearer>>;
type Stream = Streaming<HealthCheckResponse>;

fn with_few_places() -> Builder {
    TestServer::builder(Engine::Sqlite)
        .with_env("KAIROS_IDENTITY_SERVER_STREAMING_CALLS_PER_PEER_MAX", &PLACES.to_string())
}

/// Opens a connection whose calls have these credentials.
async fn connect(server: &TestServer, credentials: Bearer) -> Health {
    HealthClient::with_interceptor(server.channel().await, credentials)
}

/// Begins a stream and reads the first response.
async fn watch<I: Interceptor>(
    health: &mut HealthClient<InterceptedService<Channel, I>>,
) -> Result<Stream, Status> {
    let mut stream = health.watch(HealthCheckRequest::default()).await?.into_inner();
    stream.message().await?.expect("the first response is the status");
    Ok(stream)
}

async fn is_open(stream: &mut Stream) -> bool {
    timeout(WATCHED, stream.message()).await.is_err()
}

/// Returns the error that ends a stream.
async fn end(stream: &mut Stream) -> Status {
    timeout(END_LIMIT, stream.message()).await.expect("the stream ends").unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_at_the_address_of_a_monitor_leave_it_a_watch() {
    let server = with_few_places().start().await;
    let mut stranger = connect(&server, Bearer(None)).await;
    let mut taken = Vec::new();
    for _ in 0..PLACES {
        taken.push(watch(&mut stranger).await.unwrap());
    }

    let mut monitor = connect(&server, Bearer(None)).await;
    let mut watched = watch(&mut monitor).await.unwrap();
    assert_refused(&end(&mut taken[0]).await, Code::ResourceExhausted, "OVERLOADED");
    for _ in 0..3 * PLACES {
        taken.push(watch(&mut stranger).await.unwrap());
    }
    assert!(is_open(&mut watched).await, "one stream on a connection of its own");
    let mut open = 0;
    for stream in &mut taken {
        open += usize::from(timeout(Duration::from_millis(50), stream.message()).await.is_err());
    }
    assert_eq!(open, PLACES - 1, "the limit holds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_with_a_service_token_keeps_its_watch() {
    let callers = CallersFile::new(&[("monitor", &token(1), "SessionService/GetJwks", "*")]);
    let server = callers.serve_on(with_few_places()).await;
    let mut monitor = connect(&server, Bearer(Some(token(1)))).await;
    let mut watched = watch(&mut monitor).await.unwrap();

    // Each on a connection of its own, and with a token that is none of a caller.
    let mut strangers = Vec::new();
    for _ in 0..3 * PLACES {
        let mut stranger = connect(&server, Bearer(Some(token(9)))).await;
        strangers.push((watch(&mut stranger).await.unwrap(), stranger));
    }

    assert!(is_open(&mut watched).await);
    assert_refused(&end(&mut strangers[0].0).await, Code::ResourceExhausted, "OVERLOADED");
    assert!(is_open(&mut strangers.last_mut().unwrap().0).await);
}
