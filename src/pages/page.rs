//! The page of a link: a button that says what it will do, and what came of it.

use http::StatusCode;

use super::{
    form::Form,
    reply::Reply,
    templates::{PageTemplates, State},
};
use crate::{
    accounts::{AccountError, Accounts},
    domain::{LinkToken, MailToken, MailTokenPurpose, Origin},
    store::chain,
};

/// The fields of the forms.
const TOKEN: &str = "token";
const NEW_PASSWORD: &str = "new_password";
const NEW_PASSWORD_AGAIN: &str = "new_password_again";

/// When the service is busy or its database is away, it is worth trying again so much later, in seconds.
pub(super) const RETRY_AFTER: u64 = 5;

/// What became of a button.
enum Outcome {
    Done,
    /// The password is not good enough, by this rule; the link is good for another.
    TryAgain(String),
}

/// The button. Whether the link is good is not asked: nothing is told to whoever only opens it.
pub(super) fn show(templates: &PageTemplates, purpose: MailTokenPurpose, query: &str) -> Reply {
    let token = Form::parse(query.as_bytes()).take(TOKEN);
    match MailToken::parse(&token) {
        Ok(token) => ask(templates, StatusCode::OK, purpose, &token, None),
        Err(_) => refuse(templates, purpose, &AccountError::InvalidToken),
    }
}

/// What the button does.
pub(super) async fn act(
    accounts: &Accounts,
    templates: &PageTemplates,
    purpose: MailTokenPurpose,
    mut form: Form,
    origin: &Origin,
) -> Reply {
    let Ok(token) = MailToken::parse(&form.take(TOKEN)) else {
        return refuse(templates, purpose, &AccountError::InvalidToken);
    };
    let acted = match purpose {
        MailTokenPurpose::VerifyEmail => {
            accounts.verify_email(LinkToken::Mailed(token.clone()), origin).await.map(|_| Outcome::Done)
        }
        MailTokenPurpose::ChangeEmail => {
            accounts.confirm_email_change(&token, origin).await.map(|_| Outcome::Done)
        }
        MailTokenPurpose::ResetPassword => reset(accounts, &token, &mut form, origin).await,
    };
    match acted {
        Ok(Outcome::Done) => templates.page(StatusCode::OK, purpose, &State::Done),
        Ok(Outcome::TryAgain(rule)) => {
            ask(templates, StatusCode::UNPROCESSABLE_ENTITY, purpose, &token, Some(&rule))
        }
        Err(error) => {
            log_breakage(&error, origin);
            refuse(templates, purpose, &error)
        }
    }
}

async fn reset(
    accounts: &Accounts,
    token: &MailToken,
    form: &mut Form,
    origin: &Origin,
) -> Result<Outcome, AccountError> {
    let (password, again) = (form.take(NEW_PASSWORD), form.take(NEW_PASSWORD_AGAIN));
    if password != again {
        return Ok(Outcome::TryAgain("must be the same in both fields".to_owned()));
    }
    let reset = accounts.reset_password(token, password, origin).await?;
    Ok(reset.map_or_else(|refusal| Outcome::TryAgain(refusal.to_string()), |()| Outcome::Done))
}

fn ask(
    templates: &PageTemplates,
    status: StatusCode,
    purpose: MailTokenPurpose,
    token: &MailToken,
    rule: Option<&str>,
) -> Reply {
    templates.page(status, purpose, &State::Asking { token: token.to_link_text(), rule })
}

fn refuse(templates: &PageTemplates, purpose: MailTokenPurpose, error: &AccountError) -> Reply {
    let refused = |status| {
        let reason = error.reason().unwrap_or_default();
        templates.page(status, purpose, &State::Refused { reason })
    };
    match error {
        // It is so, whoever did it.
        AccountError::EmailAlreadyVerified => refused(StatusCode::OK),
        AccountError::InvalidToken => refused(StatusCode::BAD_REQUEST),
        AccountError::EmailTaken => refused(StatusCode::CONFLICT),
        AccountError::Overloaded { .. } | AccountError::StoreUnavailable(_) => {
            templates.error(StatusCode::SERVICE_UNAVAILABLE).retry_after(RETRY_AFTER)
        }
        _ => templates.error(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn log_breakage(error: &AccountError, origin: &Origin) {
    let request_id = origin.request_id.map(tracing::field::display);
    match error {
        AccountError::StoreUnavailable(cause) => {
            tracing::warn!(request_id, error = %chain(cause), "A page met a database that is not available");
        }
        AccountError::Internal(cause) => tracing::error!(request_id, error = %chain(cause), "A page broke"),
        _ => {}
    }
}
