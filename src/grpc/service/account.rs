//! `AccountService`

use tonic::{Request, Response};

use super::{
    super::{account, acting::acting_user},
    Answer, Api, origin, visible,
};
use crate::proto::{self, account_service_server::AccountService};

#[tonic::async_trait]
impl AccountService for Api {
    async fn get_account(
        &self,
        request: Request<proto::GetAccountRequest>,
    ) -> Answer<proto::GetAccountResponse> {
        let (origin, visible) = (origin(&request), visible(&request));
        let acting = acting_user(&self.accounts, request.metadata(), &origin).await?;
        Ok(Response::new(account::get_account(acting, visible)))
    }

    async fn update_account(
        &self,
        request: Request<proto::UpdateAccountRequest>,
    ) -> Answer<proto::UpdateAccountResponse> {
        let (origin, visible) = (origin(&request), visible(&request));
        let acting = acting_user(&self.accounts, request.metadata(), &origin).await?;
        account::update_account(&self.accounts, &acting, request.into_inner(), &origin, visible)
            .await
            .map(Response::new)
    }

    async fn change_password(
        &self,
        request: Request<proto::ChangePasswordRequest>,
    ) -> Answer<proto::ChangePasswordResponse> {
        let origin = origin(&request);
        let acting = acting_user(&self.accounts, request.metadata(), &origin).await?;
        account::change_password(&self.accounts, &acting, request.into_inner(), &origin)
            .await
            .map(Response::new)
    }

    async fn request_email_change(
        &self,
        request: Request<proto::RequestEmailChangeRequest>,
    ) -> Answer<proto::RequestEmailChangeResponse> {
        let by = self.mailed_by(&request, request.get_ref().return_mail_token)?;
        let origin = origin(&request);
        let acting = acting_user(&self.accounts, request.metadata(), &origin).await?;
        account::request_email_change(&self.accounts, &acting, request.into_inner(), by, &origin)
            .await
            .map(Response::new)
    }

    async fn confirm_email_change(
        &self,
        request: Request<proto::ConfirmEmailChangeRequest>,
    ) -> Answer<proto::ConfirmEmailChangeResponse> {
        let (origin, visible) = (origin(&request), visible(&request));
        account::confirm_email_change(&self.accounts, request.into_inner(), &origin, visible)
            .await
            .map(Response::new)
    }

    async fn delete_account(
        &self,
        request: Request<proto::DeleteAccountRequest>,
    ) -> Answer<proto::DeleteAccountResponse> {
        let origin = origin(&request);
        let acting = acting_user(&self.accounts, request.metadata(), &origin).await?;
        account::delete_account(&self.accounts, &acting, request.into_inner(), &origin)
            .await
            .map(Response::new)
    }

    async fn request_password_reset(
        &self,
        request: Request<proto::RequestPasswordResetRequest>,
    ) -> Answer<proto::RequestPasswordResetResponse> {
        let by = self.mailed_by(&request, request.get_ref().return_mail_token)?;
        let origin = origin(&request);
        account::request_password_reset(&self.accounts, request.into_inner(), by, origin)
            .await
            .map(Response::new)
    }

    async fn reset_password(
        &self,
        request: Request<proto::ResetPasswordRequest>,
    ) -> Answer<proto::ResetPasswordResponse> {
        let origin = origin(&request);
        account::reset_password(&self.accounts, request.into_inner(), &origin).await.map(Response::new)
    }
}
