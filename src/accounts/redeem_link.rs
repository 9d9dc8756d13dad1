//! Use of a mailed link that changes an account: choosing a new password, changing the email, undoing that
//! change.

use super::{AccountError, Accounts, MailedBy, NewPasswordError, register::ABANDONED};
use crate::{
    database::DatabaseError,
    domain::{AuditKind, MailKind, MailToken, MailTokenPurpose, NewPassword, Origin, User},
    store::{EmailUndo, Subject},
};

impl Accounts {
    /// Sets a new password for the owner of a link, if the policy accepts the password, and uses up the link.
    /// This also verifies the owner's email, voids the owner's other links except those that undo an email
    /// change, revokes all sessions, deletes the known addresses, clears the failed password attempts and
    /// mails a notice. It opens no session.
    ///
    /// # Errors
    /// [`AccountError::InvalidToken`], before the password is checked, or after it if the link has become
    /// invalid meanwhile; [`AccountError::TooManyAttempts`] if too many new passwords were judged for this
    /// link; [`AccountError::Overloaded`], [`AccountError::StoreUnavailable`] or [`AccountError::Internal`];
    /// [`NewPasswordError::Refused`] if the password breaks a rule. After any error except `InvalidToken`,
    /// the link stays valid; only after `StoreUnavailable`, the password may have been set and the link used
    /// up all the same.
    pub async fn reset_password(
        &self,
        token: &MailToken,
        password: String,
        origin: &Origin,
    ) -> Result<(), NewPasswordError> {
        let (token, origin) = (token.clone(), origin.clone());
        self.run_detached(
            |accounts, _| async move { accounts.check_and_reset(&token, password, &origin).await },
        )
        .await
    }

    /// Checks the link, then counts and judges the password, and uses up the link.
    async fn check_and_reset(
        &self,
        token: &MailToken,
        password: String,
        origin: &Origin,
    ) -> Result<(), NewPasswordError> {
        let now = self.deps.env.clock.now();
        let purpose = MailTokenPurpose::ResetPassword;
        let Some(owner) = self.deps.store.find_link_owner(token.digest(), purpose, now).await? else {
            return Err(self.refuse_link(AuditKind::AuthnPasswordChangeFail, origin, None).into());
        };
        origin.note.set_user(owner.auth_token);
        let password = self.parse_new_password(password)?;
        let event = || self.deps.audit.event(AuditKind::ExcessRateLimitExceeded, origin);
        let counted = self.count_new_password(Subject::link_new_passwords(token.digest())).await;
        counted
            .map_err(|error| self.deps.audit.queue_error(event().with_user(Some(owner.auth_token)), error))?;
        self.judge_password(&password, &owner.username, &owner.email).await?;
        Ok(self.use_reset_link(token, &owner, &password, origin).await?)
    }

    /// Hashes the password, sets it and uses up the link.
    async fn use_reset_link(
        &self,
        token: &MailToken,
        owner: &User,
        password: &NewPassword,
        origin: &Origin,
    ) -> Result<(), AccountError> {
        let hash = self.deps.passwords.hash(password).await?;
        let event = self.deps.audit.event(AuditKind::AuthnPasswordChange, origin);
        let notice = self.deps.mails.notice(MailKind::PasswordChanged, &owner.email, event.at);
        let reset = self.deps.store.reset_password(token.digest(), hash, notice, event).await?;
        if reset.is_none() {
            return Err(self.refuse_link(AuditKind::AuthnPasswordChangeFail, origin, Some(owner)));
        }
        self.deps.mails.wake_outbox();
        Ok(())
    }

    /// Changes the owner's email to the one that the link was mailed to, and uses up the link. Voids the
    /// owner's other links except those that undo an email change, revokes all sessions, deletes the known
    /// addresses, and mails the old email a notice with a link that undoes the change. Deletes another user
    /// who registered with the new email and never verified it.
    ///
    /// # Errors
    /// [`AccountError::InvalidToken`], [`AccountError::EmailTaken`] or a database error.
    pub async fn confirm_email_change(
        &self,
        token: &MailToken,
        origin: &Origin,
    ) -> Result<User, AccountError> {
        let (token, origin) = (token.clone(), origin.clone());
        self.run_detached(|accounts, _| async move { accounts.use_change_link(&token, &origin).await }).await
    }

    /// Runs in the detached task of [`Accounts::confirm_email_change`].
    async fn use_change_link(&self, token: &MailToken, origin: &Origin) -> Result<User, AccountError> {
        let event = self.deps.audit.event(AuditKind::UserUpdated, origin).with_resource("email");
        let purpose = MailTokenPurpose::ChangeEmail;
        let owner = self.deps.store.find_link_owner(token.digest(), purpose, event.at).await?;
        let Some(owner) = owner else {
            return Err(self.refuse_link(AuditKind::UserUpdateFail, origin, None));
        };
        let undo = MailTokenPurpose::UndoEmailChange;
        let notice = self.deps.mails.link(undo, &owner.email, MailedBy::Service, event.at).mail;
        let deletion = self.deps.audit.event(AuditKind::UserDeleted, origin).with_resource(ABANDONED);
        let confirmed = self.deps.store.confirm_email_change(token.digest(), notice, event, deletion).await;
        self.changed_email(&owner, confirmed, origin)
    }

    /// Undoes a change of the owner's email: restores the one that the link was mailed to, marks it as
    /// verified, and uses up the link. Voids the owner's other links except those that undo an earlier
    /// change, revokes all sessions, deletes the known addresses, and mails notices to both emails. Deletes
    /// another user who registered with the restored email and never verified it. The password does not
    /// change.
    ///
    /// # Errors
    /// [`AccountError::InvalidToken`]; [`AccountError::EmailTaken`] if another user has verified the old
    /// email since; or a database error.
    pub async fn undo_email_change(&self, token: &MailToken, origin: &Origin) -> Result<User, AccountError> {
        let (token, origin) = (token.clone(), origin.clone());
        self.run_detached(|accounts, _| async move { accounts.use_undo_link(&token, &origin).await }).await
    }

    /// Runs in the detached task of [`Accounts::undo_email_change`].
    async fn use_undo_link(&self, token: &MailToken, origin: &Origin) -> Result<User, AccountError> {
        let event = self.deps.audit.event(AuditKind::UserUpdated, origin).with_resource("email, undone");
        let purpose = MailTokenPurpose::UndoEmailChange;
        let owner = self.deps.store.find_link_owner(token.digest(), purpose, event.at).await?;
        let Some(owner) = owner else {
            return Err(self.refuse_link(AuditKind::UserUpdateFail, origin, None));
        };
        let undo = EmailUndo {
            removed: self.deps.mails.notice(MailKind::EmailChanged, &owner.email, event.at),
            // The store sets the recipient: the email that the link was mailed to.
            restored: self.deps.mails.notice(MailKind::EmailRestored, &owner.email, event.at),
            deletion: self.deps.audit.event(AuditKind::UserDeleted, origin).with_resource(ABANDONED),
            event,
        };
        let undone = self.deps.store.undo_email_change(token.digest(), undo).await;
        self.changed_email(&owner, undone, origin)
    }

    /// Wakes the outbox and returns the user whose email a link has changed; or records the refusal and
    /// returns it. A failure of the database is not recorded.
    fn changed_email(
        &self,
        owner: &User,
        changed: Result<Option<User>, DatabaseError>,
        origin: &Origin,
    ) -> Result<User, AccountError> {
        match changed {
            Ok(Some(user)) => {
                self.deps.mails.wake_outbox();
                Ok(user)
            }
            Ok(None) => Err(self.refuse_link(AuditKind::UserUpdateFail, origin, Some(owner))),
            Err(error @ DatabaseError::NotUnique(_)) => {
                let failure_event = self
                    .deps
                    .audit
                    .event(AuditKind::UserUpdateFail, origin)
                    .with_user(Some(owner.auth_token));
                Err(self.deps.audit.queue_error(failure_event, error.into()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Records that a link is not valid, with its owner if it was valid a moment before, and returns the
    /// error.
    fn refuse_link(&self, kind: AuditKind, origin: &Origin, owner: Option<&User>) -> AccountError {
        let event = self.deps.audit.event(kind, origin).with_user(owner.map(|owner| owner.auth_token));
        self.deps.audit.queue_error(event, AccountError::InvalidToken)
    }
}
