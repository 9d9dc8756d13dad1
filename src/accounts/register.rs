//! Registration.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{AccountError, Accounts, MailedBy, NewPasswordError, mails::Link};
use crate::{
    domain::{
        AuditKind, AuthToken, Email, MailKind, MailToken, MailTokenPurpose, NewPassword, Origin, RequestId,
        Timestamp, User, Username,
    },
    store::{NewMail, Registered, Registration, Replay, Subject},
};

/// Time for which the request id of a registration is kept.
pub const REQUEST_ID_LIFETIME: Duration = Duration::from_hours(24);

/// Audit `resource` of a user that was deleted because its email was never verified.
pub(super) const ABANDONED: &str = "abandoned";

/// A request for a new account.
#[derive(Debug)]
pub struct NewAccount {
    /// The display name.
    pub username: Username,
    /// The address that the link is mailed to.
    pub email: Email,
    /// A password that [`Accounts::parse_new_password`] has accepted.
    pub password: NewPassword,
    /// Makes a retry within 24 h return the same user.
    pub request_id: Option<RequestId>,
    /// The sender of the link.
    pub mailed_by: MailedBy,
    /// The caller and the origin of the request, for the audit trail.
    pub origin: Origin,
}

/// The result of a registration.
#[derive(Debug)]
pub struct NewUser {
    /// The user in its current state.
    pub user: User,
    /// The token of the link, for a caller that mails the link itself. `None` for a retry: the token is not
    /// stored.
    pub mail_token: Option<MailToken>,
}

impl From<User> for NewUser {
    fn from(user: User) -> Self {
        Self { user, mail_token: None }
    }
}

impl Accounts {
    /// Registers a user and mails a verification link. The user, the link and the mail are written in one
    /// transaction.
    ///
    /// A retry with the same request id, email and username returns the user in its current state. The
    /// password is neither judged nor compared, so that a retry costs no hash.
    ///
    /// # Errors
    /// In the order of the checks: [`AccountError::RequestIdReused`]; [`AccountError::TooManyAttempts`],
    /// before the password is judged, because that takes time; [`NewPasswordError::Refused`];
    /// [`AccountError::EmailTaken`]; [`AccountError::UsernameTaken`]. At any step
    /// [`AccountError::Overloaded`], [`AccountError::StoreUnavailable`] or [`AccountError::Internal`].
    pub async fn register(&self, account: NewAccount) -> Result<NewUser, NewPasswordError> {
        self.run_detached(|accounts, caller_gone| async move {
            let registered = accounts.register_or_replay(&account, &caller_gone).await;
            if matches!(registered, Err(NewPasswordError::Account(AccountError::EmailTaken))) {
                accounts.notify_owner_of_email(&account).await;
            }
            let event = |kind| accounts.deps.audit.event(kind, &account.origin);
            registered.map_err(|error| {
                error.map_account(|error| accounts.deps.audit.queue_error(event(refusal_kind(&error)), error))
            })
        })
        .await
    }

    /// Mails a notice to the user with this email, if it is verified, within the limit of notices to one
    /// mailbox. A failure does not change the response.
    async fn notify_owner_of_email(&self, account: &NewAccount) {
        let now = self.deps.env.clock.now();
        if self.count_notice(Subject::mailbox_notices(&account.email)).await.is_err() {
            return;
        }
        let enqueued = match self.deps.store.stored_email(&account.email).await {
            Ok(email) => {
                let notice = self.deps.mails.notice(MailKind::RegistrationAttempted, &email, now);
                self.deps.store.enqueue_notice(notice, now).await
            }
            Err(error) => Err(error),
        };
        match enqueued {
            Ok(true) => self.deps.mails.wake_outbox(),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(error = %error.chain(), "Notice of a registration attempt not queued");
            }
        }
    }

    /// Registers the user, or returns the user that an earlier request with the same request id registered.
    /// Does not record a refusal.
    async fn register_or_replay(
        &self,
        account: &NewAccount,
        caller_gone: &CancellationToken,
    ) -> Result<NewUser, NewPasswordError> {
        let now = self.deps.env.clock.now();
        if let Some(user) = self.find_replay(account, now).await? {
            return Ok(user.into());
        }
        match self.register_new(account, now, caller_gone).await {
            // The same request may have been sent twice, and the other copy may have won: then both get the
            // same user.
            Err(NewPasswordError::Account(
                refusal @ (AccountError::EmailTaken
                | AccountError::UsernameTaken
                | AccountError::RequestIdReused),
            )) => Ok(self.find_replay(account, now).await?.map(NewUser::from).ok_or(refusal)?),
            answer => answer,
        }
    }

    /// Registers a user whose request id, if any, is new or was sent twice at the same moment.
    async fn register_new(
        &self,
        account: &NewAccount,
        now: Timestamp,
        caller_gone: &CancellationToken,
    ) -> Result<NewUser, NewPasswordError> {
        // Counted first: whatever the password is, judging it takes the time of a hashing thread.
        self.count_registration(account.origin.client).await?;
        self.judge_password(&account.password, &account.username, &account.email).await?;
        self.refuse_taken(account).await?;
        let Link { mail, for_caller } =
            self.deps.mails.link(MailTokenPurpose::VerifyEmail, &account.email, account.mailed_by, now);
        let registration = self.new_registration(account, mail, now, caller_gone).await?;
        match self.deps.store.register(registration).await? {
            Registered::New(user) => {
                self.deps.mails.wake_outbox();
                Ok(NewUser { user, mail_token: for_caller })
            }
            Registered::Known(replay) => Ok(replayed_user(replay)?.into()),
        }
    }

    /// Returns the user that an earlier request with the same request id registered, if there is one.
    async fn find_replay(&self, account: &NewAccount, now: Timestamp) -> Result<Option<User>, AccountError> {
        let Some(id) = account.request_id else { return Ok(None) };
        let since = now.minus(REQUEST_ID_LIFETIME);
        let replay = self.deps.store.find_registration(id, since, &account.username, &account.email).await?;
        replay.map(replayed_user).transpose()
    }

    /// Refuses a taken email or username before the password is hashed. The unique constraints make the final
    /// decision.
    async fn refuse_taken(&self, account: &NewAccount) -> Result<(), AccountError> {
        let of_email = self.deps.store.find_user_by_email(&account.email).await?;
        if let Some(holder) = &of_email
            && !self.is_abandoned(&holder.email).await?
        {
            return Err(AccountError::EmailTaken);
        }
        let of_name = self.deps.store.find_user_by_username(&account.username).await?;
        // The username of an abandoned user with this email is free too: that user is deleted.
        if of_name.is_some_and(|other| of_email.is_none_or(|of_email| of_email.id != other.id)) {
            return Err(AccountError::UsernameTaken);
        }
        Ok(())
    }

    /// True if the user with this email is abandoned, so that a registration with the same email deletes it.
    async fn is_abandoned(&self, email: &Email) -> Result<bool, AccountError> {
        let Some(registered_until) = self.abandoned_until().await? else { return Ok(false) };
        Ok(self.deps.store.is_abandoned(email, registered_until).await?)
    }

    /// Returns the time until which a user must have registered to be abandoned: an unverified registration
    /// holds its email as long as its link is valid. `None` while no user may be deleted by its age.
    async fn abandoned_until(&self) -> Result<Option<Timestamp>, AccountError> {
        let now = self.deps.clock_watch.deletion_time(&self.deps.store).await?;
        Ok(now.map(|now| now.minus(self.deps.mails.lifetime(MailTokenPurpose::VerifyEmail))))
    }

    /// Hashes the password and returns the registration to write.
    async fn new_registration(
        &self,
        account: &NewAccount,
        mail: NewMail,
        now: Timestamp,
        caller_gone: &CancellationToken,
    ) -> Result<Registration, AccountError> {
        let caller_gone = caller_gone.clone();
        let password =
            self.deps.passwords.hash_if(&account.password, move || !caller_gone.is_cancelled()).await?;
        let auth_token = AuthToken::from_random(self.deps.env.entropy.bytes());
        let mut event = self.deps.audit.event(AuditKind::UserCreated, &account.origin);
        if account.mailed_by == MailedBy::Caller {
            event = event.with_resource(account.mailed_by.resource(MailTokenPurpose::VerifyEmail));
        }
        Ok(Registration {
            username: account.username.clone(),
            email: account.email.clone(),
            password,
            auth_token,
            request_id: account.request_id,
            request_ids_since: now.minus(REQUEST_ID_LIFETIME),
            mail,
            created_at: now,
            abandoned_until: self.abandoned_until().await?,
            event: event.with_user(Some(auth_token)),
            deletion: self.deps.audit.event(AuditKind::UserDeleted, &account.origin).with_resource(ABANDONED),
        })
    }
}

/// Returns the audit kind of a refused registration.
const fn refusal_kind(error: &AccountError) -> AuditKind {
    match error {
        AccountError::TooManyAttempts { .. } => AuditKind::ExcessRateLimitExceeded,
        _ => AuditKind::UserCreateFail,
    }
}

/// Returns the user of an earlier registration if the request is the same.
fn replayed_user(replay: Replay) -> Result<User, AccountError> {
    match replay {
        Replay::Same(user) => Ok(user),
        Replay::Different => Err(AccountError::RequestIdReused),
    }
}
