//! Password attempts. Each is reserved before its password is compared, and settled by its outcome.
//!
//! A reservation counts like a failure until it is settled, so a thousand concurrent attempts, even on
//! several instances, compare no more passwords than the limits allow. A wrong password becomes a failure. A
//! correct one clears the failures of its account. An attempt whose password was not compared counts nothing:
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
    throttle::{Rule, require_admission},
};
use crate::{
    database::DatabaseError,
    domain::{AuditEvent, AuditKind, ClientAddress, Email, Origin, Password, PasswordHash, Timestamp, User},
    password::{QueueSlot, Verdict},
    store::{
        AttemptOutcome, Attempts, CLOCK_DIFFERENCE_MAX, CorrectPassword, LoginAddress, Reservation,
        SETTLEMENT_MAX, Settlement, Store, Subject, Tally,
    },
};

/// Time after which a reservation expires that was not settled, because its instance has died.
const RESERVED_MAX: Duration = Duration::from_mins(1);

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
    compare_until: Instant,
    is_settled: bool,
    /// Bounds the number of attempts in memory, also of those that wait to be settled.
    permit: Option<OwnedSemaphorePermit>,
}

/// The limits on an attempt.
struct Limits {
    /// The subjects that the attempt counts for.
    subjects: Vec<Subject>,
    /// The limit on each subject, in the same order.
    rules: Vec<Rule>,
    /// The subjects of the account alone, whose failures a correct password clears.
    cleared: Vec<Subject>,
}

impl Accounts {
    /// Reserves an attempt at the password of this account, for a caller that waits until `caller_gone` is
    /// cancelled.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`], whether or not the account exists; [`AccountError::Overloaded`] or
    /// a database error. Nothing was counted.
    pub(super) async fn reserve_attempt(
        &self,
        email: &Email,
        origin: &Origin,
        caller_gone: CancellationToken,
    ) -> Result<PasswordAttempt, AccountError> {
        let reserved = self.reserve_within_limits(email, origin.client, caller_gone).await;
        let event = || self.deps.audit.event(AuditKind::AuthnLoginFailMax, origin);
        reserved.map_err(|error| self.deps.audit.record_refusal_about(event(), email, error))
    }

    /// Does what [`Accounts::reserve_attempt`] does, without an audit event.
    async fn reserve_within_limits(
        &self,
        email: &Email,
        client: Option<ClientAddress>,
        caller_gone: CancellationToken,
    ) -> Result<PasswordAttempt, AccountError> {
        let permit = Arc::clone(&self.attempt_slots).try_acquire_owned();
        let permit = permit.map_err(|_| AccountError::Overloaded { retry_after: RETRY_AFTER })?;
        let clock = &self.deps.env.clock;
        let (now, compare_until) = (clock.now(), clock.instant() + COMPARISON_DELAY_MAX);
        let known = self.usable_known_address(email, client, now).await?;
        let Limits { subjects, rules, cleared } = self.limits(email, client, known.as_ref());

        let reservation = self.reservation(subjects.clone(), now);
        // The outcome of an attempt that is dropped before its password is compared.
        let outcome = AttemptOutcome::NotCompared;
        let settlement = Settlement { id: reservation.id, subjects, cleared, outcome };
        let admission_rules = rules.clone();
        let admit = move |tallies: &[Tally]| {
            admission_rules.iter().zip(tallies).try_for_each(|(rule, tally)| rule.admit(*tally, now))
        };
        require_admission(self.deps.store.reserve_attempt(reservation, admit).await?, now)?;

        Ok(PasswordAttempt {
            accounts: self.clone(),
            settlement,
            rules,
            client,
            is_from_known_address: known.is_some(),
            caller_gone,
            compare_until,
            is_settled: false,
            permit: Some(permit),
        })
    }

    /// Returns the client address if it is known to the account, and the account's known addresses together
    /// have not used up their common limit. Beyond that limit they count like any other address.
    async fn usable_known_address(
        &self,
        email: &Email,
        client: Option<ClientAddress>,
        now: Timestamp,
    ) -> Result<Option<LoginAddress>, AccountError> {
        let Some(client) = client else { return Ok(None) };
        let Some(known) = self.deps.store.find_known_address(email, client, now).await? else {
            return Ok(None);
        };
        let common = Subject::account_password_at_known_addresses(known.auth_token());
        let tallies = self.deps.store.tallies(vec![common], now, latest_expiry(now)).await?;
        let rule = Rule::at_all_known_addresses(self.options.throttle);
        let is_usable = tallies.iter().all(|tally| rule.admit(*tally, now).is_ok());
        Ok(is_usable.then_some(known))
    }

    /// Returns the limits on an attempt. An attempt from a known address has its own limits, so neither wrong
    /// passwords from other addresses nor the limit over all accounts block the owner there.
    fn limits(&self, email: &Email, client: Option<ClientAddress>, known: Option<&LoginAddress>) -> Limits {
        let options = self.options.throttle;
        let of_account = match known {
            Some(known) => vec![
                (Subject::account_password_at_address(known), Rule::ConsecutiveFailures(options)),
                (
                    Subject::account_password_at_known_addresses(known.auth_token()),
                    Rule::at_all_known_addresses(options),
                ),
            ],
            None => vec![(Subject::account_password(email), Rule::ConsecutiveFailures(options))],
        };
        let of_address = client.map(|client| {
            let rule = Rule::PerAddress(options.failures_per_address, options.in_progress_per_address_max);
            (Subject::address_passwords(client), rule)
        });
        let total = (Subject::all_passwords(), Rule::PerWindow(options.total));
        // The total last, because all logins share its row: each login locks it for the shortest time.
        let of_all = known.is_none().then_some(total);

        let cleared = of_account.iter().map(|(subject, _)| *subject).collect();
        let (subjects, rules) = of_account.into_iter().chain(of_address).chain(of_all).unzip();
        Limits { subjects, rules, cleared }
    }

    fn reservation(&self, subjects: Vec<Subject>, now: Timestamp) -> Reservation {
        let id = uuid::Builder::from_random_bytes(self.deps.env.entropy.identifier()).into_uuid();
        let (expires_at, latest_expiry) = (now.plus(RESERVED_MAX), latest_expiry(now));
        Reservation { id, subjects, at: now, expires_at, latest_expiry }
    }
}

/// Returns the latest time at which a reservation may expire that was made until `now`. One that expires
/// later was made under a wrong clock.
fn latest_expiry(now: Timestamp) -> Timestamp {
    now.plus(RESERVED_MAX).plus(CLOCK_DIFFERENCE_MAX)
}

impl PasswordAttempt {
    /// True if the attempt came from a client address that is not known for the account.
    pub(super) const fn is_from_new_address(&self) -> bool {
        self.client.is_some() && !self.is_from_known_address
    }

    /// Compares the password with the stored hash; `None` means that the user does not exist. A wrong
    /// password is settled before this returns, so that it is counted before the client knows the result. A
    /// correct one is settled by the caller.
    ///
    /// # Errors
    /// [`AccountError::Overloaded`] if the comparison could not begin in time, or
    /// [`AccountError::Internal`]. Nothing was compared, and the attempt counts nothing.
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
    /// Settles an attempt, and retries while the database is unavailable: until the service stops, or the
    /// attempt can no longer be settled.
    async fn settle_until_done(&self, settlement: Settlement, rules: Vec<Rule>) {
        let clock = &self.deps.env.clock;
        let (began, mut pause) = (clock.instant(), SETTLEMENT_RETRY_FIRST);
        while let Err(error) = settle(&self.deps.store, settlement.clone(), rules.clone()).await {
            if self.stopping.is_cancelled() || clock.instant().duration_since(began) > SETTLEMENT_MAX {
                return tracing::warn!(error = %error.chain(), "Password attempt not settled");
            }
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
