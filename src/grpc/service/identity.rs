//! `IdentityService`: calls the handler of each RPC.

use tonic::{Request, Response};

use super::{
    super::{login, registration, resolution},
    Api, RpcResult, origin, visible,
};
use crate::proto::{self, identity_service_server::IdentityService};

#[tonic::async_trait]
impl IdentityService for Api {
    async fn register(&self, request: Request<proto::RegisterRequest>) -> RpcResult<proto::RegisterResponse> {
        let mailed_by = self.mailed_by(&request, request.get_ref().return_mail_token)?;
        let (origin, visible) = (origin(&request), visible(&request));
        registration::register(&self.accounts, request.into_inner(), mailed_by, origin, visible)
            .await
            .map(Response::new)
    }

    async fn verify_email(
        &self,
        request: Request<proto::VerifyEmailRequest>,
    ) -> RpcResult<proto::VerifyEmailResponse> {
        let (origin, visible) = (origin(&request), visible(&request));
        registration::verify_email(&self.accounts, request.into_inner(), &origin, visible)
            .await
            .map(Response::new)
    }

    async fn resend_verification_email(
        &self,
        request: Request<proto::ResendVerificationEmailRequest>,
    ) -> RpcResult<proto::ResendVerificationEmailResponse> {
        let mailed_by = self.mailed_by(&request, request.get_ref().return_mail_token)?;
        let origin = origin(&request);
        registration::resend_verification_email(&self.accounts, request.into_inner(), mailed_by, origin)
            .await
            .map(Response::new)
    }

    async fn login(&self, request: Request<proto::LoginRequest>) -> RpcResult<proto::LoginResponse> {
        let (origin, visible) = (origin(&request), visible(&request));
        login::login(&self.accounts, request.into_inner(), &origin, visible).await.map(Response::new)
    }

    async fn resolve_token(
        &self,
        request: Request<proto::ResolveTokenRequest>,
    ) -> RpcResult<proto::ResolveTokenResponse> {
        let visible = visible(&request);
        resolution::resolve_token(&self.store, request.into_inner(), visible).await.map(Response::new)
    }

    async fn resolve_tokens(
        &self,
        request: Request<proto::ResolveTokensRequest>,
    ) -> RpcResult<proto::ResolveTokensResponse> {
        let visible = visible(&request);
        resolution::resolve_tokens(&self.store, request.into_inner(), visible).await.map(Response::new)
    }

    async fn find_user(
        &self,
        request: Request<proto::FindUserRequest>,
    ) -> RpcResult<proto::FindUserResponse> {
        let (origin, visible) = (origin(&request), visible(&request));
        resolution::find_user(&self.store, request.into_inner(), &origin, visible).await.map(Response::new)
    }
}
