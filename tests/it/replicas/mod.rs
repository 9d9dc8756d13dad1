//! Look-ups on PostgreSQL replicas: real standbys with streaming replication, which lag, freeze and crash.

mod identity;
mod load;
mod pair;

use std::time::Duration;

use kairos_identity::proto::{
    ResolveTokenRequest, ResolveTokensRequest, ResolveTokensResponse, User,
    identity_service_client::IdentityServiceClient,
};
use tonic::{Code, Request, Status, transport::Channel};
use uuid::Uuid;

use self::{load::Load, pair::Pair};
use crate::support::{
    errors::assert_refused,
    people::{PASSWORD, by_email, login, registration},
    wait::until,
};

const LAG_MAX: &str = "KAIROS_IDENTITY_DATABASE_REPLICA_LAG_MAX";

/// Lag limit so high that a replica whose replay is paused stays in use.
const NO_LAG_MAX: &str = "1m";

/// The service stops using an unusable replica within 2 s; the rest allows for a busy machine.
const EXCLUDED_LIMIT: Duration = Duration::from_secs(2 + 4);

/// Deadline of each call: the service must answer within it, whatever happens to a replica.
const DEADLINE: Duration = Duration::from_secs(8);

/// Time limit for what an idle machine does in a second.
const LIMIT: Duration = Duration::from_secs(20);

type Client = IdentityServiceClient<Channel>;

async fn resolve(client: &mut Client, user: &User) -> Result<User, Status> {
    let mut request = Request::new(ResolveTokenRequest { auth_token: user.auth_token.clone() });
    request.set_timeout(DEADLINE);
    Ok(client.resolve_token(request).await?.into_inner().user.expect("the answer has a user"))
}

async fn resolve_all(client: &mut Client, users: &[&User]) -> Result<ResolveTokensResponse, Status> {
    let auth_tokens = users.iter().map(|user| user.auth_token.clone()).collect();
    let mut request = Request::new(ResolveTokensRequest { auth_tokens });
    request.set_timeout(DEADLINE);
    client.resolve_tokens(request).await.map(tonic::Response::into_inner)
}

/// What a look-up returns as `is_verified`: the two states that [`wait_until_seen_as`] waits for.
const VERIFIED: bool = true;
const UNVERIFIED: bool = false;

/// Waits until a look-up of `user` returns this value of `is_verified`.
async fn wait_until_seen_as(client: &mut Client, user: &User, is_verified: bool, limit: Duration) {
    until(&format!("the user is seen with is_verified {is_verified}"), limit, async || {
        (resolve(client, user).await.unwrap().is_verified == is_verified).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn look_ups_are_served_by_the_replica() {
    let pair = Pair::new();
    let server = pair.start(pair.service()).await;
    let ada = server.unverified_user("ada").await;
    let mut client = server.client().await;

    pair.assert_replica_answers_alone(&mut client, &ada).await;

    pair.wait_until_queried().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_registered_a_moment_ago_is_found_by_every_instance() {
    let pair = Pair::new();
    let server = pair.start(pair.service().with_env(LAG_MAX, NO_LAG_MAX)).await;
    let second_instance = server.second_instance().await;
    pair.wait_until_used(&second_instance, 0).await;
    let mut clients = [server.client().await, second_instance.client().await];
    let ada = server.unverified_user("ada").await;
    // The replica replays nothing from here on, so it has ada and none of the others.
    pair.verify_on_primary_only(&server, &ada).await;

    for number in 1..=64 {
        let bob = server.unverified_user(&format!("bob{number}")).await;
        for client in &mut clients {
            assert_eq!(resolve(client, &bob).await.unwrap(), bob);
            // A token without a user, a user that is only on the primary, and a user that is on both.
            let unknown = User { auth_token: Uuid::from_u128(number).to_string(), ..User::default() };
            let all = resolve_all(client, &[&unknown, &bob, &ada]).await.unwrap();
            let names: Vec<&str> = all.users.iter().map(|user| user.username.as_str()).collect();
            assert_eq!(names, [&bob.username, &ada.username]);
            assert_eq!(all.unknown_auth_tokens, std::slice::from_ref(&unknown.auth_token));
            assert_refused(&resolve(client, &unknown).await.unwrap_err(), Code::NotFound, "USER_NOT_FOUND");
        }
    }

    // The replica is in use: it still shows ada as not verified.
    for client in &mut clients {
        wait_until_seen_as(client, &ada, UNVERIFIED, LIMIT).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_registrations_and_look_ups_by_email_use_the_primary() {
    let pair = Pair::new();
    let server = pair.start(pair.service().with_env(LAG_MAX, NO_LAG_MAX)).await;
    let mut client = server.client().await;
    let ada = server.unverified_user("ada").await;
    pair.verify_on_primary_only(&server, &ada).await;
    wait_until_seen_as(&mut client, &ada, UNVERIFIED, LIMIT).await;
    let bob = server.member("bob").await;

    let logged_in = client.login(login("ada", PASSWORD)).await.unwrap().into_inner().user.unwrap();
    let found = client.find_user(by_email(&ada.email)).await.unwrap().into_inner().user.unwrap();
    let taken = client.register(registration("bob")).await.unwrap_err();

    assert!(logged_in.is_verified && found.is_verified && bob.is_verified);
    assert_refused(&taken, Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");
    wait_until_seen_as(&mut client, &ada, UNVERIFIED, LIMIT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lagging_replica_is_not_used_until_it_has_caught_up() {
    let pair = Pair::new();
    let server = pair.start(pair.service().with_env(LAG_MAX, "200ms")).await;
    let mut client = server.client().await;
    let ada = server.unverified_user("ada").await;

    let verified = pair.verify_on_primary_only(&server, &ada).await;
    wait_until_seen_as(&mut client, &ada, VERIFIED, EXCLUDED_LIMIT).await;
    pair.wait_until_excluded(&server).await;

    let before = pair.times_used(&server);
    pair.replica.resume_replay();
    pair.wait_until_used(&server, before).await;
    pair.assert_replica_answers_alone(&mut client, &verified).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_dies_under_load_fails_no_call() {
    let pair = Pair::new();
    let server = pair.start(pair.service()).await;
    let (ada, bob) = (server.unverified_user("ada").await, server.unverified_user("bob").await);
    let load = Load::start(&server, &ada, &bob).await;
    pair.wait_until_queried().await;

    pair.replica.stop_immediate();
    pair.wait_until_excluded(&server).await;
    load.wait_for_progress().await;

    let before = pair.times_used(&server);
    pair.replica.start();
    pair.wait_until_used(&server, before).await;
    load.wait_for_progress().await;
    pair.wait_until_queried().await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_freezes_under_load_fails_no_call() {
    let pair = Pair::new();
    let limits = pair
        .service()
        .with_env("KAIROS_IDENTITY_DATABASE_ACQUIRE_TIMEOUT", "500ms")
        .with_env("KAIROS_IDENTITY_DATABASE_STATEMENT_TIMEOUT", "1s");
    let server = pair.start(limits).await;
    let (ada, bob) = (server.unverified_user("ada").await, server.unverified_user("bob").await);
    let load = Load::start(&server, &ada, &bob).await;
    pair.wait_until_queried().await;

    pair.replica.pause();
    pair.wait_until_excluded(&server).await;
    load.wait_for_progress().await;

    let before = pair.times_used(&server);
    pair.replica.resume();
    pair.wait_until_used(&server, before).await;
    load.wait_for_progress().await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_replica_is_not_used() {
    let pair = Pair::new();
    let server = pair.start(pair.service()).await;
    let ada = server.unverified_user("ada").await;
    pair.replica.catch_up(&pair.primary);

    pair.replica.psql("postgres", "SELECT pg_promote()");
    // The promoted replica accepts writes, so that its data now differ from those of the primary.
    pair.replica.psql(pair.database.name(), "DELETE FROM core_user");
    pair.wait_until_excluded(&server).await;

    assert_eq!(resolve(&mut server.client().await, &ada).await.unwrap(), ada);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_starts_while_its_replica_is_down() {
    let pair = Pair::new();
    pair.replica.stop_immediate();

    let server = pair.service().start().await;

    let ada = server.unverified_user("ada").await;
    let mut client = server.client().await;
    assert_eq!(resolve(&mut client, &ada).await.unwrap(), ada);
    assert_eq!(pair.times_used(&server), 0);
    pair.replica.start();
    pair.wait_until_used(&server, 0).await;
    pair.assert_replica_answers_alone(&mut client, &ada).await;
}
