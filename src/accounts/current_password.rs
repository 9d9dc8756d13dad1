//! What only the current password allows, beside an access token: whoever has stolen the one has not the other.

use super::{AccountError, Accounts, ActingUser, MailedBy, audit};
use crate::{
    domain::{
        AuditEvent, AuditKind, Email, MailKind, MailToken, MailTokenPurpose, NewPassword, Origin, Password,
    },
    password::Verdict,
    store::{Credentials, EmailChangeRequest, PasswordChange, Subject},
};

impl Accounts {
    /// Checks the current password of the user who acts, within the budget that logins have; the right one takes back what was counted,
    /// whatever becomes of the change.
    async fn check_current(
        &self,
        acting: &ActingUser,
        current: &Password,
        origin: &Origin,
    ) -> Result<Credentials, AccountError> {
        let place = self.with.passwords.reserve()?;
        let guess = self.count_guess(&acting.user.email, origin).await?;
        let found = self.with.store.find_credentials(&acting.user.email).await?;
        // The address may be somebody else's by now.
        let found = found.filter(|found| found.user.id == acting.user.id);
        let hash = found.as_ref().map(|found| found.password.clone());
        match (self.with.passwords.verify(place, current, hash).await?, found) {
            (Verdict::Right { .. }, Some(found)) => {
                self.forgive(&guess).await;
                Ok(found)
            }
            (Verdict::Right { .. } | Verdict::Wrong, _) => Err(AccountError::InvalidCredentials),
        }
    }

    /// The event about the user who acts.
    fn event_of(&self, kind: AuditKind, acting: &ActingUser, origin: &Origin) -> AuditEvent {
        self.with.audit.event(kind, origin).about(Some(acting.user.auth_token))
    }

    /// Replaces the current password by a new one, admitted by [`Accounts::admit_password`]; ends the user's other sessions and tells them by mail.
    ///
    /// # Errors
    /// [`AccountError::InvalidCredentials`], [`AccountError::TooManyAttempts`], or that the service is overloaded, without its database or
    /// broken.
    pub async fn change_password(
        &self,
        acting: &ActingUser,
        current: &Password,
        new: &NewPassword,
        origin: &Origin,
    ) -> Result<(), AccountError> {
        let changed = self.check_and_change(acting, current, new, origin).await;
        let failed = || self.event_of(AuditKind::AuthnPasswordChangeFail, acting, origin);
        changed.map_err(|error| self.with.audit.refused(failed(), None, error))
    }

    async fn check_and_change(
        &self,
        acting: &ActingUser,
        current: &Password,
        new: &NewPassword,
        origin: &Origin,
    ) -> Result<(), AccountError> {
        let found = self.check_current(acting, current, origin).await?;
        let hash = self.with.passwords.hash(new).await?;
        let event = self.event_of(AuditKind::AuthnPasswordChange, acting, origin);
        let change = PasswordChange {
            user: acting.user.id,
            old: found.password,
            new: hash,
            keep: acting.session,
            notice: self.with.mails.notice(MailKind::PasswordChanged, &found.user.email, event.at),
            event: event.clone(),
        };
        if !self.with.store.change_password(change).await? {
            return Err(AccountError::InvalidCredentials);
        }
        self.with.mails.ring();
        audit::log(&event);
        Ok(())
    }

    /// Mails a link to a new address, which makes it the account's, and word of it to the old one. A caller who mails the link itself is given its
    /// token.
    ///
    /// # Errors
    /// [`AccountError::InvalidCredentials`], [`AccountError::EmailTaken`], [`AccountError::TooManyAttempts`] at the password or with mails to that
    /// address, or that the service is overloaded, without its database or broken.
    pub async fn request_email_change(
        &self,
        acting: &ActingUser,
        current: &Password,
        new: &Email,
        by: MailedBy,
        origin: &Origin,
    ) -> Result<Option<MailToken>, AccountError> {
        let requested = self.check_and_request(acting, current, new, by, origin).await;
        let failed = || self.event_of(AuditKind::UserUpdateFail, acting, origin);
        requested.map_err(|error| self.with.audit.refused(failed(), None, error))
    }

    async fn check_and_request(
        &self,
        acting: &ActingUser,
        current: &Password,
        new: &Email,
        by: MailedBy,
        origin: &Origin,
    ) -> Result<Option<MailToken>, AccountError> {
        let found = self.check_current(acting, current, origin).await?;
        let taken = self.with.store.find_user_by_email(new).await?;
        if taken.is_some_and(|other| other.is_verified && other.id != acting.user.id) {
            return Err(AccountError::EmailTaken);
        }
        self.count_mail(Subject::resends_to(new), new, origin).await?;
        let event = self.event_of(AuditKind::AuthnTokenCreated, acting, origin);
        let event = event.of(by.resource(MailTokenPurpose::ChangeEmail));
        let link = self.with.mails.link(MailTokenPurpose::ChangeEmail, new, by, event.at);
        let request = EmailChangeRequest {
            user: acting.user.id,
            password: found.password,
            link: link.mail,
            notice: self.with.mails.notice(MailKind::EmailChangeRequested, &found.user.email, event.at),
            event: event.clone(),
        };
        if !self.with.store.request_email_change(request).await? {
            return Err(AccountError::InvalidCredentials);
        }
        self.with.mails.ring();
        audit::log(&event);
        Ok(link.for_caller)
    }

    /// Deletes the account of the user who acts, with everything that belongs to it.
    ///
    /// # Errors
    /// [`AccountError::InvalidCredentials`], [`AccountError::TooManyAttempts`], or that the service is overloaded, without its database or
    /// broken.
    pub async fn delete_account(
        &self,
        acting: &ActingUser,
        current: &Password,
        origin: &Origin,
    ) -> Result<(), AccountError> {
        let deleted = self.check_and_delete(acting, current, origin).await;
        let failed = || self.event_of(AuditKind::UserDeleteFail, acting, origin);
        deleted.map_err(|error| self.with.audit.refused(failed(), None, error))
    }

    async fn check_and_delete(
        &self,
        acting: &ActingUser,
        current: &Password,
        origin: &Origin,
    ) -> Result<(), AccountError> {
        let found = self.check_current(acting, current, origin).await?;
        let event = self.event_of(AuditKind::UserDeleted, acting, origin);
        if !self.with.store.delete_account(acting.user.id, found.password, event.clone()).await? {
            return Err(AccountError::InvalidCredentials);
        }
        audit::log(&event);
        Ok(())
    }
}
