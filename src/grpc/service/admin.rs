//! `AdminService`: calls the handler of each RPC.

use tonic::{Request, Response};

use super::{
    super::{admin, audit_events},
    Api, RpcResult, origin, visible,
};
use crate::proto::{self, admin_service_server::AdminService};

#[tonic::async_trait]
impl AdminService for Api {
    async fn get_user(&self, request: Request<proto::GetUserRequest>) -> RpcResult<proto::GetUserResponse> {
        let (origin, visible) = (origin(&request), visible(&request));
        admin::get_user(&self.administration, request.into_inner(), &origin, visible).await.map(Response::new)
    }

    async fn list_users(
        &self,
        request: Request<proto::ListUsersRequest>,
    ) -> RpcResult<proto::ListUsersResponse> {
        let visible = visible(&request);
        if !admin::filters_by_visible_fields(request.get_ref(), visible) {
            return Err(self.deny(&request, "filter users by a field that it may not see"));
        }
        admin::list_users(&self.administration, &self.page_tokens, request.into_inner(), visible)
            .await
            .map(Response::new)
    }

    async fn set_verified(
        &self,
        request: Request<proto::SetVerifiedRequest>,
    ) -> RpcResult<proto::SetVerifiedResponse> {
        let (origin, visible) = (origin(&request), visible(&request));
        admin::set_verified(&self.administration, &self.mails, request.into_inner(), &origin, visible)
            .await
            .map(Response::new)
    }

    async fn disable_user(
        &self,
        request: Request<proto::DisableUserRequest>,
    ) -> RpcResult<proto::DisableUserResponse> {
        let (origin, visible) = (origin(&request), visible(&request));
        admin::disable_user(&self.administration, &self.mails, request.into_inner(), &origin, visible)
            .await
            .map(Response::new)
    }

    async fn enable_user(
        &self,
        request: Request<proto::EnableUserRequest>,
    ) -> RpcResult<proto::EnableUserResponse> {
        let (origin, visible) = (origin(&request), visible(&request));
        admin::enable_user(&self.administration, &self.mails, request.into_inner(), &origin, visible)
            .await
            .map(Response::new)
    }

    async fn unlock_user(
        &self,
        request: Request<proto::UnlockUserRequest>,
    ) -> RpcResult<proto::UnlockUserResponse> {
        let origin = origin(&request);
        admin::unlock_user(&self.administration, request.into_inner(), &origin).await.map(Response::new)
    }

    async fn delete_user(
        &self,
        request: Request<proto::DeleteUserRequest>,
    ) -> RpcResult<proto::DeleteUserResponse> {
        let origin = origin(&request);
        admin::delete_user(&self.administration, &self.mails, request.into_inner(), &origin)
            .await
            .map(Response::new)
    }

    async fn revoke_user_sessions(
        &self,
        request: Request<proto::RevokeUserSessionsRequest>,
    ) -> RpcResult<proto::RevokeUserSessionsResponse> {
        let origin = origin(&request);
        admin::revoke_user_sessions(&self.administration, request.into_inner(), &origin)
            .await
            .map(Response::new)
    }

    async fn start_password_reset(
        &self,
        request: Request<proto::StartPasswordResetRequest>,
    ) -> RpcResult<proto::StartPasswordResetResponse> {
        let origin = origin(&request);
        admin::start_password_reset(&self.administration, &self.mails, request.into_inner(), &origin)
            .await
            .map(Response::new)
    }

    async fn list_audit_events(
        &self,
        request: Request<proto::ListAuditEventsRequest>,
    ) -> RpcResult<proto::ListAuditEventsResponse> {
        let origin = origin(&request);
        audit_events::list_audit_events(
            &self.administration,
            &self.page_tokens,
            request.into_inner(),
            &origin,
        )
        .await
        .map(Response::new)
    }
}
