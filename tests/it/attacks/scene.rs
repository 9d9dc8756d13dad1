//! A service under attack, and a well-behaved client that resolves a token some 200 times a second meanwhile.

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

/// By how much an attack may make the service grow, in MiB.
const GROWTH_MAX_MIB: u64 = 64;

/// Within how long the memory comes back, and up to what: a tenth, and what an allocator keeps.
const MEMORY_LIMIT: Duration = Duration::from_secs(30);
const KEPT_MIB: u64 = 8;

/// The client is somebody else than its attackers.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Between two calls.
const PAUSE: Duration = Duration::from_millis(5);

/// A call that takes so long has failed; so has a new connection with its first call.
const CALL_LIMIT: Duration = Duration::from_secs(1);

/// How often the client calls before the attack begins.
const CALLS_BEFORE: usize = 200;

/// Set when the attack is over.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The service, and its client.
pub struct Scene {
    server: TestServer,
    endpoint: Endpoint,
    client: IdentityServiceClient<Channel>,
    request: ResolveTokenRequest,
    // Its files are read again.
    _certificate: Option<Certificate>,
}

impl Scene {
    /// A service without TLS, with these settings.
    pub async fn plain(settings: impl FnOnce(Builder) -> Builder) -> Self {
        let server = settings(TestServer::builder(Engine::Sqlite)).start().await;
        let endpoint = Endpoint::from_shared(format!("http://{}", server.address())).unwrap();
        Self::with(server, endpoint, None).await
    }

    /// The same with TLS.
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
        let endpoint = endpoint.local_address(Some(CLIENT));
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

    /// A call on the client's own connection; how long it took, if it was answered.
    pub async fn call(&mut self) -> Option<Duration> {
        let began = Instant::now();
        let answer = timeout(CALL_LIMIT, self.client.resolve_token(self.request.clone())).await;
        matches!(answer, Ok(Ok(_))).then(|| began.elapsed())
    }

    /// Connects anew and calls.
    pub async fn call_anew(&self) -> bool {
        let call = async {
            let channel = self.endpoint.connect().await.ok()?;
            IdentityServiceClient::new(channel).resolve_token(self.request.clone()).await.ok()
        };
        matches!(timeout(CALL_LIMIT, call).await, Ok(Some(_)))
    }

    /// Lets the attackers loose, each of whom gives how often it was cut off, and asserts what must hold meanwhile and
    /// afterwards; prints what it came to and gives how often they were cut off in all.
    pub async fn play(
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
        stop.0.store(true, Ordering::Relaxed);
        let cut_off = attackers.join_all().await.into_iter().sum();

        let answered = times.len();
        assert!(answered > 0 && failed * 1_000 <= answered, "{name}: {answered} answered, {failed} failed");
        assert!(peak_mib < before_mib + GROWTH_MAX_MIB, "{name}: from {before_mib} to {peak_mib} MiB");
        assert!(self.server.is_running());
        let may_keep_mib = before_mib + before_mib / 10 + KEPT_MIB;
        let begins = Instant::now();
        let mut after_mib = self.server.resident_mib();
        while after_mib > may_keep_mib && begins.elapsed() < MEMORY_LIMIT {
            // The client goes on: an allocator gives memory back when it is asked for some.
            self.call().await;
            tokio::time::sleep(PAUSE).await;
            after_mib = self.server.resident_mib();
        }
        println!(
            "| {name} | {answered} | {failed} | {:.1} | {:.1} | {before_mib} | {peak_mib} | {after_mib} | {cut_off} |",
            before_p99.as_secs_f64() * 1e3,
            p99(times).as_secs_f64() * 1e3
        );
        assert!(after_mib <= may_keep_mib, "{name}: {after_mib} MiB stay of {before_mib} and {peak_mib}");
        assert!(self.call_anew().await, "who comes afterwards is served too");
        let log = self.server.log();
        assert!(!log.contains("panicked"), "{log}");
        cut_off
    }
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() * 99 / 100).copied().unwrap_or_default()
}
