//! The credentials of a request: the service token of the caller and the access token of the user.
//!
//! Each has a header of its own, because many clients and proxies cannot send one header twice: they join the
//! values, refuse the second one, or write both into their log. The service token may also be in
//! `authorization`, alone or as a second value beside the access token.

use http::{HeaderMap, HeaderName, header};

use crate::callers::{ServiceToken, bearer_token};

/// The header with the service token of the caller.
pub(super) const CALLER_TOKEN: HeaderName = HeaderName::from_static("kairos-caller-token");

/// The reason why the credentials of a request are unusable. The texts say what to send, and contain nothing
/// that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidCredentials {
    /// Two credentials in one value of a header.
    #[error(
        "a header contains two credentials in one value: send the caller's service token as `kairos-caller-token: \
         kst_...` and the user's access token as `authorization: Bearer ...`"
    )]
    Joined,
    /// More than one service token, in whatever headers.
    #[error(
        "the request contains more than one service token: send one, as `kairos-caller-token: kst_...`, and in \
         `authorization` only the user's access token"
    )]
    SeveralServiceTokens,
    /// A `kairos-caller-token` that is no service token.
    #[error(
        "`kairos-caller-token` is not a service token: send `kairos-caller-token: kst_...`, without `Bearer`, and the \
         user's access token as `authorization: Bearer ...`"
    )]
    NotAServiceToken,
    /// A service token where the access token of a user is required.
    #[error(
        "this method acts for a user, but the request contains only a service token: send the user's access token as \
         `authorization: Bearer ...` and the service token as `kairos-caller-token: kst_...`"
    )]
    OnlyServiceToken,
    /// Neither a service token nor an access token where the latter is required.
    #[error("this method acts for a user: send the user's access token as `authorization: Bearer ...`")]
    NoAccessToken,
    /// More than one access token.
    #[error("the request contains more than one access token: send one, as `authorization: Bearer ...`")]
    SeveralAccessTokens,
}

/// Returns the service token of the caller, if the request contains one.
///
/// # Errors
/// [`InvalidCredentials`] if a `kairos-caller-token` is not a service token, if a header contains two
/// credentials in one value, or if there is more than one service token.
pub(super) fn service_token(headers: &HeaderMap) -> Result<Option<ServiceToken>, InvalidCredentials> {
    let (mut found, mut has_several) = (None, false);
    let mut add = |token| has_several |= found.replace(token).is_some();
    for value in headers.get_all(CALLER_TOKEN) {
        let value = value.to_str().unwrap_or_default().trim();
        if value.contains(',') {
            return Err(InvalidCredentials::Joined);
        }
        add(ServiceToken::parse(value).ok_or(InvalidCredentials::NotAServiceToken)?);
    }
    for value in headers.get_all(header::AUTHORIZATION) {
        let value = value.to_str().unwrap_or_default();
        if is_joined(value) {
            return Err(InvalidCredentials::Joined);
        }
        if let Some(token) = ServiceToken::from_authorization(value) {
            add(token);
        }
    }
    if has_several { Err(InvalidCredentials::SeveralServiceTokens) } else { Ok(found) }
}

/// Returns the access token of the user in `authorization: Bearer ...` (RFC 6750, section 2.1).
///
/// # Errors
/// [`InvalidCredentials`] if there is not exactly one.
pub(super) fn access_token(headers: &HeaderMap) -> Result<&str, InvalidCredentials> {
    let values = || headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| value.to_str().ok());
    let mut tokens = values().filter_map(access_token_in);
    match (tokens.next(), tokens.next()) {
        (Some(token), None) => Ok(token),
        (Some(_), Some(_)) => Err(InvalidCredentials::SeveralAccessTokens),
        (None, _) if values().any(|value| ServiceToken::from_authorization(value).is_some()) => {
            Err(InvalidCredentials::OnlyServiceToken)
        }
        (None, _) => Err(InvalidCredentials::NoAccessToken),
    }
}

/// Returns the token of the scheme Bearer, unless it is a service token.
fn access_token_in(credentials: &str) -> Option<&str> {
    bearer_token(credentials).filter(|token| ServiceToken::parse(token).is_none())
}

/// True if a client or a proxy has joined two values of `authorization` (RFC 9110, section 5.3). No token of
/// this service contains a comma.
fn is_joined(credentials: &str) -> bool {
    let is_bearer = |value: &str| bearer_token(value.trim_start()).is_some();
    credentials.contains(',') && is_bearer(credentials) && credentials.split(',').skip(1).any(is_bearer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_service_token_is_read_from_either_header_but_only_one() {
        let (one, other) = (ServiceToken::from_random([1; 32]), ServiceToken::from_random([2; 32]));
        let (kst, bearer) = (one.expose().to_owned(), format!("Bearer {}", one.expose()));
        let (other_kst, other_bearer) = (other.expose().to_owned(), format!("bearer {}", other.expose()));
        let joined = format!("{bearer}, Bearer ey.a.b");
        let joined_tokens = format!("{kst}, {other_kst}");
        let found = |values: &[(&'static str, &str)]| service_token(&headers(values));
        let (authorization, caller_token) = ("authorization", "kairos-caller-token");
        let several = Err(InvalidCredentials::SeveralServiceTokens);

        assert_eq!(found(&[]), Ok(None));
        assert_eq!(found(&[(authorization, "Bearer ey.a.b")]), Ok(None));
        for values in [
            &[(caller_token, kst.as_str())][..],
            &[(authorization, &bearer)],
            &[(caller_token, &kst), (authorization, "Bearer ey.a.b")],
            &[(authorization, "Bearer ey.a.b"), (authorization, &bearer)],
        ] {
            assert_eq!(found(values), Ok(Some(one.clone())), "{values:?}");
        }
        for values in [
            &[(authorization, bearer.as_str()), (authorization, &other_bearer)][..],
            &[(authorization, &bearer), (authorization, &bearer)],
            &[(caller_token, &kst), (authorization, &bearer)],
            &[(caller_token, &kst), (authorization, &other_bearer)],
            &[(caller_token, &kst), (caller_token, &other_kst)],
        ] {
            assert_eq!(found(values), several, "{values:?}");
        }
        assert_eq!(found(&[(authorization, &joined)]), Err(InvalidCredentials::Joined));
        assert_eq!(found(&[(caller_token, &joined_tokens)]), Err(InvalidCredentials::Joined));
        for wrong in ["ey.a.b", "", &bearer, "Bearer ey.a.b"] {
            assert_eq!(found(&[(caller_token, wrong)]), Err(InvalidCredentials::NotAServiceToken), "{wrong}");
        }
    }

    #[test]
    fn exactly_one_access_token_is_accepted_beside_a_service_token() {
        let kst = ServiceToken::from_random([1; 32]).expose().to_owned();
        let service = format!("Bearer {kst}");
        let found = |values: &[(&'static str, &str)]| access_token(&headers(values)).map(str::to_owned);
        let (authorization, caller_token) = ("authorization", "kairos-caller-token");

        for values in [
            &[(authorization, "Bearer ey.a.b")][..],
            &[(authorization, "bearer  ey.a.b"), (authorization, &service)],
            &[(authorization, &service), (authorization, "BEARER ey.a.b")],
            &[(caller_token, &kst), (authorization, "Bearer ey.a.b")],
        ] {
            assert_eq!(found(values).as_deref(), Ok("ey.a.b"), "{values:?}");
        }
        for none in ["Basic YTpi", "ey.a.b", "Bearer"] {
            assert_eq!(found(&[(authorization, none)]), Err(InvalidCredentials::NoAccessToken), "{none}");
        }
        assert_eq!(found(&[]), Err(InvalidCredentials::NoAccessToken));
        assert_eq!(found(&[(authorization, &service)]), Err(InvalidCredentials::OnlyServiceToken));
        let two = [(authorization, "Bearer ey.a.b"), (authorization, "Bearer ey.a.b")];
        assert_eq!(found(&two), Err(InvalidCredentials::SeveralAccessTokens));
    }
}
