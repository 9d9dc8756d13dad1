//! Authentication of the user of a request by an access token.

use http::header;
use tonic::{Status, metadata::MetadataMap};

use super::status::from_account;
use crate::{
    accounts::{Accounts, ActingUser},
    callers::ServiceToken,
    domain::Origin,
};

/// Authenticates the user by the access token in `authorization: Bearer ...` (RFC 6750, section 2.1). The
/// caller's service token may be a second value of that header.
///
/// # Errors
/// `INVALID_ACCESS_TOKEN`, also if there is no access token or more than one.
pub(super) async fn authenticate_user(
    accounts: &Accounts,
    metadata: &MetadataMap,
    origin: &Origin,
) -> Result<ActingUser, Status> {
    let token = access_token(metadata).unwrap_or_default();
    accounts.authenticate(token, origin).await.map_err(from_account)
}

fn access_token(metadata: &MetadataMap) -> Option<&str> {
    let credentials = metadata.get_all(header::AUTHORIZATION.as_str());
    let mut tokens = credentials.iter().filter_map(|value| bearer(value.to_str().ok()?));
    tokens.next().filter(|_| tokens.next().is_none())
}

/// Returns the token of the scheme Bearer, unless it is a service token.
fn bearer(credentials: &str) -> Option<&str> {
    let (scheme, token) = credentials.split_once(' ')?;
    let is_service_token = ServiceToken::from_authorization(credentials).is_some();
    (scheme.eq_ignore_ascii_case("bearer") && !is_service_token).then(|| token.trim_start_matches(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_access_token_is_accepted_beside_a_service_token() {
        let service = format!("Bearer {}", ServiceToken::from_random([1; 32]).expose());
        let found = |credentials: &[&str]| {
            let mut metadata = MetadataMap::new();
            for value in credentials {
                metadata.append("authorization", value.parse().unwrap());
            }
            access_token(&metadata).map(str::to_owned)
        };
        assert_eq!(found(&["Bearer ey.a.b"]).as_deref(), Some("ey.a.b"));
        assert_eq!(found(&["bearer  ey.a.b", &service]).as_deref(), Some("ey.a.b"));
        assert_eq!(found(&[&service, "BEARER ey.a.b"]).as_deref(), Some("ey.a.b"));
        for none in [
            &[][..],
            &[service.as_str()],
            &["Basic YTpi"],
            &["ey.a.b"],
            &["Bearer"],
            &["Bearer ey.a.b", "Bearer ey.a.b"],
        ] {
            assert_eq!(found(none), None, "{none:?}");
        }
    }
}
