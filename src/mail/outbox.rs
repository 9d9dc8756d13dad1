//! The worker that sends the mails of the outbox.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lettre::{Message, message::Mailbox};
use tokio::sync::{Notify, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    attempt::{Backoff, DeliveryOutcome, Next, after_attempt},
    daily::DailyLimits,
    error::MailError,
    message::compose,
    metrics::MailMetrics,
    templates::{MailValues, Templates},
    transport::Transport,
};
use crate::{
    database::DatabaseError,
    domain::{Email, MailToken, Timestamp, chain},
    env::Env,
    sealing::{Purpose, SealingKeys},
    store::{Admission, OutgoingMail, Store},
};

/// The most mails in delivery at the same time: more than one, so that a slow delivery does not delay the
/// others, and few, so that the SMTP server gets no burst.
const SENDING_MAX: usize = 4;

/// The most mails whose links one attempt has found expired.
const EXPIRED_MAX: usize = 10_000;

/// The wait before the result of an attempt is recorded again, after the database failed.
const RECORD_RETRY: Duration = Duration::from_secs(1);

/// The longest wait between two reads of the outbox while the database fails, unless the poll interval is
/// longer.
const STORE_RETRY_MAX: Duration = Duration::from_secs(30);

/// Settings of the outbox worker.
#[derive(Debug, Clone)]
pub struct OutboxOptions {
    /// The sender's display name.
    pub from_name: Option<String>,
    /// The sender's address.
    pub from: Email,
    /// The time limit of one attempt; a mail is leased for twice as long.
    pub timeout: Duration,
    /// The wait after the first failed attempt; it doubles after each further failure.
    pub retry_first: Duration,
    /// The longest wait between two attempts.
    pub retry_max: Duration,
    /// The interval at which the worker reads the outbox if nothing wakes it.
    pub poll_interval: Duration,
    /// The most mails within 24 hours.
    pub daily: DailyLimits,
    /// Counts and measures the attempts.
    pub metrics: MailMetrics,
}

/// Sends the mails of the outbox. Several instances may run on one database.
pub struct Outbox {
    store: Store,
    transport: Transport,
    templates: Templates,
    sealing_keys: Arc<SealingKeys>,
    from: Mailbox,
    options: OutboxOptions,
    env: Env,
    /// The ids of the mails whose links one attempt has found expired ([`Outbox::confirm_expiry`]).
    expired: Mutex<HashSet<i64>>,
}

impl Outbox {
    /// Creates a worker, which does nothing until [`Outbox::run`].
    ///
    /// # Errors
    /// [`MailError::Invalid`] if lettre rejects the sender's address.
    pub fn new(
        store: Store,
        transport: Transport,
        templates: Templates,
        sealing_keys: Arc<SealingKeys>,
        options: OutboxOptions,
        env: Env,
    ) -> Result<Self, MailError> {
        let address = options.from.as_str().parse().map_err(MailError::invalid)?;
        let from = Mailbox::new(options.from_name.clone(), address);
        Ok(Self { store, transport, templates, sealing_keys, from, options, env, expired: Mutex::default() })
    }

    /// Sends mails as they become due until `stop` is cancelled, then finishes the deliveries in progress.
    /// `mail_due` wakes the worker before its poll interval has passed.
    pub async fn run(self, mail_due: Arc<Notify>, stop: CancellationToken) {
        let poll_interval = self.options.poll_interval;
        let outbox = Arc::new(self);
        let (slots, sending) = (Arc::new(Semaphore::new(SENDING_MAX)), TaskTracker::new());
        let mut wait = poll_interval;
        while !stop.is_cancelled() {
            let slot = stop.run_until_cancelled(Arc::clone(&slots).acquire_owned()).await;
            let Some(Ok(slot)) = slot else { break };
            match outbox.claim().await {
                Ok(Some(mail)) => {
                    let (outbox, stop) = (Arc::clone(&outbox), stop.clone());
                    sending.spawn(async move {
                        outbox.attempt_and_record(&mail, &stop).await;
                        drop(slot);
                    });
                    // Another mail may be due, so the next one is claimed without a wait.
                    continue;
                }
                Ok(None) => wait = poll_interval,
                Err(error) => {
                    tracing::warn!(error = %error.chain(), "Reading the mail outbox failed; retrying");
                    wait = (wait * 2).min(STORE_RETRY_MAX.max(poll_interval));
                }
            }
            drop(slot);
            tokio::select! {
                () = stop.cancelled() => {}
                () = mail_due.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        sending.close();
        sending.wait().await;
    }

    /// Leases the next mail that is due, or one that is scheduled later than the longest backoff allows: a
    /// wrong clock set that time, or an instance with a greater `mail.retry-max`.
    async fn claim(&self) -> Result<Option<OutgoingMail>, DatabaseError> {
        let now = self.env.clock.now();
        let lease_until = now.plus(self.options.timeout * 2);
        if let Some(mail) = self.store.claim_due_mail(now, lease_until).await? {
            return Ok(Some(mail));
        }
        self.store.claim_misscheduled_mail(self.backoff().latest_due(now), lease_until).await
    }

    /// Returns the waits between attempts.
    const fn backoff(&self) -> Backoff {
        Backoff { first: self.options.retry_first, max: self.options.retry_max }
    }

    /// Attempts to deliver the mail, decides what follows, logs it and records it in the outbox.
    async fn attempt_and_record(&self, mail: &OutgoingMail, stop: &CancellationToken) {
        let began = self.env.clock.instant();
        let outcome = self.attempt(mail).await;
        let duration = self.env.clock.instant().duration_since(began);
        let was_attempted = !matches!(outcome, DeliveryOutcome::Postponed(_) | DeliveryOutcome::Expired);
        let (now, jitter) = (self.env.clock.now(), self.env.entropy.fraction());
        let decided = after_attempt(outcome, mail, self.backoff(), now, jitter);
        // The shortest wait, however many attempts were made: the clock should be right again by then.
        let expiry_check_at = now.plus(self.backoff().after(1, jitter));
        let next = self.confirm_expiry(mail, decided, expiry_check_at);
        log_result(mail, &next);
        if was_attempted {
            self.options.metrics.record(mail.kind, &next, duration);
        }
        self.record(mail, next, stop).await;
    }

    /// Returns what follows an attempt. A mail whose link is found expired is abandoned only if a second
    /// attempt, at `expiry_check_at`, finds the same: the clock may have been ahead for a moment.
    fn confirm_expiry(&self, mail: &OutgoingMail, next: Next, expiry_check_at: Timestamp) -> Next {
        let mut expired = self.expired.lock().unwrap_or_else(PoisonError::into_inner);
        // An id stays in the set if another instance finishes its mail. Without the set, a mail is only
        // attempted once more.
        if expired.len() >= EXPIRED_MAX {
            expired.clear();
        }
        // Only a first finding of an expired link leaves the id in the set.
        let is_first = expired.insert(mail.id);
        match next {
            Next::Expire(cause) if is_first => Next::RetryAt(expiry_check_at, cause),
            Next::Expire(cause) => {
                expired.remove(&mail.id);
                Next::MarkFailed(cause)
            }
            other => {
                expired.remove(&mail.id);
                other
            }
        }
    }

    /// Composes the mail and sends it, unless its link has expired.
    async fn attempt(&self, mail: &OutgoingMail) -> DeliveryOutcome {
        if mail.expires_at <= self.env.clock.now() {
            return DeliveryOutcome::Expired;
        }
        // A token that this instance cannot decrypt is a temporary failure: an instance with the right key
        // may send it.
        let purpose = Purpose::MailToken { message_id: &mail.message_id, recipient: mail.recipient.as_str() };
        let open = |sealed| self.sealing_keys.open(purpose, sealed).map(MailToken::from_random);
        let token = match mail.sealed_token.as_ref().map(open).transpose() {
            Ok(token) => token,
            Err(error) => return DeliveryOutcome::FailedForNow(error.to_string()),
        };
        let values = MailValues {
            username: mail.username.as_ref(),
            at: mail.created_at,
            token: token.as_ref(),
            expires_at: mail.expires_at,
        };
        let rendered = self.templates.render(mail.kind, &values);
        let composed = rendered
            .map_err(|error| chain(&error))
            .and_then(|rendered| compose(mail, &self.from, rendered).map_err(|error| chain(&error)));
        match composed {
            Ok(message) => self.send_within_limits(mail, &message).await,
            Err(cause) => DeliveryOutcome::Refused(cause),
        }
    }

    /// Sends a mail that the daily limits admit. A mail that is not sent does not count.
    async fn send_within_limits(&self, mail: &OutgoingMail, message: &Message) -> DeliveryOutcome {
        match self.options.daily.admit(&self.store, mail, self.env.clock.now()).await {
            Ok(Admission::Admitted) => {}
            Ok(Admission::Refused { until }) => return DeliveryOutcome::Postponed(until),
            Err(error) => return DeliveryOutcome::FailedForNow(error.chain()),
        }
        let outcome = self.transport.send(mail, message).await;
        if outcome != DeliveryOutcome::Sent
            && let Err(error) = DailyLimits::withdraw(&self.store, mail).await
        {
            tracing::warn!(error = %error.chain(), "A mail that was not sent stays counted");
        }
        outcome
    }

    /// Records the result of an attempt, and retries until that succeeds: a mail that was sent without a
    /// record would be sent again. The statement changes the row only while this instance holds the lease.
    /// Ends without a record when the service stops and its SQLite file is lost, which no retry brings back.
    async fn record(&self, mail: &OutgoingMail, next: Next, stop: &CancellationToken) {
        loop {
            let now = self.env.clock.now();
            let recorded = match next.clone() {
                Next::MarkSent => self.store.mark_mail_sent(mail, now).await,
                Next::RetryAt(at, cause) => self.store.retry_mail(mail, at, cause).await,
                Next::MarkFailed(cause) | Next::Expire(cause) => {
                    self.store.mark_mail_failed(mail, now, cause).await
                }
            };
            match recorded {
                Ok(true) => return,
                Ok(false) => {
                    let message_id = &mail.message_id;
                    return tracing::info!(
                        message_id,
                        "Mail lease lost: a newer mail replaced it, or another instance claimed it"
                    );
                }
                Err(error) if stop.is_cancelled() && self.store.is_file_lost() => {
                    return tracing::warn!(
                        message_id = mail.message_id,
                        error = %error.chain(),
                        "The result of a mail delivery is not recorded: with this database, the next start sends the mail again"
                    );
                }
                Err(error) => {
                    tracing::warn!(error = %error.chain(), "Recording the result of a mail delivery failed; retrying");
                    tokio::time::sleep(RECORD_RETRY).await;
                }
            }
        }
    }
}

/// Logs the result of an attempt.
fn log_result(mail: &OutgoingMail, next: &Next) {
    let (message_id, kind, attempts) = (&mail.message_id, mail.kind.as_str(), mail.attempts);
    match next {
        Next::MarkSent => tracing::info!(message_id, kind, attempts, "Mail sent"),
        Next::RetryAt(at, cause) => {
            tracing::warn!(message_id, kind, attempts, cause, next_attempt_at = %at, "Mail delivery failed; retrying");
        }
        Next::MarkFailed(cause) | Next::Expire(cause) => {
            tracing::error!(message_id, kind, attempts, cause, "Mail delivery failed permanently");
        }
    }
}
