//! `SessionService`: calls the handler of each RPC.

use tonic::{Request, Response};

use super::{
    super::{acting::authenticate_user, sessions},
    Api, RpcResult, origin, visible,
};
use crate::proto::{self, session_service_server::SessionService};

#[tonic::async_trait]
impl SessionService for Api {
    async fn refresh_session(
        &self,
        request: Request<proto::RefreshSessionRequest>,
    ) -> RpcResult<proto::RefreshSessionResponse> {
        let (origin, visible) = (origin(&request), visible(&request));
        sessions::refresh_session(&self.accounts, request.into_inner(), &origin, visible)
            .await
            .map(Response::new)
    }

    async fn logout(&self, request: Request<proto::LogoutRequest>) -> RpcResult<proto::LogoutResponse> {
        let origin = origin(&request);
        sessions::logout(&self.accounts, request.into_inner(), &origin).await.map(Response::new)
    }

    async fn list_sessions(
        &self,
        request: Request<proto::ListSessionsRequest>,
    ) -> RpcResult<proto::ListSessionsResponse> {
        let acting = authenticate_user(&self.accounts, request.metadata(), &origin(&request)).await?;
        sessions::list_sessions(&self.accounts, &acting).await.map(Response::new)
    }

    async fn revoke_session(
        &self,
        request: Request<proto::RevokeSessionRequest>,
    ) -> RpcResult<proto::RevokeSessionResponse> {
        let origin = origin(&request);
        let acting = authenticate_user(&self.accounts, request.metadata(), &origin).await?;
        sessions::revoke_session(&self.accounts, &acting, request.into_inner(), &origin)
            .await
            .map(Response::new)
    }

    async fn revoke_all_sessions(
        &self,
        request: Request<proto::RevokeAllSessionsRequest>,
    ) -> RpcResult<proto::RevokeAllSessionsResponse> {
        let origin = origin(&request);
        let acting = authenticate_user(&self.accounts, request.metadata(), &origin).await?;
        sessions::revoke_all_sessions(&self.accounts, &acting, request.into_inner(), &origin)
            .await
            .map(Response::new)
    }

    async fn introspect_token(
        &self,
        request: Request<proto::IntrospectTokenRequest>,
    ) -> RpcResult<proto::IntrospectTokenResponse> {
        let (origin, visible) = (origin(&request), visible(&request));
        sessions::introspect_token(&self.accounts, request.into_inner(), &origin, visible)
            .await
            .map(Response::new)
    }

    async fn get_jwks(&self, _: Request<proto::GetJwksRequest>) -> RpcResult<proto::GetJwksResponse> {
        Ok(Response::new(sessions::get_jwks(&self.accounts)))
    }
}
