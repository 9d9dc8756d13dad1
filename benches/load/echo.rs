//! The reference server: returns a constant user with the accept loop of the service, without its layers.

use std::{net::SocketAddr, time::Duration};

use clap::Args;
use kairos_identity::{
    entropy::Entropy,
    proto::{
        self,
        identity_service_server::{IdentityService, IdentityServiceServer},
    },
    server::{
        self, BodyLimit, BodyLimits, BodyRefusal, ConnectionMetrics, HttpHandler, Peer, PeerLimits,
        ServerOptions, WorkerThreads, Workers,
    },
};
use prost_types::Timestamp;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, body::Body, codegen::Service, service::Routes};

use crate::{
    Failure,
    tokens::{auth_token, email},
};

#[derive(Debug, Args)]
pub struct Echo {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:50052")]
    listen: SocketAddr,
}

impl Echo {
    pub async fn run(self) -> Result<(), Failure> {
        let listener = server::bind(self.listen)?;
        eprintln!("Serving echo on {}", listener.local_addr()?);
        let service = IdentityServiceServer::new(Constant { user: user() });
        let routes = Routes::new(service).prepare();
        let stop = CancellationToken::new();
        let threads = WorkerThreads::start(0)?;
        let options = options(threads.workers().clone());
        server::serve(listener, EchoService(routes), options, None, Entropy::system(), stop).await;
        Ok(())
    }
}

/// Calls tonic's router as tonic's own accept loop does.
struct EchoService(Routes);

impl HttpHandler for EchoService {
    async fn answer(&self, request: http::Request<Body>, _: &Peer) -> http::Response<Body> {
        self.0.clone().call(request).await.unwrap_or_else(|never| match never {})
    }
}

impl BodyLimits for EchoService {
    fn body_limit(&self, _: &str) -> BodyLimit {
        BodyLimit { bytes_max: 64 * 1024, waiting_bytes: 16 * 1024, is_of_health: false }
    }

    fn reserved_bytes(_: &[u8]) -> usize {
        0
    }

    fn body_refused(refusal: BodyRefusal) -> Status {
        Status::resource_exhausted(format!("{refusal:?}"))
    }
}

/// Returns the default settings of the service.
fn options(workers: Workers) -> ServerOptions {
    ServerOptions {
        workers,
        connections_max: 10_000,
        peer_limits: PeerLimits {
            connections_max: 1_000,
            calls_max: 2_048,
            streaming_calls_max: 64,
            unfinished_bytes_max: 4 * 1024 * 1024,
            unfinished_bytes_total_max: 128 * 1024 * 1024,
            waiting_bytes_total_max: 128 * 1024 * 1024,
        },
        first_byte_timeout: Duration::from_secs(10),
        tls_handshake_timeout: Duration::from_secs(10),
        connection_age: Duration::from_mins(30),
        connection_idle: Duration::from_mins(5),
        connection_age_grace: Duration::from_secs(30),
        keepalive_interval: Duration::from_secs(20),
        keepalive_timeout: Duration::from_secs(10),
        streams_per_connection_max: 256,
        header_list_bytes_max: 16 * 1024,
        send_buffer_bytes_max: 64 * 1024,
        late_bytes_max: 8 * 1024 * 1024,
        late_bytes_timeout: Duration::from_secs(10),
        resets_per_second_max: 100,
        drain_deadline: Duration::from_secs(1),
        metrics: ConnectionMetrics::default().of_port("api"),
    }
}

fn user() -> proto::User {
    let at = Timestamp { seconds: 1_767_225_600, nanos: 1_000 };
    proto::User {
        auth_token: auth_token(0).to_string(),
        username: "User 123456".to_owned(),
        email: email(123_456),
        is_verified: true,
        created_at: Some(at),
        updated_at: Some(at),
        state: proto::UserState::Active.into(),
    }
}

struct Constant {
    user: proto::User,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl IdentityService for Constant {
    async fn resolve_token(
        &self,
        _: Request<proto::ResolveTokenRequest>,
    ) -> Answer<proto::ResolveTokenResponse> {
        Ok(Response::new(proto::ResolveTokenResponse { user: Some(self.user.clone()) }))
    }

    async fn register(&self, _: Request<proto::RegisterRequest>) -> Answer<proto::RegisterResponse> {
        Err(only_resolve_token())
    }

    async fn verify_email(
        &self,
        _: Request<proto::VerifyEmailRequest>,
    ) -> Answer<proto::VerifyEmailResponse> {
        Err(only_resolve_token())
    }

    async fn resend_verification_email(
        &self,
        _: Request<proto::ResendVerificationEmailRequest>,
    ) -> Answer<proto::ResendVerificationEmailResponse> {
        Err(only_resolve_token())
    }

    async fn login(&self, _: Request<proto::LoginRequest>) -> Answer<proto::LoginResponse> {
        Err(only_resolve_token())
    }

    async fn resolve_tokens(
        &self,
        _: Request<proto::ResolveTokensRequest>,
    ) -> Answer<proto::ResolveTokensResponse> {
        Err(only_resolve_token())
    }

    async fn find_user(&self, _: Request<proto::FindUserRequest>) -> Answer<proto::FindUserResponse> {
        Err(only_resolve_token())
    }
}

fn only_resolve_token() -> Status {
    Status::unimplemented("the reference server implements only ResolveToken")
}
