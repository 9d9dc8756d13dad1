//! Password attempts. Each is reserved before its password is compared, and settled by its outcome.
//!
//! A reservation counts like a failure until it is settled, so a thousand concurrent attempts, even on
//! several instances, compare no more passwords than the limits allow. A wrong password becomes a failure. A
//! correct one clears the failures of its account that were counted in the same way: at unknown addresses, at
//! known ones, or of the acting user. An attempt whose password was not compared counts nothing:
//! its caller had gone, a queue was full, or the database was unavailable. While the database is unavailable,
//! an outcome waits in memory. The reservation of an instance that has died expires.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, sync::OwnedSemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::{
    AccountError, Accounts,
    attempt_limits::{AttemptedAccount, Limits, RESERVED_MAX, latest_expiry},
    throttle::{Rule, require_admission},
};
use crate::{
    database::DatabaseError,
    domain::{AuditEvent, AuditKind, ClientAddress, Origin, Password, PasswordHash, Timestamp, User},
    password::{QueueSlot, Verdict},
    store::{
        AttemptOutcome, Attempts, CorrectPassword, LoginAddress, Reservation, SETTLEMENT_MAX, Settlement,
        Store, Subject, Tally,
    },
};

/// Time after the reservation in which the comparison must begin. The rest of [`RESERVED_MAX`] is enough for
/// the slowest hash and for the settlement, so no password is compared without a live reservation.
const COMPARISON_DELAY_MAX: Duration = Duration::from_secs(30);

/// Pause before the second try to settle an attempt. It doubles with each further try.
const SETTLEMENT_RETRY_FIRST: Duration = Duration::from_secs(1);

/// The longest pause between two tries.
const SETTLEMENT_RETRY_MAX: Duration = Duration::from_secs(30);

/// Retry delay for a caller when too many attempts wait to be settled.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A reserved attempt. If it is dropped before it is settled, it is settled in the background.
pub(super) struct PasswordAttempt {
    accounts: Accounts,
    settlement: Settlement,
    /// The limits on the subjects of the settlement, in the same order.
    rules: Vec<Rule>,
    client: Option<ClientAddress>,
    is_from_known_address: bool,
    /// Cancelled when the caller no longer waits.
    caller_gone: CancellationToken,
    /// The latest time at which the comparison may begin.
    compare_until: Instant,
    /// True when the outcome is stored.
    is_settled: bool,
    /// Bounds the number of attempts in memory, also of those that wait to be settled.
    permit: Option<OwnedSemaphorePermit>,
}

impl Accounts {
    /// Reserves an attempt at the password of this account, for a caller that waits until `caller_gone` is
    /// cancelled.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`], whether or not the account exists; [`AccountError::Overloaded`] or
    /// a database error. Nothing was counted, except that after a database error the reservation may have
    /// been written: it expires.
    pub(super) async fn reserve_attempt(
        &self,
        account: AttemptedAccount<'_>,
        origin: &Origin,
        caller_gone: CancellationToken,
    ) -> Result<PasswordAttempt, AccountError> {
        let reserved = self.reserve_within_limits(account, origin.client, caller_gone).await;
        let event = || self.deps.audit.event(AuditKind::AuthnLoginFailMax, origin);
        reserved.map_err(|error| self.deps.audit.queue_error_about(event(), account.email(), error))
    }

    /// Does what [`Accounts::reserve_attempt`] does, without an audit event.
    async fn reserve_within_limits(
        &self,
        account: AttemptedAccount<'_>,
        client: Option<ClientAddress>,
        caller_gone: CancellationToken,
    ) -> Result<PasswordAttempt, AccountError> {
        let permit = Arc::clone(&self.attempt_slots).try_acquire_owned();
        let permit = permit.map_err(|_| AccountError::Overloaded { retry_after: RETRY_AFTER })?;
        let clock = &self.deps.env.clock;
        let (now, compare_until) = (clock.now(), clock.instant() + COMPARISON_DELAY_MAX);
        let Limits { counted, cleared, is_from_known_address } =
            self.limits_on_attempt(account, client, now).await?;
        let subjects: Vec<_> = counted.iter().map(|counted| counted.subject).collect();
        let rules = counted.iter().map(|counted| counted.rule).collect();

        let reservation = self.reservation(subjects.clone(), now);
        // The outcome of an attempt that is dropped before its password is compared.
        let outcome = AttemptOutcome::NotCompared;
        let settlement = Settlement { id: reservation.id, subjects, cleared, outcome };
        let admit = move |tallies: &[Tally]| {
            let mut limited = counted.iter().zip(tallies).filter(|(counted, _)| counted.is_limited);
            limited.try_for_each(|(counted, tally)| counted.rule.admit(*tally, now))
        };
        require_admission(self.deps.store.reserve_attempt(reservation, admit).await?, now)?;

        Ok(PasswordAttempt {
            accounts: self.clone(),
            settlement,
            rules,
            client,
            is_from_known_address,
            caller_gone,
            compare_until,
            is_settled: false,
            permit: Some(permit),
        })
    }

    fn reservation(&self, subjects: Vec<Subject>, now: Timestamp) -> Reservation {
        let id = uuid::Builder::from_random_bytes(self.deps.env.entropy.identifier()).into_uuid();
        let (expires_at, latest_expiry) = (now.plus(RESERVED_MAX), latest_expiry(now));
        Reservation { id, subjects, at: now, expires_at, latest_expiry }
    }
}

impl PasswordAttempt {
    /// True if the attempt came from a client address that was not admitted as a known one.
    pub(super) const fn is_from_new_address(&self) -> bool {
        self.client.is_some() && !self.is_from_known_address
    }

    /// Compares the password with the stored hash; `None` means that the user does not exist. A wrong
    /// password is settled before this returns, so that it is counted before the client knows the result. A
    /// correct one is settled by the caller.
    ///
    /// # Errors
    /// [`AccountError::Overloaded`] if no thread was free in time, or if the caller had gone before one was
    /// free; [`AccountError::Internal`] if the comparison failed. The attempt counts nothing.
    pub(super) async fn compare(
        &mut self,
        slot: QueueSlot,
        password: &Password,
        hash: Option<PasswordHash>,
    ) -> Result<Verdict, AccountError> {
        let (clock, caller_gone) = (self.accounts.deps.env.clock.clone(), self.caller_gone.clone());
        let compare_until = self.compare_until;
        let is_due = move || !caller_gone.is_cancelled() && clock.instant() < compare_until;
        let passwords = self.accounts.deps.passwords.clone();
        let compared = passwords.verify_if(slot, password, hash, is_due).await;
        self.settlement.outcome = match &compared {
            Ok(Verdict::Correct { .. }) => AttemptOutcome::Correct,
            Ok(Verdict::Wrong) => AttemptOutcome::Wrong { at: self.accounts.deps.env.clock.now() },
            Err(_) => AttemptOutcome::NotCompared,
        };
        if self.settlement.outcome != AttemptOutcome::Correct {
            self.settle().await;
        }
        Ok(compared?)
    }

    /// Settles the attempt by its outcome. If the database is unavailable, it is settled later.
    pub(super) async fn settle(&mut self) {
        let store = &self.accounts.deps.store;
        match settle(store, self.settlement.clone(), self.rules.clone()).await {
            Ok(()) => self.is_settled = true,
            Err(error) => {
                tracing::warn!(error = %error.chain(), "Password attempt not settled; retrying");
            }
        }
    }

    /// Returns the changes that the correct password makes, to be written with the session that it begins:
    /// only a session makes an address known. The event records the login.
    pub(super) fn correct_password(&self, user: &User, event: AuditEvent) -> CorrectPassword {
        let accounts = &self.accounts;
        let until = accounts.deps.env.clock.now().plus(accounts.options.throttle.known_address_lifetime);
        CorrectPassword {
            attempt: self.settlement.id,
            cleared: self.settlement.cleared.clone(),
            known_address: self.client.map(|client| (LoginAddress::new(user, client), until)),
            event,
        }
    }

    /// Records that [`PasswordAttempt::correct_password`] was written.
    pub(super) fn mark_settled(&mut self) {
        self.is_settled = true;
    }
}

impl Drop for PasswordAttempt {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        // Without a runtime the process is about to exit, and the reservation expires.
        let Ok(runtime) = Handle::try_current() else { return };
        let (settlement, rules) = (self.settlement.clone(), self.rules.clone());
        let (accounts, permit) = (self.accounts.clone(), self.permit.take());
        let work = async move {
            accounts.settle_until_done(settlement, rules).await;
            drop(permit);
        };
        self.accounts.background.spawn_on(work, &runtime);
    }
}

impl Accounts {
    /// Settles an attempt. Retries after any database error, until the service stops or [`SETTLEMENT_MAX`]
    /// has passed: after that time, a purge may have deleted the row of the attempt.
    async fn settle_until_done(&self, settlement: Settlement, rules: Vec<Rule>) {
        let clock = &self.deps.env.clock;
        let (began, mut pause) = (clock.instant(), SETTLEMENT_RETRY_FIRST);
        while let Err(error) = settle(&self.deps.store, settlement.clone(), rules.clone()).await {
            if self.stopping.is_cancelled() || clock.instant().duration_since(began) > SETTLEMENT_MAX {
                return tracing::warn!(error = %error.chain(), "Password attempt not settled");
            }
            // When the service stops, the wait ends and the loop tries once more.
            self.stopping.run_until_cancelled(tokio::time::sleep(pause)).await;
            pause = pause.saturating_mul(2).min(SETTLEMENT_RETRY_MAX);
        }
    }
}

/// Settles an attempt by its outcome. A failure is counted by `rules`, one for each subject.
async fn settle(store: &Store, settlement: Settlement, rules: Vec<Rule>) -> Result<(), DatabaseError> {
    let count_failure = move |failures: &[Option<Attempts>], at| {
        rules.iter().zip(failures).map(|(rule, failures)| rule.count_failure(*failures, at)).collect()
    };
    store.settle_attempt(settlement, count_failure).await
}
