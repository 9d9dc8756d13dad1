//! A service under attack, and a well-behaved client that meanwhile resolves a token up to 200 times a
//! second.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use kairos_identity::proto::{ResolveTokenRequest, identity_service_client::IdentityServiceClient};
use tokio::{task::JoinSet, time::timeout};
use tonic::transport::{Channel, Endpoint};

use crate::support::{
    engine::Engine,
    people::registration,
    server::{Builder, TestServer},
    tls::Certificate,
    tools::attack_seconds,
};

/// Limit of the memory growth of the service during an attack, in MiB.
const GROWTH_MAX_MIB: u64 = 64;

/// Time within which the memory must shrink after an attack, to at most 1.1 times its size before the attack
/// plus [`RESIDUE_MIB_MAX`].
const MEMORY_RELEASE_LIMIT: Duration = Duration::from_secs(30);

/// Memory in MiB that the allocator may keep after an attack.
const RESIDUE_MIB_MAX: u64 = 8;

/// Address of the client, which differs from the address of the attackers.
const CLIENT_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Pause between two calls of the client.
const PAUSE: Duration = Duration::from_millis(5);

/// Time limit for a call on an open connection, and for a new connection together with its first call.
const CALL_LIMIT: Duration = Duration::from_secs(1);

/// Number of calls of the client before the attack begins.
const CALLS_BEFORE: usize = 200;

/// Flag that is set when the attack is over.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The service and its client.
pub struct Scene {
    server: TestServer,
    endpoint: Endpoint,
    client: IdentityServiceClient<Channel>,
    request: ResolveTokenRequest,
    // Keeps the certificate files in place, since the service reads them again.
    _certificate: Option<Certificate>,
}

impl Scene {
    /// Starts a service without TLS, with these settings.
    pub async fn plain(settings: impl FnOnce(Builder) -> Builder) -> Self {
        let server = settings(TestServer::builder(Engine::Sqlite)).start().await;
        let endpoint = Endpoint::from_shared(format!("http://{}", server.address())).unwrap();
        Self::with(server, endpoint, None).await
    }

    /// Starts a service with TLS, with these settings.
    pub async fn tls(settings: impl FnOnce(Builder) -> Builder) -> Self {
        let certificate = Certificate::localhost();
        let (chain, key) = (certificate.certificate(), certificate.key());
        let flags = ["--tls-cert", chain.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
        let server = settings(TestServer::builder(Engine::Sqlite).with_args(&flags)).start().await;
        let endpoint = Endpoint::from_shared(format!("https://{}", server.address()))
            .unwrap()
            .tls_config(certificate.trust())
            .unwrap();
        Self::with(server, endpoint, Some(certificate)).await
    }

    async fn with(server: TestServer, endpoint: Endpoint, certificate: Option<Certificate>) -> Self {
        let endpoint = endpoint.local_address(Some(CLIENT_ADDRESS));
        let mut client = IdentityServiceClient::new(endpoint.connect().await.unwrap());
        let ada = client.register(registration("ada")).await.unwrap().into_inner().user.unwrap();
        let request = ResolveTokenRequest { auth_token: ada.auth_token };
        Self { server, endpoint, client, request, _certificate: certificate }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    pub fn server(&self) -> &TestServer {
        &self.server
    }

    /// Calls on the client's open connection. Returns the duration of the call, or `None` if the call failed.
    pub async fn call(&mut self) -> Option<Duration> {
        let began = Instant::now();
        let answer = timeout(CALL_LIMIT, self.client.resolve_token(self.request.clone())).await;
        matches!(answer, Ok(Ok(_))).then(|| began.elapsed())
    }

    /// Opens a new connection and calls. True if the call succeeds.
    pub async fn call_on_new_connection(&self) -> bool {
        let call = async {
            let channel = self.endpoint.connect().await.ok()?;
            IdentityServiceClient::new(channel).resolve_token(self.request.clone()).await.ok()
        };
        matches!(timeout(CALL_LIMIT, call).await, Ok(Some(_)))
    }

    /// Starts the attackers and calls meanwhile. Asserts that at most one call in 1,000 fails and that the
    /// memory stays within its limits during and after the attack, and prints the figures. Each attacker
    /// returns how often it was disconnected; the result is the sum.
    pub async fn run_attack(
        mut self,
        name: &str,
        attackers: impl FnOnce(SocketAddr, &Stop) -> JoinSet<u64>,
    ) -> u64 {
        let mut before = Vec::new();
        for _ in 0..CALLS_BEFORE {
            before.extend(self.call().await);
        }
        let (before_p99, before_mib) = (p99(before), self.server.resident_mib());

        let stop = Stop::default();
        let attackers = attackers(self.address(), &stop);
        let ends = Instant::now() + attack_seconds();
        let (mut times, mut failed, mut peak_mib) = (Vec::new(), 0, before_mib);
        while Instant::now() < ends {
            match self.call().await {
                Some(time) => times.push(time),
                None => failed += 1,
            }
            peak_mib = peak_mib.max(self.server.resident_mib());
            tokio::time::sleep(PAUSE).await;
        }
        stop.set();
        let disconnected = attackers.join_all().await.into_iter().sum();

        let answered = times.len();
        assert!(answered > 0 && failed * 1_000 <= answered, "{name}: {answered} answered, {failed} failed");
        assert!(peak_mib < before_mib + GROWTH_MAX_MIB, "{name}: from {before_mib} to {peak_mib} MiB");
        assert!(self.server.is_running());
        let after_mib_max = before_mib + before_mib / 10 + RESIDUE_MIB_MAX;
        let begins = Instant::now();
        let mut after_mib = self.server.resident_mib();
        while after_mib > after_mib_max && begins.elapsed() < MEMORY_RELEASE_LIMIT {
            // The client keeps calling: the allocator returns memory to the system only when it is used.
            self.call().await;
            tokio::time::sleep(PAUSE).await;
            after_mib = self.server.resident_mib();
        }
        println!(
            "| {name} | {answered} | {failed} | {:.1} | {:.1} | {before_mib} | {peak_mib} | {after_mib} | {disconnected} |",
            before_p99.as_secs_f64() * 1e3,
            p99(times).as_secs_f64() * 1e3
        );
        assert!(
            after_mib <= after_mib_max,
            "{name}: {after_mib} MiB remain; {before_mib} MiB before, {peak_mib} MiB at the peak"
        );
        assert!(self.call_on_new_connection().await, "a new connection after the attack is served");
        let log = self.server.log();
        assert!(!log.contains("panicked"), "{log}");
        disconnected
    }
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() * 99 / 100).copied().unwrap_or_default()
}
