//! Handlers of `SessionService`.

use tonic::Status;

use super::{convert, fields::Fields, request_rule::RequestRule, status::from_account};
use crate::{
    accounts::{AccountError, Accounts, ActingUser, PublicKey},
    callers::UserFields,
    domain::{Origin, RefreshToken, SessionId},
    proto,
};

pub(super) async fn refresh_session(
    accounts: &Accounts,
    request: proto::RefreshSessionRequest,
    origin: &Origin,
    visible: UserFields,
) -> Result<proto::RefreshSessionResponse, Status> {
    let token = refresh_token(&request.refresh_token)?;

    let issued = accounts.refresh_session(&token, origin).await.map_err(from_account)?;

    let tokens = Some(convert::session_tokens(&issued));
    Ok(proto::RefreshSessionResponse { user: Some(convert::user(issued.user, visible)), tokens })
}

pub(super) async fn logout(
    accounts: &Accounts,
    request: proto::LogoutRequest,
    origin: &Origin,
) -> Result<proto::LogoutResponse, Status> {
    let token = refresh_token(&request.refresh_token)?;

    accounts.log_out(&token, origin).await.map_err(from_account)?;

    Ok(proto::LogoutResponse {})
}

pub(super) async fn list_sessions(
    accounts: &Accounts,
    acting: &ActingUser,
) -> Result<proto::ListSessionsResponse, Status> {
    let sessions = accounts.list_sessions(acting).await.map_err(from_account)?;

    let sessions = sessions.iter().map(|session| convert::session(session, acting.session)).collect();
    Ok(proto::ListSessionsResponse { sessions })
}

pub(super) async fn revoke_session(
    accounts: &Accounts,
    acting: &ActingUser,
    request: proto::RevokeSessionRequest,
    origin: &Origin,
) -> Result<proto::RevokeSessionResponse, Status> {
    let mut fields = Fields::default();
    let Some(session) = fields.check("session_id", SessionId::parse(&request.session_id)) else {
        return Err(fields.into_status());
    };

    accounts.revoke_session(acting, session, origin).await.map_err(from_account)?;

    Ok(proto::RevokeSessionResponse {})
}

pub(super) async fn revoke_all_sessions(
    accounts: &Accounts,
    acting: &ActingUser,
    request: proto::RevokeAllSessionsRequest,
    origin: &Origin,
) -> Result<proto::RevokeAllSessionsResponse, Status> {
    let revoked = accounts.revoke_all_sessions(acting, request.keep_current, origin).await;

    let revoked_count = convert::count(revoked.map_err(from_account)?);
    Ok(proto::RevokeAllSessionsResponse { revoked_count })
}

pub(super) async fn introspect_token(
    accounts: &Accounts,
    request: proto::IntrospectTokenRequest,
    origin: &Origin,
    visible: UserFields,
) -> Result<proto::IntrospectTokenResponse, Status> {
    let found = accounts.introspect_for_caller(&request.access_token, origin).await.map_err(from_account)?;

    let Some((claims, acting)) = found else { return Ok(proto::IntrospectTokenResponse::default()) };
    Ok(proto::IntrospectTokenResponse {
        active: true,
        user: Some(convert::user(acting.user, visible)),
        session_id: acting.session.to_string(),
        client_id: claims.caller.to_string(),
        issued_at: Some(convert::timestamp(claims.issued_at)),
        expires_at: Some(convert::timestamp(claims.expires_at)),
    })
}

pub(super) fn get_jwks(accounts: &Accounts) -> proto::GetJwksResponse {
    let key = |key: PublicKey| proto::Jwk {
        kty: "OKP".to_owned(),
        crv: "Ed25519".to_owned(),
        x: key.x,
        kid: key.id.as_str().to_owned(),
        alg: "EdDSA".to_owned(),
        r#use: "sig".to_owned(),
    };
    proto::GetJwksResponse { keys: accounts.public_keys().into_iter().map(key).collect() }
}

/// Parses a refresh token. An empty text is `INVALID_FIELDS`; a malformed token is `INVALID_REFRESH_TOKEN`,
/// as an unknown one.
fn refresh_token(text: &str) -> Result<RefreshToken, Status> {
    if text.is_empty() {
        let mut fields = Fields::default();
        fields.reject("refresh_token", &RequestRule::NotEmpty);
        return Err(fields.into_status());
    }
    RefreshToken::parse(text).map_err(|_| from_account(AccountError::InvalidRefreshToken))
}
