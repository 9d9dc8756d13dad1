//! The loss and the return of the database.

use std::time::{Duration, Instant};

use kairos_identity::proto::ResolveTokenRequest;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::SERVICE;
use crate::support::{
    errors::assert_refused,
    people::{PASSWORD, login, registration},
    postgres::Postgres,
    server::TestServer,
    wait::until,
};

/// Time within which the service must detect the loss or the return of the database: a guarantee to callers.
const NOTICE_LIMIT: Duration = Duration::from_secs(5);

async fn health(server: &TestServer) -> ServingStatus {
    let request = HealthCheckRequest { service: SERVICE.to_owned() };
    HealthClient::new(server.channel().await).check(request).await.unwrap().into_inner().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn health_follows_the_loss_and_the_return_of_the_database() {
    let cluster = Postgres::own();
    let server = TestServer::on_url(cluster.create_database().url().to_owned()).start().await;
    let ada = server.unverified_user("ada").await;
    let mut client = server.client().await;
    let resolve = || ResolveTokenRequest { auth_token: ada.auth_token.clone() };
    assert_eq!(health(&server).await, ServingStatus::Serving);

    for _ in 0..2 {
        cluster.stop_immediate();
        let gone = Instant::now();
        until("health reports NOT_SERVING", NOTICE_LIMIT, async || {
            (health(&server).await == ServingStatus::NotServing).then_some(())
        })
        .await;
        for refusal in [
            client.resolve_token(resolve()).await.unwrap_err(),
            client.login(login("ada", PASSWORD)).await.unwrap_err(),
            client.register(registration("bob")).await.unwrap_err(),
        ] {
            assert_refused(&refusal, Code::Unavailable, "STORE_UNAVAILABLE");
        }
        assert!(gone.elapsed() < NOTICE_LIMIT, "{:?}", gone.elapsed());

        cluster.start();
        until("health reports SERVING", NOTICE_LIMIT, async || {
            (health(&server).await == ServingStatus::Serving).then_some(())
        })
        .await;
        let found = client.resolve_token(resolve()).await.unwrap().into_inner().user;
        assert_eq!(found.as_ref(), Some(&ada));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_database_is_reported_unavailable_within_5_s() {
    let cluster = Postgres::own();
    let server = TestServer::on_url(cluster.create_database().url().to_owned()).start().await;
    let ada = server.unverified_user("ada").await;
    let mut client = server.client().await;

    cluster.pause();
    let began = Instant::now();
    let refused = async {
        let request = ResolveTokenRequest { auth_token: ada.auth_token.clone() };
        let refusal = client.resolve_token(request).await.unwrap_err();
        assert_refused(&refusal, Code::Unavailable, "STORE_UNAVAILABLE");
        assert!(began.elapsed() <= NOTICE_LIMIT, "{:?}", began.elapsed());
    };
    let noticed = until("health reports NOT_SERVING", NOTICE_LIMIT, async || {
        (health(&server).await == ServingStatus::NotServing).then_some(())
    });
    tokio::join!(refused, noticed);

    cluster.resume();
    until("look-ups work again", NOTICE_LIMIT, async || {
        client.resolve_token(ResolveTokenRequest { auth_token: ada.auth_token.clone() }).await.ok()
    })
    .await;
}
