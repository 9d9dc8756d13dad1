//! The table of contents: one line an RPC.

use tonic::{Request, Response, Status, service::Routes};

use super::{login, registration, resolution};
use crate::{
    accounts::Accounts,
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
}

/// The service behind its path; a request is at most `message_bytes_max` long.
#[must_use]
pub fn routes(api: IdentityApi, message_bytes_max: usize) -> Routes {
    Routes::new(IdentityServiceServer::new(api).max_decoding_message_size(message_bytes_max))
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl IdentityService for IdentityApi {
    async fn register(&self, request: Request<proto::RegisterRequest>) -> Answer<proto::RegisterResponse> {
        registration::register(&self.accounts, request.into_inner()).await.map(Response::new)
    }

    async fn verify_email(
        &self,
        request: Request<proto::VerifyEmailRequest>,
    ) -> Answer<proto::VerifyEmailResponse> {
        registration::verify_email(&self.accounts, request.into_inner()).await.map(Response::new)
    }

    async fn resend_verification_email(
        &self,
        request: Request<proto::ResendVerificationEmailRequest>,
    ) -> Answer<proto::ResendVerificationEmailResponse> {
        registration::resend_verification_email(&self.accounts, request.into_inner()).await.map(Response::new)
    }

    async fn login(&self, request: Request<proto::LoginRequest>) -> Answer<proto::LoginResponse> {
        login::login(&self.accounts, request.into_inner()).await.map(Response::new)
    }

    async fn resolve_token(
        &self,
        request: Request<proto::ResolveTokenRequest>,
    ) -> Answer<proto::ResolveTokenResponse> {
        resolution::resolve_token(&self.store, request.into_inner()).await.map(Response::new)
    }

    async fn resolve_tokens(
        &self,
        request: Request<proto::ResolveTokensRequest>,
    ) -> Answer<proto::ResolveTokensResponse> {
        resolution::resolve_tokens(&self.store, request.into_inner()).await.map(Response::new)
    }

    async fn find_user(&self, request: Request<proto::FindUserRequest>) -> Answer<proto::FindUserResponse> {
        resolution::find_user(&self.store, request.into_inner()).await.map(Response::new)
    }
}
