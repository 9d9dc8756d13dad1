//! Authentication of the user of a request by an access token.

use tonic::{Code, Status, metadata::MetadataMap};

use super::{
    credentials::access_token,
    status::{error_status, from_account},
};
use crate::{
    accounts::{AccountError, Accounts, ActingUser},
    domain::Origin,
    proto::ErrorReason,
};

/// Authenticates the user by the access token of the request.
///
/// # Errors
/// `INVALID_ACCESS_TOKEN`, also if there is not exactly one access token: the message then says what to send.
/// Or the status of a database error.
pub(super) async fn authenticate_user(
    accounts: &Accounts,
    metadata: &MetadataMap,
    origin: &Origin,
) -> Result<ActingUser, Status> {
    let token = access_token(metadata.as_ref());
    // A missing token is passed on as an empty one, so that its refusal is recorded too.
    let user = accounts.authenticate(token.unwrap_or_default(), origin).await;
    user.map_err(|error| match (error, token) {
        (AccountError::InvalidAccessToken, Err(error)) => {
            error_status(Code::Unauthenticated, ErrorReason::InvalidAccessToken, &error.to_string())
        }
        (error, _) => from_account(error),
    })
}
