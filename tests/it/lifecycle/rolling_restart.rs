//! Three instances on one database, restarted one after the other under load.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use kairos_identity::proto::{
    ResolveTokenRequest, SetVerifiedRequest, admin_service_client::AdminServiceClient,
    identity_service_client::IdentityServiceClient,
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

use crate::support::{
    engine::Engine,
    people::{PASSWORD, address, by_email, login, registration},
    server::TestServer,
};

const INSTANCES: usize = 3;
const WORKERS: usize = 4;

/// The longest time for which a call is repeated at the other instances.
const REPEATED_FOR: Duration = Duration::from_secs(20);

/// A user whose registration was acknowledged.
struct Acknowledged {
    name: String,
    auth_token: String,
    is_verified: bool,
}

/// A client that repeats a call at the next instance while an instance is away.
struct Client<'a>(&'a RefCell<Vec<SocketAddr>>);

impl Client<'_> {
    /// Calls until an instance gives another answer than UNAVAILABLE. CANCELLED and UNKNOWN are of the
    /// transport.
    async fn call<T>(&self, call: impl AsyncFn(Channel) -> Result<T, Status>) -> Result<T, Status> {
        let began = Instant::now();
        for turn in 0.. {
            let address = self.0.borrow()[turn % INSTANCES];
            let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await;
            let refusal = match channel {
                Ok(channel) => match call(channel).await {
                    Err(status)
                        if matches!(status.code(), Code::Unavailable | Code::Cancelled | Code::Unknown) =>
                    {
                        status
                    }
                    answer => return answer,
                },
                Err(error) => Status::unavailable(error.to_string()),
            };
            assert!(began.elapsed() < REPEATED_FOR, "no instance answers: {refusal}");
        }
        unreachable!("the loop ends with an answer")
    }
}

/// Registers users until `is_stopped`, verifies those with an even number, and logs them in.
async fn work(worker: usize, client: Client<'_>, is_stopped: &Cell<bool>) -> Vec<Acknowledged> {
    let mut acknowledged = Vec::new();
    for number in 0_u64.. {
        if is_stopped.get() {
            break;
        }
        let name = format!("w{worker}u{number}");
        let mut request = registration(&name);
        // Makes the repetition safe: https://google.aip.dev/155
        request.request_id = Uuid::from_u64_pair(u64::try_from(worker).unwrap() + 1, number).to_string();
        let registered = client
            .call(async |channel| IdentityServiceClient::new(channel).register(request.clone()).await)
            .await
            .unwrap();
        let auth_token = registered.into_inner().user.unwrap().auth_token;
        let is_verified = number % 2 == 0;
        if is_verified {
            let request = SetVerifiedRequest { auth_token: auth_token.clone(), is_verified: Some(true) };
            client
                .call(async |channel| AdminServiceClient::new(channel).set_verified(request.clone()).await)
                .await
                .unwrap();
            client
                .call(async |channel| IdentityServiceClient::new(channel).login(login(&name, PASSWORD)).await)
                .await
                .unwrap();
        }
        let request = ResolveTokenRequest { auth_token: auth_token.clone() };
        client
            .call(async |channel| IdentityServiceClient::new(channel).resolve_token(request.clone()).await)
            .await
            .unwrap();
        acknowledged.push(Acknowledged { name, auth_token, is_verified });
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_three_instances_loses_nothing() {
    let first = TestServer::start(Engine::Postgres).await;
    let mut instances = vec![first.second_instance().await, first.second_instance().await, first];
    let addresses = RefCell::new(instances.iter().map(TestServer::address).collect::<Vec<_>>());
    let is_stopped = Cell::new(false);
    let workers = (0..WORKERS).map(|worker| work(worker, Client(&addresses), &is_stopped));

    let restarts = async {
        for _ in 0..2 {
            for (index, instance) in instances.iter_mut().enumerate() {
                instance.terminate();
                assert!(instance.wait().await.success());
                instance.restart().await;
                addresses.borrow_mut()[index] = instance.address();
            }
        }
        is_stopped.set(true);
    };
    let (acknowledged, ()) = tokio::join!(join_all(workers), restarts);
    let acknowledged: Vec<_> = acknowledged.into_iter().flatten().collect();
    assert!(acknowledged.len() > 3 * WORKERS, "{} users", acknowledged.len());

    let mut client = instances[0].client().await;
    for Acknowledged { name, auth_token, is_verified } in &acknowledged {
        let found = client.find_user(by_email(&address(name))).await.unwrap().into_inner().user.unwrap();
        assert_eq!((&found.auth_token, found.is_verified), (auth_token, *is_verified));
    }
    for instance in &instances {
        assert!(!instance.log().contains("\"level\":\"ERROR\""), "{}", instance.log());
    }
}
