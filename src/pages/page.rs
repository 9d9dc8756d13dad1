//! The page of a mailed link: its form, the handling of the submitted form, and the result page.

use std::time::Duration;

use http::StatusCode;

use super::{
    form::Form,
    reply::Reply,
    templates::{HERE, OLD_LINK_ENDED, PageTemplates, State},
};
use crate::{
    accounts::{AccountError, Accounts, NewPasswordError, OldLinks},
    domain::{AuditKind, AuthToken, LinkToken, MailToken, MailTokenPurpose, Origin, chain},
};

// The fields of the forms.
const TOKEN: &str = "token";
const NEW_PASSWORD: &str = "new_password";
const NEW_PASSWORD_AGAIN: &str = "new_password_again";

/// The `Retry-After` of a response with status 503, in seconds.
pub(super) const RETRY_AFTER_SECONDS: u64 = 5;

/// A refused submission in the audit trail: the kind and the reason of its event. Without a kind, the purpose
/// of the page decides it.
pub(super) type Refusal = (Option<AuditKind>, &'static str);

/// A form that cannot be read, that another site has sent, or whose password breaks a rule.
pub(super) const INVALID_INPUT: Refusal = (Some(AuditKind::InputValidationFail), "INVALID_FIELDS");

/// A submission while too many others are in flight.
pub(super) const BUSY: Refusal = (Some(AuditKind::ExcessRateLimitExceeded), "OVERLOADED");

/// The result of a submitted form.
enum PageOutcome {
    Done,
    /// The new password breaks this rule. The token is still valid.
    TryAgain(String),
}

/// Returns the page with the form. It checks only the format of the token, not its validity, so that opening
/// a link reveals nothing.
pub(super) fn show(
    accounts: &Accounts,
    templates: &PageTemplates,
    purpose: MailTokenPurpose,
    query: &str,
) -> Reply {
    match PageToken::parse(purpose, &Form::parse(query.as_bytes()).take(TOKEN)) {
        Some(PageToken::Mailed(token)) => form_page(templates, StatusCode::OK, purpose, &token, None),
        Some(PageToken::AuthToken(token)) => show_old_link(accounts, templates, token, HERE),
        None => error_page(templates, purpose, &AccountError::InvalidToken),
    }
}

/// Returns the page for a verification link of the Django backend. `root` is the relative URL that leads from
/// the path of the link to the folder of the pages.
pub(super) fn show_old_link(
    accounts: &Accounts,
    templates: &PageTemplates,
    token: AuthToken,
    root: &'static str,
) -> Reply {
    let purpose = MailTokenPurpose::VerifyEmail;
    match accounts.old_links() {
        OldLinks::Accepted => {
            let form = State::Form { token: token.to_string(), rule: None };
            templates.page_at(root, StatusCode::OK, purpose, &form)
        }
        OldLinks::Ended => old_link_ended(templates, root),
        OldLinks::Refused => error_page(templates, purpose, &AccountError::InvalidToken),
    }
}

/// Returns the page for a verification link of the Django backend after the date until which the operator
/// accepted such links.
fn old_link_ended(templates: &PageTemplates, root: &'static str) -> Reply {
    let refused = State::Refused { reason: OLD_LINK_ENDED };
    templates.page_at(root, StatusCode::BAD_REQUEST, MailTokenPurpose::VerifyEmail, &refused)
}

/// The token of a link, in a form that its page accepts.
enum PageToken {
    Mailed(MailToken),
    /// Of a verification link that the Django backend mailed.
    AuthToken(AuthToken),
}

impl PageToken {
    fn parse(purpose: MailTokenPurpose, text: &str) -> Option<Self> {
        match (LinkToken::parse(text), purpose) {
            (LinkToken::Mailed(token), _) => Some(Self::Mailed(token)),
            (LinkToken::AuthToken(token), MailTokenPurpose::VerifyEmail) => Some(Self::AuthToken(token)),
            (LinkToken::AuthToken(_) | LinkToken::Unknown, _) => None,
        }
    }
}

/// Handles a submitted form and returns the result page. Records a refusal that the operation did not record.
pub(super) async fn submit(
    accounts: &Accounts,
    templates: &PageTemplates,
    purpose: MailTokenPurpose,
    mut form: Form,
    origin: &Origin,
) -> Reply {
    let refused = |error: &AccountError| {
        note_refusal(accounts, purpose, origin, refusal(error));
        log_failure(error, origin);
        error_page(templates, purpose, error)
    };
    let token = match PageToken::parse(purpose, &form.take(TOKEN)) {
        Some(PageToken::Mailed(token)) => token,
        Some(PageToken::AuthToken(token)) => {
            return match accounts.verify_email(LinkToken::AuthToken(token), origin).await {
                Ok(_) => templates.page(StatusCode::OK, purpose, &State::Done),
                Err(AccountError::InvalidToken) if accounts.old_links() == OldLinks::Ended => {
                    old_link_ended(templates, HERE)
                }
                Err(error) => refused(&error),
            };
        }
        None => return refused(&AccountError::InvalidToken),
    };
    match use_link(accounts, purpose, &token, &mut form, origin).await {
        Ok(PageOutcome::Done) => templates.page(StatusCode::OK, purpose, &State::Done),
        Ok(PageOutcome::TryAgain(rule)) => {
            note_refusal(accounts, purpose, origin, INVALID_INPUT);
            form_page(templates, StatusCode::UNPROCESSABLE_ENTITY, purpose, &token, Some(&rule))
        }
        Err(error) => refused(&error),
    }
}

/// Performs the operation of the page with the token of its link.
async fn use_link(
    accounts: &Accounts,
    purpose: MailTokenPurpose,
    token: &MailToken,
    form: &mut Form,
    origin: &Origin,
) -> Result<PageOutcome, AccountError> {
    match purpose {
        MailTokenPurpose::VerifyEmail => {
            accounts.verify_email(LinkToken::Mailed(token.clone()), origin).await.map(|_| PageOutcome::Done)
        }
        MailTokenPurpose::ChangeEmail => {
            accounts.confirm_email_change(token, origin).await.map(|_| PageOutcome::Done)
        }
        MailTokenPurpose::UndoEmailChange => {
            accounts.undo_email_change(token, origin).await.map(|_| PageOutcome::Done)
        }
        MailTokenPurpose::ResetPassword => reset_password(accounts, token, form, origin).await,
    }
}

/// Records a refused or failed submission in the audit trail, unless its operation has recorded an event
/// (`queue_call` checks that).
pub(super) fn note_refusal(
    accounts: &Accounts,
    purpose: MailTokenPurpose,
    origin: &Origin,
    (kind, reason): Refusal,
) {
    let kind = kind.unwrap_or(match purpose {
        MailTokenPurpose::VerifyEmail | MailTokenPurpose::ChangeEmail | MailTokenPurpose::UndoEmailChange => {
            AuditKind::UserUpdateFail
        }
        MailTokenPurpose::ResetPassword => AuditKind::AuthnPasswordChangeFail,
    });
    let event = accounts.audit().event(kind, origin).with_resource(purpose.page());
    accounts.audit().queue_call(event.with_reason(reason));
}

/// Returns the kind and reason of an error for the audit trail.
const fn refusal(error: &AccountError) -> Refusal {
    match (error, error.reason()) {
        (_, Some(reason)) => (None, reason),
        (AccountError::Overloaded { .. }, _) => BUSY,
        (AccountError::StoreUnavailable(_), _) => (None, "STORE_UNAVAILABLE"),
        _ => (None, "INTERNAL"),
    }
}

/// Sets the new password of the form, which must be the same in both fields.
async fn reset_password(
    accounts: &Accounts,
    token: &MailToken,
    form: &mut Form,
    origin: &Origin,
) -> Result<PageOutcome, AccountError> {
    let (password, again) = (form.take(NEW_PASSWORD), form.take(NEW_PASSWORD_AGAIN));
    if password != again {
        return Ok(PageOutcome::TryAgain("must be the same in both fields".to_owned()));
    }
    match accounts.reset_password(token, password, origin).await {
        Ok(()) => Ok(PageOutcome::Done),
        Err(NewPasswordError::Refused(refusal)) => Ok(PageOutcome::TryAgain(refusal.to_string())),
        Err(NewPasswordError::Account(error)) => Err(error),
    }
}

/// Returns the page with the form. `rule` is the rule that the submitted password breaks.
fn form_page(
    templates: &PageTemplates,
    status: StatusCode,
    purpose: MailTokenPurpose,
    token: &MailToken,
    rule: Option<&str>,
) -> Reply {
    templates.page(status, purpose, &State::Form { token: token.to_link_text(), rule })
}

/// Returns the result page for an error, with its status.
fn error_page(templates: &PageTemplates, purpose: MailTokenPurpose, error: &AccountError) -> Reply {
    let refused = |status| {
        let reason = error.reason().unwrap_or_default();
        templates.page(status, purpose, &State::Refused { reason })
    };
    match error {
        // Not an error for the user: the email is verified.
        AccountError::EmailAlreadyVerified => refused(StatusCode::OK),
        AccountError::InvalidToken => refused(StatusCode::BAD_REQUEST),
        AccountError::EmailTaken => refused(StatusCode::CONFLICT),
        AccountError::Overloaded { .. } | AccountError::StoreUnavailable(_) => {
            templates.error(StatusCode::SERVICE_UNAVAILABLE).retry_after(RETRY_AFTER_SECONDS)
        }
        AccountError::TooManyAttempts { retry_after } => {
            templates.error(StatusCode::TOO_MANY_REQUESTS).retry_after(seconds_after(*retry_after))
        }
        _ => templates.error(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// Returns a number of whole seconds after which the time has passed.
fn seconds_after(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

/// Logs the cause of an unavailable or damaged database, or of an internal error.
fn log_failure(error: &AccountError, origin: &Origin) {
    let request_id = origin.request_id.map(tracing::field::display);
    match error {
        AccountError::StoreUnavailable(cause) => {
            tracing::warn!(request_id, error = %chain(cause), "Page request failed: database unavailable");
        }
        AccountError::StoreDamaged(cause) => {
            tracing::error!(request_id, error = %chain(cause), "Page request failed: database damaged");
        }
        AccountError::Internal(cause) => {
            tracing::error!(request_id, error = %chain(cause), "Page request failed: internal error");
        }
        _ => {}
    }
}
