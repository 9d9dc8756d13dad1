//! Handlers of `AdminService` for users.

use std::mem;

use tonic::Status;

use super::{
    convert,
    fields::Fields,
    page::{Page, PageRequest, optional_timestamp},
    page_tokens::PageTokens,
    request_rule::{FILTER_TEXT_CHARACTERS_MAX, RequestRule},
    status::from_account,
};
use crate::{
    accounts::{Administration, Mails, UserKey},
    callers::UserFields,
    domain::{AuthToken, Email, Origin, User, UserId, Username},
    proto::{self, get_user_request::Key},
    store::{ManagedUser, UserFilter},
};

impl PageRequest for proto::ListUsersRequest {
    const LIST: &'static str = "users";

    fn take_page(&mut self) -> (i32, String) {
        (mem::take(&mut self.page_size), mem::take(&mut self.page_token))
    }
}

pub(super) async fn get_user(
    administration: &Administration,
    request: proto::GetUserRequest,
    origin: &Origin,
    visible: UserFields,
) -> Result<proto::GetUserResponse, Status> {
    let mut fields = Fields::default();
    let key = match request.key {
        Some(Key::AuthToken(token)) => {
            fields.check("auth_token", AuthToken::parse(&token)).map(UserKey::AuthToken)
        }
        Some(Key::Email(email)) => fields.check("email", Email::parse(&email)).map(UserKey::Email),
        Some(Key::Username(name)) => fields.check("username", Username::parse(&name)).map(UserKey::Username),
        None => {
            fields.reject("key", &RequestRule::KeySet("auth_token, email, username"));
            None
        }
    };
    let Some(key) = key else { return Err(fields.into_status()) };

    let found = administration.find_user(&key).await.map_err(from_account)?;

    origin.note.set_user(found.user.auth_token);
    Ok(proto::GetUserResponse { user: Some(managed_user(found, visible)) })
}

/// True if the caller may see every field that the request filters by. Every caller of the RPC may see
/// whether a user is disabled: the response contains `disabled_at`.
pub(super) const fn filters_by_visible_fields(
    request: &proto::ListUsersRequest,
    visible: UserFields,
) -> bool {
    let filters_by_time = request.created_since.is_some() || request.created_before.is_some();
    (request.text.is_empty() || (visible.email && visible.username))
        && (request.is_verified.is_none() || visible.is_verified)
        && (!filters_by_time || visible.created_at)
}

pub(super) async fn list_users(
    administration: &Administration,
    page_tokens: &PageTokens,
    mut request: proto::ListUsersRequest,
    visible: UserFields,
) -> Result<proto::ListUsersResponse, Status> {
    let mut fields = Fields::default();
    let page = Page::parse(&mut fields, page_tokens, &mut request);
    let created_since = optional_timestamp(&mut fields, "created_since", request.created_since);
    let created_before = optional_timestamp(&mut fields, "created_before", request.created_before);
    if request.text.chars().nth(FILTER_TEXT_CHARACTERS_MAX).is_some() {
        fields.reject("text", &RequestRule::FilterTextLength);
    } else if request.text.chars().any(char::is_control) {
        fields.reject("text", &RequestRule::FilterTextCharacters);
    }
    let Some(page) = page.filter(|_| fields.are_valid()) else { return Err(fields.into_status()) };
    let filter = UserFilter {
        is_verified: request.is_verified,
        is_disabled: request.is_disabled,
        created_since,
        created_before,
        text: (!request.text.is_empty()).then_some(request.text),
    };
    // A cursor has two numbers. The list is ordered by the id alone, so the second one is 0.
    let after = page.after.map(|[id, _]| UserId::from_i64(id));

    let mut users =
        administration.list_users(filter, after, page.query_limit()).await.map_err(from_account)?;

    let next_page_token = page.next_page_token(page_tokens, &mut users, |last| [last.user.id.as_i64(), 0]);
    let users = users.into_iter().map(|user| managed_user(user, visible)).collect();
    Ok(proto::ListUsersResponse { users, next_page_token })
}

pub(super) async fn set_verified(
    administration: &Administration,
    mails: &Mails,
    request: proto::SetVerifiedRequest,
    origin: &Origin,
    visible: UserFields,
) -> Result<proto::SetVerifiedResponse, Status> {
    let mut fields = Fields::default();
    let token = fields.check("auth_token", AuthToken::parse(&request.auth_token));
    let key = token.map(|token| key_with_note(token, origin));
    let is_verified = fields.check("is_verified", request.is_verified.ok_or(RequestRule::Set));
    let (Some(key), Some(is_verified)) = (key, is_verified) else { return Err(fields.into_status()) };

    let updated = if is_verified {
        administration.verify_user(&key, origin).await
    } else {
        administration.unverify_user(&key, mails, origin).await
    };

    let user = managed_user(updated.map_err(from_account)?, visible);
    Ok(proto::SetVerifiedResponse { user: Some(user) })
}

pub(super) async fn disable_user(
    administration: &Administration,
    mails: &Mails,
    request: proto::DisableUserRequest,
    origin: &Origin,
    visible: UserFields,
) -> Result<proto::DisableUserResponse, Status> {
    let key = key(&request.auth_token, origin)?;

    let user = administration.disable_user(&key, mails, origin).await.map_err(from_account)?;

    Ok(proto::DisableUserResponse { user: Some(managed_user(user, visible)) })
}

pub(super) async fn enable_user(
    administration: &Administration,
    mails: &Mails,
    request: proto::EnableUserRequest,
    origin: &Origin,
    visible: UserFields,
) -> Result<proto::EnableUserResponse, Status> {
    let key = key(&request.auth_token, origin)?;

    let user = administration.enable_user(&key, mails, origin).await.map_err(from_account)?;

    Ok(proto::EnableUserResponse { user: Some(managed_user(user, visible)) })
}

pub(super) async fn unlock_user(
    administration: &Administration,
    request: proto::UnlockUserRequest,
    origin: &Origin,
) -> Result<proto::UnlockUserResponse, Status> {
    let key = key(&request.auth_token, origin)?;

    let had_failures = administration.unlock_user(&key, origin).await.map_err(from_account)?;

    Ok(proto::UnlockUserResponse { had_failures })
}

pub(super) async fn delete_user(
    administration: &Administration,
    mails: &Mails,
    request: proto::DeleteUserRequest,
    origin: &Origin,
) -> Result<proto::DeleteUserResponse, Status> {
    let key = key(&request.auth_token, origin)?;

    administration.delete_user(&key, mails, origin).await.map_err(from_account)?;

    Ok(proto::DeleteUserResponse {})
}

pub(super) async fn revoke_user_sessions(
    administration: &Administration,
    request: proto::RevokeUserSessionsRequest,
    origin: &Origin,
) -> Result<proto::RevokeUserSessionsResponse, Status> {
    let key = key(&request.auth_token, origin)?;

    let revoked = administration.revoke_user_sessions(&key, origin).await.map_err(from_account)?;

    Ok(proto::RevokeUserSessionsResponse { revoked_count: convert::count(revoked) })
}

pub(super) async fn start_password_reset(
    administration: &Administration,
    mails: &Mails,
    request: proto::StartPasswordResetRequest,
    origin: &Origin,
) -> Result<proto::StartPasswordResetResponse, Status> {
    let key = key(&request.auth_token, origin)?;

    administration.start_password_reset(&key, mails, origin).await.map_err(from_account)?;

    Ok(proto::StartPasswordResetResponse {})
}

/// Parses the `auth_token` of a request with no other field, and returns the key of its user.
fn key(auth_token: &str, origin: &Origin) -> Result<UserKey, Status> {
    let mut fields = Fields::default();
    let token = fields.check("auth_token", AuthToken::parse(auth_token));
    token.map(|token| key_with_note(token, origin)).ok_or_else(|| fields.into_status())
}

/// Returns the key of the user with this `auth_token`, and notes the user for the audit event of the call.
/// The event of a refused action then names the user too, even if the user does not exist any more.
fn key_with_note(token: AuthToken, origin: &Origin) -> UserKey {
    origin.note.set_user(token);
    UserKey::AuthToken(token)
}

/// Converts a user with the data for operators. `disabled_at` decides whether the user is disabled, so that
/// both fields of the message agree.
fn managed_user(found: ManagedUser, visible: UserFields) -> proto::ManagedUser {
    let user = User { is_disabled: found.disabled_at.is_some(), ..found.user };
    proto::ManagedUser {
        user: Some(convert::user(user, visible)),
        disabled_at: found.disabled_at.map(convert::timestamp),
    }
}
