//! `AccountService`: calls the handler of each RPC.

use tonic::{Request, Response};

use super::{
    super::{account, acting::authenticate_user},
    Api, RpcResult, origin, visible,
};
use crate::proto::{self, account_service_server::AccountService};

#[tonic::async_trait]
impl AccountService for Api {
    async fn get_account(
        &self,
        request: Request<proto::GetAccountRequest>,
    ) -> RpcResult<proto::GetAccountResponse> {
        let (origin, visible) = (origin(&request), visible(&request));
        let acting = authenticate_user(&self.accounts, request.metadata(), &origin).await?;
        Ok(Response::new(account::get_account(acting, visible)))
    }

    async fn update_account(
        &self,
        request: Request<proto::UpdateAccountRequest>,
    ) -> RpcResult<proto::UpdateAccountResponse> {
        let (origin, visible) = (origin(&request), visible(&request));
        let acting = authenticate_user(&self.accounts, request.metadata(), &origin).await?;
        account::update_account(&self.accounts, &acting, request.into_inner(), &origin, visible)
            .await
            .map(Response::new)
    }

    async fn change_password(
        &self,
        request: Request<proto::ChangePasswordRequest>,
    ) -> RpcResult<proto::ChangePasswordResponse> {
        let origin = origin(&request);
        let acting = authenticate_user(&self.accounts, request.metadata(), &origin).await?;
        account::change_password(&self.accounts, &acting, request.into_inner(), &origin)
            .await
            .map(Response::new)
    }

    async fn request_email_change(
        &self,
        request: Request<proto::RequestEmailChangeRequest>,
    ) -> RpcResult<proto::RequestEmailChangeResponse> {
        let mailed_by = self.mailed_by(&request, request.get_ref().return_mail_token)?;
        let origin = origin(&request);
        let acting = authenticate_user(&self.accounts, request.metadata(), &origin).await?;
        account::request_email_change(&self.accounts, &acting, request.into_inner(), mailed_by, &origin)
            .await
            .map(Response::new)
    }

    async fn confirm_email_change(
        &self,
        request: Request<proto::ConfirmEmailChangeRequest>,
    ) -> RpcResult<proto::ConfirmEmailChangeResponse> {
        let (origin, visible) = (origin(&request), visible(&request));
        account::confirm_email_change(&self.accounts, request.into_inner(), &origin, visible)
            .await
            .map(Response::new)
    }

    async fn undo_email_change(
        &self,
        request: Request<proto::UndoEmailChangeRequest>,
    ) -> RpcResult<proto::UndoEmailChangeResponse> {
        let (origin, visible) = (origin(&request), visible(&request));
        account::undo_email_change(&self.accounts, request.into_inner(), &origin, visible)
            .await
            .map(Response::new)
    }

    async fn delete_account(
        &self,
        request: Request<proto::DeleteAccountRequest>,
    ) -> RpcResult<proto::DeleteAccountResponse> {
        let origin = origin(&request);
        let acting = authenticate_user(&self.accounts, request.metadata(), &origin).await?;
        account::delete_account(&self.accounts, &acting, request.into_inner(), &origin)
            .await
            .map(Response::new)
    }

    async fn request_password_reset(
        &self,
        request: Request<proto::RequestPasswordResetRequest>,
    ) -> RpcResult<proto::RequestPasswordResetResponse> {
        let mailed_by = self.mailed_by(&request, request.get_ref().return_mail_token)?;
        let origin = origin(&request);
        account::request_password_reset(&self.accounts, request.into_inner(), mailed_by, origin)
            .await
            .map(Response::new)
    }

    async fn reset_password(
        &self,
        request: Request<proto::ResetPasswordRequest>,
    ) -> RpcResult<proto::ResetPasswordResponse> {
        let origin = origin(&request);
        account::reset_password(&self.accounts, request.into_inner(), &origin).await.map(Response::new)
    }
}
