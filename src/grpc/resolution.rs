//! The handlers of `ResolveToken`, `ResolveTokens` and `FindUser`. They only read, so they call the store
//! directly.

use std::collections::HashSet;

use tonic::Status;

use super::{
    convert,
    fields::Fields,
    request_rule::{AUTH_TOKENS_MAX, RequestRule},
    status::{from_account, from_store},
};
use crate::{
    accounts::AccountError,
    callers::UserFields,
    domain::{AuthToken, Email, Origin, User, Username},
    proto::{self, find_user_request::Key},
    store::Store,
};

pub(super) async fn resolve_token(
    store: &Store,
    request: proto::ResolveTokenRequest,
    visible: UserFields,
) -> Result<proto::ResolveTokenResponse, Status> {
    let mut fields = Fields::default();
    let Some(token) = fields.check("auth_token", AuthToken::parse(&request.auth_token)) else {
        return Err(fields.into_status());
    };

    let user = store.find_user_by_auth_token(token).await.map_err(from_store)?;

    Ok(proto::ResolveTokenResponse { user: Some(found_user(user, visible)?) })
}

pub(super) async fn resolve_tokens(
    store: &Store,
    request: proto::ResolveTokensRequest,
    visible: UserFields,
) -> Result<proto::ResolveTokensResponse, Status> {
    let tokens = distinct_tokens(&request.auth_tokens)?;
    // The texts take more than twice the memory of the tokens, and the look-up may wait.
    drop(request);

    let users = store.find_users_by_auth_tokens(&tokens).await.map_err(from_store)?;

    let found: HashSet<AuthToken> = users.iter().map(|user| user.auth_token).collect();
    let unknown = tokens.iter().filter(|token| !found.contains(token)).map(AuthToken::to_string);
    Ok(proto::ResolveTokensResponse {
        unknown_auth_tokens: unknown.collect(),
        users: users.into_iter().map(|user| convert::user(user, visible)).collect(),
    })
}

pub(super) async fn find_user(
    store: &Store,
    request: proto::FindUserRequest,
    origin: &Origin,
    visible: UserFields,
) -> Result<proto::FindUserResponse, Status> {
    let mut fields = Fields::default();
    let found = match request.key {
        Some(Key::Email(email)) => {
            let Some(email) = fields.check("email", Email::parse(&email)) else {
                return Err(fields.into_status());
            };
            store.find_user_by_email(&email).await
        }
        Some(Key::Username(username)) => {
            let username = fields.check("username", Username::parse(&username));
            let Some(username) = username else { return Err(fields.into_status()) };
            store.find_user_by_username(&username).await
        }
        None => {
            fields.reject("key", &RequestRule::KeySet("email, username"));
            return Err(fields.into_status());
        }
    };

    let found = found.map_err(from_store)?;
    if let Some(user) = &found {
        origin.note.set_user(user.auth_token);
    }
    Ok(proto::FindUserResponse { user: Some(found_user(found, visible)?) })
}

/// Parses the tokens and removes duplicates, in the order of the request.
fn distinct_tokens(texts: &[String]) -> Result<Vec<AuthToken>, Status> {
    let mut fields = Fields::default();
    if texts.is_empty() || texts.len() > AUTH_TOKENS_MAX {
        fields.reject("auth_tokens", &RequestRule::TokenCount(texts.len()));
        return Err(fields.into_status());
    }
    let parsed = texts.iter().enumerate();
    let parsed: Vec<_> = parsed
        .filter_map(|(index, text)| fields.check(&format!("auth_tokens[{index}]"), AuthToken::parse(text)))
        .collect();
    if parsed.len() < texts.len() {
        return Err(fields.into_status());
    }
    let mut seen = HashSet::with_capacity(parsed.len());
    Ok(parsed.into_iter().filter(|token| seen.insert(*token)).collect())
}

/// Converts the user, or returns `USER_NOT_FOUND`.
fn found_user(user: Option<User>, visible: UserFields) -> Result<proto::User, Status> {
    user.map(|user| convert::user(user, visible)).ok_or_else(|| from_account(AccountError::UserNotFound))
}
