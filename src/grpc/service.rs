//! The table of contents: one line an RPC.

use tonic::{Request, Response, Status, body::Body, codegen::Service, server::NamedService, service::Routes};

use super::{
    layer::{Answers, RequestId, current_request_id},
    login, registration, resolution, unary,
};
use crate::{
    accounts::{Accounts, AuditTrail},
    callers::{Caller, Requester},
    domain::{AuditEvent, ClientAgent, Origin},
    proto::{
        self,
        identity_service_server::{IdentityService, IdentityServiceServer},
    },
    store::Store,
};

/// What the handlers act on.
#[derive(Clone)]
pub struct IdentityApi {
    /// What decides or changes.
    pub accounts: Accounts,
    /// What only reads.
    pub store: Store,
    /// Told of whom the layers turn away.
    pub audit: AuditTrail,
}

/// The API, and the services beside it (health, reflection).
///
/// The API is found by its path's beginning and called without the router, whose boxes would cost each call some
/// allocations; `ResolveToken` without those of the generated server too.
pub struct Services {
    identity: IdentityServiceServer<IdentityApi>,
    store: Store,
    audit: AuditTrail,
    message_bytes_max: usize,
    others: Routes,
}

impl Services {
    /// The API, whose requests are at most `message_bytes_max` long, and the others.
    #[must_use]
    pub fn new(api: IdentityApi, message_bytes_max: usize, others: Routes) -> Self {
        let (store, audit) = (api.store.clone(), api.audit.clone());
        let identity = IdentityServiceServer::new(api).max_decoding_message_size(message_bytes_max);
        Self { identity, store, audit, message_bytes_max, others: others.prepare() }
    }
}

impl Answers for Services {
    async fn answer(&self, mut request: http::Request<Body>, requester: Requester) -> http::Response<Body> {
        let path = request.uri().path();
        let answered = if path == RESOLVE_TOKEN && unary::is_plain(&request) {
            let resolve =
                |message| resolution::resolve_token(&self.store, message, requester.caller.fields());
            return unary::answer(request.into_body(), self.message_bytes_max, resolve).await;
        } else if is_ours(path) {
            request.extensions_mut().insert(requester);
            self.identity.clone().call(request).await
        } else {
            self.others.clone().call(request).await
        };
        answered.unwrap_or_else(|never| match never {})
    }

    fn refused(&self, event: AuditEvent) {
        self.audit.note(event);
    }
}

/// What the agent calls on every message, and so the one that is answered by [`unary`].
const RESOLVE_TOKEN: &str = "/kairos.identity.v1.IdentityService/ResolveToken";

/// Whether the path is `/kairos.identity.v1.IdentityService/…`.
fn is_ours(path: &str) -> bool {
    let rest =
        path.strip_prefix('/').and_then(|path| path.strip_prefix(<IdentityServiceServer<IdentityApi>>::NAME));
    rest.is_some_and(|method| method.starts_with('/'))
}

type Answer<T> = Result<Response<T>, Status>;

/// Who asks; nobody, should the layers have let through somebody unknown.
fn requester<T>(request: &Request<T>) -> Requester {
    let nobody = || Requester { caller: Caller::nobody(), client: None, peer: None };
    request.extensions().get::<Requester>().cloned().unwrap_or_else(nobody)
}

/// The end user's program; of a caller that may not tell it, it is not believed.
const CLIENT_AGENT: &str = "kairos-client-agent";

/// Who asks, to be written down.
fn origin<T>(request: &Request<T>, requester: &Requester) -> Origin {
    let agent = request.metadata().get(CLIENT_AGENT);
    let agent = agent.and_then(|agent| ClientAgent::from_told(agent.as_encoded_bytes()));
    requester.origin(agent, current_request_id().map(RequestId::as_uuid))
}

#[tonic::async_trait]
impl IdentityService for IdentityApi {
    async fn register(&self, request: Request<proto::RegisterRequest>) -> Answer<proto::RegisterResponse> {
        let requester = requester(&request);
        let origin = origin(&request, &requester);
        registration::register(&self.accounts, request.into_inner(), origin, requester.caller.fields())
            .await
            .map(Response::new)
    }

    async fn verify_email(
        &self,
        request: Request<proto::VerifyEmailRequest>,
    ) -> Answer<proto::VerifyEmailResponse> {
        let requester = requester(&request);
        let origin = origin(&request, &requester);
        registration::verify_email(&self.accounts, request.into_inner(), &origin, requester.caller.fields())
            .await
            .map(Response::new)
    }

    async fn resend_verification_email(
        &self,
        request: Request<proto::ResendVerificationEmailRequest>,
    ) -> Answer<proto::ResendVerificationEmailResponse> {
        let origin = origin(&request, &requester(&request));
        registration::resend_verification_email(&self.accounts, request.into_inner(), origin)
            .await
            .map(Response::new)
    }

    async fn login(&self, request: Request<proto::LoginRequest>) -> Answer<proto::LoginResponse> {
        let requester = requester(&request);
        let origin = origin(&request, &requester);
        login::login(&self.accounts, request.into_inner(), &origin, requester.caller.fields())
            .await
            .map(Response::new)
    }

    async fn resolve_token(
        &self,
        request: Request<proto::ResolveTokenRequest>,
    ) -> Answer<proto::ResolveTokenResponse> {
        let requester = requester(&request);
        resolution::resolve_token(&self.store, request.into_inner(), requester.caller.fields())
            .await
            .map(Response::new)
    }

    async fn resolve_tokens(
        &self,
        request: Request<proto::ResolveTokensRequest>,
    ) -> Answer<proto::ResolveTokensResponse> {
        let requester = requester(&request);
        resolution::resolve_tokens(&self.store, request.into_inner(), requester.caller.fields())
            .await
            .map(Response::new)
    }

    async fn find_user(&self, request: Request<proto::FindUserRequest>) -> Answer<proto::FindUserResponse> {
        let requester = requester(&request);
        resolution::find_user(&self.store, request.into_inner(), requester.caller.fields())
            .await
            .map(Response::new)
    }
}
