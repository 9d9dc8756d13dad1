//! Changes that require the current password in addition to an access token, so that a stolen access token is
//! not enough.

use tokio_util::sync::CancellationToken;

use super::{
    AccountError, Accounts, ActingUser, MailedBy, NewPasswordError, attempt_limits::AttemptedAccount,
};
use crate::{
    domain::{
        AuditEvent, AuditKind, Email, MailKind, MailToken, MailTokenPurpose, NewPassword, Origin, Password,
    },
    password::Verdict,
    store::{Credentials, EmailChangeRequest, NoticedEvent, PasswordChange, Subject},
};

/// The recipient of the link that confirms an email change, and the sender of the link.
#[derive(Clone, Copy)]
struct LinkRecipient<'a> {
    email: &'a Email,
    mailed_by: MailedBy,
}

impl Accounts {
    /// Verifies the current password of the acting user, within the limits on acting users. A wrong password
    /// counts as a failed login too. A correct one clears the failures of the acting user, whether or not the
    /// change succeeds afterwards.
    async fn check_current(
        &self,
        acting: &ActingUser,
        current: &Password,
        origin: &Origin,
        caller_gone: CancellationToken,
    ) -> Result<Credentials, AccountError> {
        let slot = self.deps.passwords.reserve()?;
        let mut attempt =
            self.reserve_attempt(AttemptedAccount::Acting(&acting.user), origin, caller_gone).await?;
        let found = self.deps.store.find_credentials(&acting.user.email).await?;
        // The email may belong to another user by now.
        let found = found.filter(|found| found.user.id == acting.user.id);
        let hash = found.as_ref().map(|found| found.password.clone());
        match (attempt.compare(slot, current, hash).await?, found) {
            (Verdict::Correct { .. }, Some(found)) => {
                attempt.settle().await;
                Ok(found)
            }
            (Verdict::Correct { .. } | Verdict::Wrong, _) => Err(AccountError::WrongCurrentPassword),
        }
    }

    /// Creates an event about the acting user.
    fn event_about(&self, kind: AuditKind, acting: &ActingUser, origin: &Origin) -> AuditEvent {
        self.deps.audit.event(kind, origin).with_user(Some(acting.user.auth_token))
    }

    /// Replaces the current password by a new one that the policy accepts. Revokes the user's other sessions,
    /// voids the user's pending links for a password reset or an email change, deletes the known addresses of
    /// the user, and mails the user a notice.
    ///
    /// # Errors
    /// [`AccountError::WrongCurrentPassword`], also when the password was changed or the user disabled at the
    /// same moment; [`AccountError::TooManyAttempts`] for current or for new passwords;
    /// [`AccountError::Overloaded`], [`AccountError::StoreUnavailable`] or [`AccountError::Internal`];
    /// [`NewPasswordError::Refused`], only after the correct current password.
    pub async fn change_password(
        &self,
        acting: &ActingUser,
        current: &Password,
        new: NewPassword,
        origin: &Origin,
    ) -> Result<(), NewPasswordError> {
        let (acting, current, origin) = (acting.clone(), current.clone(), origin.clone());
        self.run_detached(|accounts, caller_gone| async move {
            let changed = accounts.check_and_change(&acting, &current, &new, &origin, caller_gone).await;
            let failure_event = || accounts.event_about(AuditKind::AuthnPasswordChangeFail, &acting, &origin);
            changed.map_err(|error| {
                error.map_account(|error| accounts.deps.audit.queue_error(failure_event(), error))
            })
        })
        .await
    }

    /// Does what [`Accounts::change_password`] does, without recording a refusal.
    async fn check_and_change(
        &self,
        acting: &ActingUser,
        current: &Password,
        new: &NewPassword,
        origin: &Origin,
        caller_gone: CancellationToken,
    ) -> Result<(), NewPasswordError> {
        let found = self.check_current(acting, current, origin, caller_gone).await?;
        self.count_new_password(Subject::user_new_passwords(found.user.auth_token)).await?;
        self.judge_password(new, &found.user.username, &found.user.email).await?;
        let hash = self.deps.passwords.hash(new).await.map_err(AccountError::from)?;
        let event = self.event_about(AuditKind::AuthnPasswordChange, acting, origin);
        let change = PasswordChange {
            user: acting.user.id,
            old: found.password,
            new: hash,
            keep: acting.session,
            notice: self.deps.mails.notice(MailKind::PasswordChanged, &found.user.email, event.at),
            event,
        };
        if !self.deps.store.change_password(change).await? {
            return Err(AccountError::WrongCurrentPassword.into());
        }
        self.deps.mails.wake_outbox();
        Ok(())
    }

    /// Mails a link to the new email and a notice to the old one. When the link is used, the new email
    /// replaces the old one. Earlier links that change the email become void. With [`MailedBy::Caller`],
    /// returns the token of the link instead of mailing it.
    ///
    /// # Errors
    /// [`AccountError::WrongCurrentPassword`], also when the password was changed or the user disabled at the
    /// same moment; [`AccountError::EmailTaken`] when another user has verified the new email;
    /// [`AccountError::TooManyAttempts`] for passwords or for email changes that the user requested;
    /// [`AccountError::Overloaded`], [`AccountError::StoreUnavailable`] or [`AccountError::Internal`].
    pub async fn request_email_change(
        &self,
        acting: &ActingUser,
        current: &Password,
        new: &Email,
        by: MailedBy,
        origin: &Origin,
    ) -> Result<Option<MailToken>, AccountError> {
        let (acting, current, new, origin) = (acting.clone(), current.clone(), new.clone(), origin.clone());
        self.run_detached(|accounts, caller_gone| async move {
            let link_to = LinkRecipient { email: &new, mailed_by: by };
            let requested =
                accounts.check_and_request(&acting, &current, link_to, &origin, caller_gone).await;
            let failure_event = || accounts.event_about(AuditKind::UserUpdateFail, &acting, &origin);
            requested.map_err(|error| accounts.deps.audit.queue_error(failure_event(), error))
        })
        .await
    }

    /// Does what [`Accounts::request_email_change`] does, without recording a refusal.
    async fn check_and_request(
        &self,
        acting: &ActingUser,
        current: &Password,
        link_to: LinkRecipient<'_>,
        origin: &Origin,
        caller_gone: CancellationToken,
    ) -> Result<Option<MailToken>, AccountError> {
        let LinkRecipient { email: new, mailed_by } = link_to;
        let found = self.check_current(acting, current, origin, caller_gone).await?;
        let taken = self.deps.store.find_user_by_email(new).await?;
        if taken.is_some_and(|other| other.is_verified && other.id != acting.user.id) {
            let counted = self.count_taken_email(acting.user.auth_token).await;
            return Err(counted
                .err()
                .map_or(AccountError::EmailTaken, |error| self.with_longest_wait(error)));
        }
        let counted = Subject::user_email_changes(acting.user.auth_token);
        let counted = self.count_own_change(counted, &acting.user, origin).await;
        counted.map_err(|error| self.with_longest_wait(error))?;
        let event = self.event_about(AuditKind::AuthnTokenCreated, acting, origin);
        let event = event.with_resource(mailed_by.resource(MailTokenPurpose::ChangeEmail));
        let link = self.deps.mails.link(MailTokenPurpose::ChangeEmail, new, mailed_by, event.at);
        let request = EmailChangeRequest {
            user: acting.user.id,
            password: found.password,
            link: link.mail,
            notice: self.deps.mails.notice(MailKind::EmailChangeRequested, &found.user.email, event.at),
            event,
        };
        if !self.deps.store.request_email_change(request).await? {
            return Err(AccountError::WrongCurrentPassword);
        }
        self.deps.mails.wake_outbox();
        Ok(link.for_caller)
    }

    /// Deletes the account of the acting user with all rows that belong to it, and mails the user a notice.
    ///
    /// # Errors
    /// [`AccountError::WrongCurrentPassword`], also when the password was changed or the user disabled at the
    /// same moment; [`AccountError::TooManyAttempts`], [`AccountError::Overloaded`],
    /// [`AccountError::StoreUnavailable`] or [`AccountError::Internal`].
    pub async fn delete_account(
        &self,
        acting: &ActingUser,
        current: &Password,
        origin: &Origin,
    ) -> Result<(), AccountError> {
        let (acting, current, origin) = (acting.clone(), current.clone(), origin.clone());
        self.run_detached(|accounts, caller_gone| async move {
            let deleted = accounts.check_and_delete(&acting, &current, &origin, caller_gone).await;
            let failure_event = || accounts.event_about(AuditKind::UserDeleteFail, &acting, &origin);
            deleted.map_err(|error| accounts.deps.audit.queue_error(failure_event(), error))
        })
        .await
    }

    /// Does what [`Accounts::delete_account`] does, without recording a refusal.
    async fn check_and_delete(
        &self,
        acting: &ActingUser,
        current: &Password,
        origin: &Origin,
        caller_gone: CancellationToken,
    ) -> Result<(), AccountError> {
        let found = self.check_current(acting, current, origin, caller_gone).await?;
        let event = self.event_about(AuditKind::UserDeleted, acting, origin);
        let notice = self.deps.mails.notice(MailKind::AccountDeleted, &found.user.email, event.at);
        let event = NoticedEvent { event, notice: Some(notice) };
        if !self.deps.store.delete_account(acting.user.id, found.password, event).await? {
            return Err(AccountError::WrongCurrentPassword);
        }
        self.deps.mails.wake_outbox();
        Ok(())
    }
}
