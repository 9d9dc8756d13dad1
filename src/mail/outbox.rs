//! The worker that empties the outbox.

use std::{sync::Arc, time::Duration};

use lettre::message::Mailbox;
use tokio::sync::{Notify, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    attempt::{Backoff, Next, Outcome, after_attempt},
    message::compose,
    templates::{MailValues, Templates},
    transport::{MailError, Transport},
};
use crate::{
    clock::Clock,
    domain::{Email, MailToken},
    entropy::Entropy,
    sealing::{Purpose, SealingKey},
    store::{OutgoingMail, Store, StoreError, chain},
};

/// How many mails are sent at once: enough that one slow server does not hold up the rest, and no burst for it.
const SENDING_MAX: usize = 4;

/// Between two tries to note what came of an attempt, while the database is away.
const NOTE_RETRY: Duration = Duration::from_secs(1);

/// The longest wait between two looks at a database that does not answer.
const STORE_RETRY_MAX: Duration = Duration::from_secs(30);

/// How mails are sent.
#[derive(Debug, Clone)]
pub struct OutboxOptions {
    /// The name that mail programs show for the sender.
    pub from_name: Option<String>,
    /// The sender's address.
    pub from: Email,
    /// How long one attempt may take; a mail is leased for twice as long.
    pub timeout: Duration,
    /// The wait after the first failed attempt; doubles each time.
    pub retry_first: Duration,
    /// The longest wait between two attempts.
    pub retry_max: Duration,
    /// How often the outbox is looked into without being woken.
    pub poll_interval: Duration,
}

/// Sends what the outbox holds. Several instances may run on one database.
pub struct Outbox {
    store: Store,
    transport: Transport,
    templates: Templates,
    sealing_key: Arc<SealingKey>,
    from: Mailbox,
    options: OutboxOptions,
    clock: Clock,
    entropy: Entropy,
}

impl Outbox {
    /// A worker; it does nothing until [`Outbox::run`].
    ///
    /// # Errors
    /// [`MailError::Unfit`] when the sender's address is not one that mail allows.
    pub fn new(
        store: Store,
        (transport, templates): (Transport, Templates),
        sealing_key: Arc<SealingKey>,
        options: OutboxOptions,
        (clock, entropy): (Clock, Entropy),
    ) -> Result<Self, MailError> {
        let address = options.from.as_str().parse().map_err(MailError::unfit)?;
        let from = Mailbox::new(options.from_name.clone(), address);
        Ok(Self { store, transport, templates, sealing_key, from, options, clock, entropy })
    }

    /// Sends mails as they come due until `stop`, then finishes those that are on their way. `mail_due` wakes it at once.
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
                    let outbox = Arc::clone(&outbox);
                    sending.spawn(async move {
                        outbox.send(&mail).await;
                        drop(slot);
                    });
                    continue;
                }
                Ok(None) => wait = poll_interval,
                Err(error) => {
                    tracing::warn!(error = %error.chain(), "The outbox cannot be read");
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

    async fn claim(&self) -> Result<Option<OutgoingMail>, StoreError> {
        let now = self.clock.now();
        self.store.claim_due_mail(now, now.plus(self.options.timeout * 2)).await
    }

    async fn send(&self, mail: &OutgoingMail) {
        let outcome = self.attempt(mail).await;
        let backoff = Backoff { first: self.options.retry_first, max: self.options.retry_max };
        let next = after_attempt(outcome, mail, backoff, self.clock.now(), self.entropy.fraction());
        log(mail, &next);
        self.note(mail, next).await;
    }

    async fn attempt(&self, mail: &OutgoingMail) -> Outcome {
        if mail.expires_at <= self.clock.now() {
            return Outcome::Refused("its link expired before it could be sent".to_owned());
        }
        // An instance with another key must not give up what one with the right key can send.
        let open = |sealed| self.sealing_key.open(Purpose::MailToken, sealed).map(MailToken::from_random);
        let token = match mail.sealed_token.as_ref().map(open).transpose() {
            Ok(token) => token,
            Err(error) => return Outcome::Failed(error.to_string()),
        };
        let values = MailValues {
            username: &mail.username,
            at: mail.created_at,
            token: token.as_ref(),
            expires_at: mail.expires_at,
        };
        let words = self.templates.render(mail.kind, &values);
        let composed = words
            .map_err(|error| chain(&error))
            .and_then(|words| compose(mail, &self.from, words).map_err(|error| chain(&error)));
        match composed {
            Ok(message) => self.transport.send(mail, &message).await,
            Err(cause) => Outcome::Refused(cause),
        }
    }

    /// Goes on until it is noted: a mail that was sent and not noted would be sent again. The lease is the fence.
    async fn note(&self, mail: &OutgoingMail, next: Next) {
        loop {
            let now = self.clock.now();
            let noted = match next.clone() {
                Next::MarkSent => self.store.mark_mail_sent(mail, now).await,
                Next::RetryAt(at, cause) => self.store.retry_mail(mail, at, cause).await,
                Next::GiveUp(cause) => self.store.give_up_mail(mail, now, cause).await,
            };
            match noted {
                Ok(true) => return,
                Ok(false) => {
                    let message_id = &mail.message_id;
                    return tracing::info!(
                        message_id,
                        "A mail was replaced by a newer one, or left to another instance"
                    );
                }
                Err(error) => {
                    tracing::warn!(error = %error.chain(), "What came of a mail cannot be noted yet");
                    tokio::time::sleep(NOTE_RETRY).await;
                }
            }
        }
    }
}

fn log(mail: &OutgoingMail, next: &Next) {
    let (message_id, kind, attempts) = (&mail.message_id, mail.kind.as_str(), mail.attempts);
    match next {
        Next::MarkSent => tracing::info!(message_id, kind, attempts, "Mail sent"),
        Next::RetryAt(at, cause) => {
            tracing::warn!(message_id, kind, attempts, cause, next_attempt_at = %at, "Mail not sent; it will be tried again");
        }
        Next::GiveUp(cause) => tracing::error!(message_id, kind, attempts, cause, "Mail given up"),
    }
}
