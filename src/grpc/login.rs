//! `Login`.

use tonic::Status;

use super::{convert, fields::Fields, status::from_account};
use crate::{
    accounts::Accounts,
    callers::Requester,
    domain::{Email, Password},
    proto,
};

pub(super) async fn login(
    accounts: &Accounts,
    request: proto::LoginRequest,
    requester: &Requester,
) -> Result<proto::LoginResponse, Status> {
    let mut fields = Fields::default();
    let email = fields.take("email", Email::parse(&request.email));
    let password = fields.take("password", Password::parse(request.password));
    let (Some(email), Some(password)) = (email, password) else { return Err(fields.into_status()) };

    let user = accounts.log_in(&email, &password, requester.client).await.map_err(from_account)?;

    Ok(proto::LoginResponse { user: Some(convert::user(user, requester.caller.fields())) })
}
