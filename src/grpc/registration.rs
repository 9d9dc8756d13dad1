//! The handlers of `Register`, `VerifyEmail` and `ResendVerificationEmail`.

use tonic::Status;

use super::{convert, fields::Fields, request_rule::RequestRule, status::from_account};
use crate::{
    accounts::{Accounts, MailedBy, NewAccount},
    callers::UserFields,
    domain::{Email, InvalidRequestId, LinkToken, Origin, RequestId, Username},
    proto,
};

pub(super) async fn register(
    accounts: &Accounts,
    request: proto::RegisterRequest,
    mailed_by: MailedBy,
    origin: Origin,
    visible: UserFields,
) -> Result<proto::RegisterResponse, Status> {
    let mut fields = Fields::default();
    let username = fields.check("username", Username::choose(&request.username));
    let email = fields.check("email", Email::parse(&request.email));
    let request_id = fields.check("request_id", optional_request_id(&request.request_id));
    // Whether the password is easy to guess is judged only if all fields are valid: judging takes time, and
    // is counted as a registration.
    let password = fields.check("password", accounts.parse_new_password(request.password));
    let (Some(username), Some(email), Some(password), Some(request_id)) =
        (username, email, password, request_id)
    else {
        return Err(fields.into_status());
    };

    let account = NewAccount { username, email, password, request_id, mailed_by, origin };
    let registered = fields.check_password("password", accounts.register(account).await)?;
    let Some(registered) = registered else { return Err(fields.into_status()) };

    Ok(proto::RegisterResponse {
        user: Some(convert::user(registered.user, visible)),
        mail_token: convert::mail_token(registered.mail_token),
    })
}

pub(super) async fn verify_email(
    accounts: &Accounts,
    request: proto::VerifyEmailRequest,
    origin: &Origin,
    visible: UserFields,
) -> Result<proto::VerifyEmailResponse, Status> {
    let mut fields = Fields::default();
    if request.token.is_empty() {
        fields.reject("token", &RequestRule::NotEmpty);
        return Err(fields.into_status());
    }

    let user = accounts.verify_email(LinkToken::parse(&request.token), origin).await.map_err(from_account)?;

    Ok(proto::VerifyEmailResponse { user: Some(convert::user(user, visible)) })
}

pub(super) async fn resend_verification_email(
    accounts: &Accounts,
    request: proto::ResendVerificationEmailRequest,
    mailed_by: MailedBy,
    origin: Origin,
) -> Result<proto::ResendVerificationEmailResponse, Status> {
    let mut fields = Fields::default();
    let Some(email) = fields.check("email", Email::parse(&request.email)) else {
        return Err(fields.into_status());
    };

    let token = accounts.resend_verification_email(email, mailed_by, origin).await.map_err(from_account)?;

    Ok(proto::ResendVerificationEmailResponse { mail_token: convert::mail_token(token) })
}

/// Parses a request id. An unset proto3 string is empty, which means no request id.
fn optional_request_id(text: &str) -> Result<Option<RequestId>, InvalidRequestId> {
    if text.is_empty() { Ok(None) } else { RequestId::parse(text).map(Some) }
}
