//! Registration.

use super::{AccountError, Accounts, MailedBy, REQUEST_ID_LIFETIME, audit, mails::Link};
use crate::{
    domain::{
        AuditKind, AuthToken, Email, MailKind, MailToken, MailTokenPurpose, NewPassword, Origin, RequestId,
        Timestamp, User, Username,
    },
    store::{NewMail, Registered, Registration, Replay},
};

/// What the trail has of an account that makes room, since nobody has proven its address.
pub(super) const ABANDONED: &str = "abandoned";

/// Somebody who wants an account.
#[derive(Debug)]
pub struct NewAccount {
    /// The name that others see.
    pub username: Username,
    /// Where the link goes.
    pub email: Email,
    /// Admitted by [`Accounts::admit_password`].
    pub password: NewPassword,
    /// Makes a repetition within 24 h give the same user.
    pub request_id: Option<RequestId>,
    /// Who mails the link.
    pub mailed_by: MailedBy,
    /// Who asks for it, and from where.
    pub origin: Origin,
}

/// Somebody who has an account.
#[derive(Debug)]
pub struct NewUser {
    /// As they are now.
    pub user: User,
    /// For a caller who mails the link itself; nothing when the registration is a repetition, since nobody has the token any more.
    pub mail_token: Option<MailToken>,
}

impl From<User> for NewUser {
    fn from(user: User) -> Self {
        Self { user, mail_token: None }
    }
}

impl Accounts {
    /// Registers a user and mails a link that proves their address; user, link and mail are one transaction.
    ///
    /// A repetition with the same request id, email and username gives the user as they are now; the password is not
    /// compared, so that it costs no hash.
    ///
    /// # Errors
    /// [`AccountError::EmailTaken`] before [`AccountError::UsernameTaken`], [`AccountError::RequestIdReused`],
    /// [`AccountError::TooManyAttempts`], or that the service is overloaded, without its database or broken.
    pub async fn register(&self, account: NewAccount) -> Result<NewUser, AccountError> {
        let registered = self.register_or_replay(&account).await;
        if matches!(registered, Err(AccountError::EmailTaken)) {
            self.tell_of_attempt(&account).await;
        }
        let event = |kind| self.with.audit.event(kind, &account.origin);
        registered.map_err(|error| self.with.audit.refused(event(refusal_kind(&error)), None, error))
    }

    /// Somebody has this email and is told, though not more often than anybody is mailed. That they could not be told changes no answer.
    async fn tell_of_attempt(&self, account: &NewAccount) {
        let now = self.with.clock.now();
        if self.count_notice(&account.email).await.is_err() {
            return;
        }
        let notice = self.with.mails.notice(MailKind::RegistrationAttempted, &account.email, now);
        match self.with.store.post_notice(notice, now).await {
            Ok(true) => self.with.mails.ring(),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(error = %error.chain(), "Somebody could not be told of a registration with their address");
            }
        }
    }

    async fn register_or_replay(&self, account: &NewAccount) -> Result<NewUser, AccountError> {
        let now = self.with.clock.now();
        if let Some(user) = self.find_replay(account, now).await? {
            return Ok(user.into());
        }
        match self.register_new(account, now).await {
            // The same request, sent twice, may have been faster: then its answer is ours.
            Err(
                refusal @ (AccountError::EmailTaken
                | AccountError::UsernameTaken
                | AccountError::RequestIdReused),
            ) => self.find_replay(account, now).await?.map(NewUser::from).ok_or(refusal),
            answer => answer,
        }
    }

    async fn register_new(&self, account: &NewAccount, now: Timestamp) -> Result<NewUser, AccountError> {
        self.count_registration(account.origin.client).await?;
        self.refuse_taken(account, now).await?;
        let Link { mail, for_caller } =
            self.with.mails.link(MailTokenPurpose::VerifyEmail, &account.email, account.mailed_by, now);
        let registration = self.new_registration(account, mail, now).await?;
        let event = registration.event.clone();
        match self.with.store.register(registration).await? {
            Registered::New { user, gone } => {
                self.with.mails.ring();
                gone.iter().chain([&event]).for_each(audit::log);
                Ok(NewUser { user, mail_token: for_caller })
            }
            Registered::Known(replay) => replayed(replay).map(NewUser::from),
        }
    }

    async fn find_replay(&self, account: &NewAccount, now: Timestamp) -> Result<Option<User>, AccountError> {
        let Some(id) = account.request_id else { return Ok(None) };
        let since = now.minus(REQUEST_ID_LIFETIME);
        let replay = self.with.store.find_registration(id, since, &account.username, &account.email).await?;
        replay.map(replayed).transpose()
    }

    /// Spares the hash where the answer is known; the unique constraints decide.
    async fn refuse_taken(&self, account: &NewAccount, now: Timestamp) -> Result<(), AccountError> {
        let before = self.with.store.find_user_by_email(&account.email).await?;
        if before.is_some() && !self.with.store.is_abandoned(&account.email, now).await? {
            return Err(AccountError::EmailTaken);
        }
        let of_name = self.with.store.find_user_by_username(&account.username).await?;
        // The name of whoever makes room is free too.
        if of_name.is_some_and(|other| before.is_none_or(|before| before.id != other.id)) {
            return Err(AccountError::UsernameTaken);
        }
        Ok(())
    }

    async fn new_registration(
        &self,
        account: &NewAccount,
        mail: NewMail,
        now: Timestamp,
    ) -> Result<Registration, AccountError> {
        let auth_token = AuthToken::from_random(self.with.entropy.bytes());
        let mut event = self.with.audit.event(AuditKind::UserCreated, &account.origin);
        if account.mailed_by == MailedBy::Caller {
            event = event.of(account.mailed_by.resource(MailTokenPurpose::VerifyEmail));
        }
        Ok(Registration {
            username: account.username.clone(),
            email: account.email.clone(),
            password: self.with.passwords.hash(&account.password).await?,
            auth_token,
            request_id: account.request_id,
            request_ids_since: now.minus(REQUEST_ID_LIFETIME),
            mail,
            created_at: now,
            event: event.about(Some(auth_token)),
            gone: self.with.audit.event(AuditKind::UserDeleted, &account.origin).of(ABANDONED),
        })
    }
}

/// What a registration is that was refused: too many are another matter than one that cannot be.
const fn refusal_kind(error: &AccountError) -> AuditKind {
    match error {
        AccountError::TooManyAttempts { .. } => AuditKind::ExcessRateLimitExceeded,
        _ => AuditKind::UserCreateFail,
    }
}

fn replayed(replay: Replay) -> Result<User, AccountError> {
    match replay {
        Replay::Same(user) => Ok(user),
        Replay::Different => Err(AccountError::RequestIdReused),
    }
}
