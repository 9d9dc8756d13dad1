//! Registrations, new passwords, requested links, changes of an account, and notices. Each is counted before
//! it is processed, in a transaction of its own.
//!
//! A password attempt is reserved before the comparison, and counts only if its password was wrong
//! (`password_attempts`).

use super::{
    AccountError, Accounts,
    throttle::{Rule, require_admission},
};
use crate::{
    domain::{AuditKind, AuthToken, ClientAddress, Email, Origin, Timestamp, User},
    store::{Attempts, Subject},
};

impl Accounts {
    /// Counts a link that a client requested without a proof of its identity, whether or not there is an
    /// account to mail it to. True while the mailbox is within its limit. Beyond the limit the request is not
    /// refused, because any client could use up the limit of the owner: it is merged with the earlier ones.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`] if the client's address has reached its limit; or a database error.
    pub(super) async fn count_requested_link(
        &self,
        mails_to: Subject,
        email: &Email,
        origin: &Origin,
    ) -> Result<bool, AccountError> {
        let (options, now) = (self.options.throttle, self.deps.env.clock.now());
        if let Some(client) = origin.client {
            let limit = (Subject::address_link_requests(client), Rule::PerWindow(options.resends_from));
            let counted = self.count(vec![limit], now).await;
            let event = || self.deps.audit.event(AuditKind::ExcessRateLimitExceeded, origin);
            counted.map_err(|error| self.deps.audit.queue_error_about(event(), email, error))?;
        }
        match self.count(vec![(mails_to, Rule::PerWindow(options.resends_to))], now).await {
            Ok(()) => Ok(true),
            Err(AccountError::TooManyAttempts { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Counts a change that causes mails and that a user requested with a proof of identity. `changes` is a
    /// subject for which only such requests count, so no other client can use up its limit.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`]; the change was not counted. Or a database error.
    pub(super) async fn count_own_change(
        &self,
        changes: Subject,
        user: &User,
        origin: &Origin,
    ) -> Result<(), AccountError> {
        let rule = Rule::PerWindow(self.options.throttle.resends_to);
        let counted = self.count(vec![(changes, rule)], self.deps.env.clock.now()).await;
        let event = || self.deps.audit.event(AuditKind::ExcessRateLimitExceeded, origin);
        counted.map_err(|error| self.deps.audit.queue_error(event().with_user(Some(user.auth_token)), error))
    }

    /// Counts a notice: of an attempted registration ([`Subject::mailbox_notices`]), or of a login from a new
    /// address ([`Subject::mailbox_login_notices`]).
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`]; the mail was not counted. Or a database error.
    pub(super) async fn count_notice(&self, notices: Subject) -> Result<(), AccountError> {
        let rule = Rule::PerWindow(self.options.throttle.resends_to);
        self.count(vec![(notices, rule)], self.deps.env.clock.now()).await
    }

    /// Counts a registration, whether or not it will succeed: its result may reveal whether an email is
    /// taken. Without the end user's address, nothing is counted.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`]; the registration was not counted. Or a database error.
    pub(super) async fn count_registration(&self, client: Option<ClientAddress>) -> Result<(), AccountError> {
        let Some(client) = client else { return Ok(()) };
        let rule = Rule::PerWindow(self.options.throttle.registrations_from);
        self.count(vec![(Subject::address_registrations(client), rule)], self.deps.env.clock.now()).await
    }

    /// Counts a refusal that tells a user that another user has an email. A user may get as many of them as
    /// registrations may come from one client address, which tell the same.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`]; the refusal was not counted. Or a database error.
    pub(super) async fn count_taken_email(&self, user: AuthToken) -> Result<(), AccountError> {
        let rule = Rule::PerWindow(self.options.throttle.registrations_from);
        self.count(vec![(Subject::user_taken_emails(user), rule)], self.deps.env.clock.now()).await
    }

    /// Replaces the wait of a refused change of email by the longest one. The waits of a taken email and of a
    /// free one end at different times, so that they would show which one it is.
    pub(super) fn with_longest_wait(&self, error: AccountError) -> AccountError {
        let throttle = &self.options.throttle;
        match error {
            AccountError::TooManyAttempts { .. } => AccountError::TooManyAttempts {
                retry_after: throttle.resends_to.window.max(throttle.registrations_from.window),
            },
            other => other,
        }
    }

    /// Counts one attempt for each subject, or returns [`AccountError::TooManyAttempts`] and counts nothing.
    async fn count(&self, limits: Vec<(Subject, Rule)>, now: Timestamp) -> Result<(), AccountError> {
        let (subjects, rules): (Vec<_>, Vec<_>) = limits.into_iter().unzip();
        let count_all = move |counted_before: &[Option<Attempts>]| {
            let with_rules = rules.iter().zip(counted_before);
            with_rules.map(|(rule, before)| rule.admit_and_count(*before, now)).collect()
        };
        require_admission(self.deps.store.count_attempt(subjects, now, count_all).await?, now)
    }

    /// Counts a new password that the policy judges, whether or not it is accepted: judging takes the time of
    /// the hashing threads.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`]; the password was not counted. Or a database error.
    pub(super) async fn count_new_password(&self, subject: Subject) -> Result<(), AccountError> {
        let rule = Rule::PerWindow(self.options.throttle.new_passwords);
        self.count(vec![(subject, rule)], self.deps.env.clock.now()).await
    }
}
