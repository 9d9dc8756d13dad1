//! The handler of `Login`.

use tonic::Status;

use super::{convert, fields::Fields, status::from_account};
use crate::{
    accounts::Accounts,
    callers::UserFields,
    domain::{Email, Origin, Password},
    proto,
};

pub(super) async fn login(
    accounts: &Accounts,
    request: proto::LoginRequest,
    origin: &Origin,
    visible: UserFields,
) -> Result<proto::LoginResponse, Status> {
    let mut fields = Fields::default();
    let password = Password::parse(request.password);
    // An imported user may have an email that breaks the rules, so the store is searched for an invalid
    // email. It is not searched if the password is refused anyway.
    let email = match (Email::parse(&request.email), &password) {
        (Err(rule), Ok(_)) => {
            accounts.find_imported_email(&request.email).await.map_err(from_account)?.ok_or(rule)
        }
        (email, _) => email,
    };
    let email = fields.check("email", email);
    let password = fields.check("password", password);
    let (Some(email), Some(password)) = (email, password) else { return Err(fields.into_status()) };

    let issued = accounts.log_in(&email, &password, origin).await.map_err(from_account)?;

    let tokens = Some(convert::session_tokens(&issued));
    Ok(proto::LoginResponse { user: Some(convert::user(issued.user, visible)), tokens })
}
