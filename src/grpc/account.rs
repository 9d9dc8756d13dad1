//! Handlers of `AccountService`.

use tonic::Status;

use super::{convert, fields::Fields, request_rule::RequestRule, status::from_account};
use crate::{
    accounts::{AccountError, Accounts, ActingUser, MailedBy},
    callers::UserFields,
    domain::{Email, MailToken, Origin, Password, Username},
    proto,
};

/// The only field of `UpdateAccountRequest` that `update_mask` may name.
const USERNAME: &str = "username";

pub(super) fn get_account(acting: ActingUser, visible: UserFields) -> proto::GetAccountResponse {
    proto::GetAccountResponse { user: Some(convert::user(acting.user, visible)) }
}

pub(super) async fn update_account(
    accounts: &Accounts,
    acting: &ActingUser,
    request: proto::UpdateAccountRequest,
    origin: &Origin,
    visible: UserFields,
) -> Result<proto::UpdateAccountResponse, Status> {
    let mut fields = Fields::default();
    let mask = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
    if mask.iter().any(|path| path != USERNAME) {
        fields.reject("update_mask", &RequestRule::MaskOfUsername);
    }
    // The current username may be one that is no longer accepted.
    let is_current = request.username == acting.user.username.as_str();
    let rules = if is_current { Username::parse } else { Username::choose };
    let username = fields.check(USERNAME, rules(&request.username));
    let Some(username) = username.filter(|_| fields.are_valid()) else { return Err(fields.into_status()) };

    let user = accounts.change_username(acting, &username, origin).await.map_err(from_account)?;

    Ok(proto::UpdateAccountResponse { user: Some(convert::user(user, visible)) })
}

pub(super) async fn change_password(
    accounts: &Accounts,
    acting: &ActingUser,
    request: proto::ChangePasswordRequest,
    origin: &Origin,
) -> Result<proto::ChangePasswordResponse, Status> {
    let mut fields = Fields::default();
    let current = fields.check("current_password", Password::parse(request.current_password));
    let new = fields.check("new_password", accounts.parse_new_password(request.new_password));
    let (Some(current), Some(new)) = (current, new) else { return Err(fields.into_status()) };

    let changed = accounts.change_password(acting, &current, new, origin).await;

    match fields.check_password("new_password", changed)? {
        Some(()) => Ok(proto::ChangePasswordResponse {}),
        None => Err(fields.into_status()),
    }
}

pub(super) async fn request_email_change(
    accounts: &Accounts,
    acting: &ActingUser,
    request: proto::RequestEmailChangeRequest,
    mailed_by: MailedBy,
    origin: &Origin,
) -> Result<proto::RequestEmailChangeResponse, Status> {
    let mut fields = Fields::default();
    let current = fields.check("current_password", Password::parse(request.current_password));
    let email = fields.check("new_email", Email::parse(&request.new_email));
    if email.as_ref() == Some(&acting.user.email) {
        fields.reject("new_email", &RequestRule::NewEmail);
    }
    let (Some(current), Some(email)) = (current, email.filter(|_| fields.are_valid())) else {
        return Err(fields.into_status());
    };

    let token = accounts.request_email_change(acting, &current, &email, mailed_by, origin).await;

    let mail_token = convert::mail_token(token.map_err(from_account)?);
    Ok(proto::RequestEmailChangeResponse { mail_token })
}

pub(super) async fn confirm_email_change(
    accounts: &Accounts,
    request: proto::ConfirmEmailChangeRequest,
    origin: &Origin,
    visible: UserFields,
) -> Result<proto::ConfirmEmailChangeResponse, Status> {
    let token = finish_with_link_token(&request.token, Fields::default())?;

    let user = accounts.confirm_email_change(&token, origin).await.map_err(from_account)?;

    Ok(proto::ConfirmEmailChangeResponse { user: Some(convert::user(user, visible)) })
}

pub(super) async fn undo_email_change(
    accounts: &Accounts,
    request: proto::UndoEmailChangeRequest,
    origin: &Origin,
    visible: UserFields,
) -> Result<proto::UndoEmailChangeResponse, Status> {
    let token = finish_with_link_token(&request.token, Fields::default())?;

    let user = accounts.undo_email_change(&token, origin).await.map_err(from_account)?;

    Ok(proto::UndoEmailChangeResponse { user: Some(convert::user(user, visible)) })
}

pub(super) async fn delete_account(
    accounts: &Accounts,
    acting: &ActingUser,
    request: proto::DeleteAccountRequest,
    origin: &Origin,
) -> Result<proto::DeleteAccountResponse, Status> {
    let mut fields = Fields::default();
    let Some(current) = fields.check("current_password", Password::parse(request.current_password)) else {
        return Err(fields.into_status());
    };

    accounts.delete_account(acting, &current, origin).await.map_err(from_account)?;

    Ok(proto::DeleteAccountResponse {})
}

pub(super) async fn request_password_reset(
    accounts: &Accounts,
    request: proto::RequestPasswordResetRequest,
    mailed_by: MailedBy,
    origin: Origin,
) -> Result<proto::RequestPasswordResetResponse, Status> {
    let mut fields = Fields::default();
    let Some(email) = fields.check("email", Email::parse(&request.email)) else {
        return Err(fields.into_status());
    };

    let token = accounts.request_password_reset(email, mailed_by, origin).await.map_err(from_account)?;

    Ok(proto::RequestPasswordResetResponse { mail_token: convert::mail_token(token) })
}

pub(super) async fn reset_password(
    accounts: &Accounts,
    request: proto::ResetPasswordRequest,
    origin: &Origin,
) -> Result<proto::ResetPasswordResponse, Status> {
    let mut fields = Fields::default();
    if request.new_password.is_empty() {
        fields.reject("new_password", &RequestRule::NotEmpty);
    }
    let token = finish_with_link_token(&request.token, fields)?;

    let reset = accounts.reset_password(&token, request.new_password, origin).await;

    let mut fields = Fields::default();
    match fields.check_password("new_password", reset)? {
        Some(()) => Ok(proto::ResetPasswordResponse {}),
        None => Err(fields.into_status()),
    }
}

/// Ends the validation and returns the token of the link.
///
/// # Errors
/// `INVALID_FIELDS` if `fields` has violations or the token is empty, and `INVALID_TOKEN` if it is malformed,
/// as for an unknown token.
fn finish_with_link_token(text: &str, mut fields: Fields) -> Result<MailToken, Status> {
    if text.is_empty() {
        fields.reject("token", &RequestRule::NotEmpty);
    }
    if !fields.are_valid() {
        return Err(fields.into_status());
    }
    MailToken::parse(text).map_err(|_| from_account(AccountError::InvalidToken))
}
