//! Hashes and verifies passwords on a bounded thread pool.
//!
//! Password hashing is slow by design, so it has its own threads and a bounded queue. This module handles
//! encoded hashes and the policy for new passwords ([`Policy`]), but not users, rows or requests. Start at
//! [`Passwords::verify`].

mod django;
mod envelope;
mod format;
mod policy;
mod pool;
mod refusal_time;

use std::{
    fmt, io,
    sync::Arc,
    time::{Duration, Instant},
};

pub use self::{
    django::StoredPassword,
    envelope::HashSurvey,
    policy::Policy,
    pool::{HashingError, QueueSlot},
};
use self::{
    envelope::{Envelope, Measured},
    format::{COST_MAX, COST_MIN, HashParseError, StoredHash, Work},
    pool::Pool,
};
use crate::{
    clock::Clock,
    domain::{Email, NewPassword, Password, PasswordHash, PasswordRefusal, Username},
    env::Env,
    metrics::Registry,
};

/// The time of one hash of cost 12, as measured on one machine. Each step of the cost doubles it.
const MILLIS_AT_COST_12: u64 = 235;
/// The longest `retry_after`; a caller would not wait longer.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);

/// The cost of a hash and the limits of the thread pool.
#[derive(Clone, Copy, Debug)]
pub struct PasswordOptions {
    /// The cost of new hashes, 4 to 15: the binary logarithm of bcrypt's rounds. Costs below 10 are for
    /// tests.
    pub cost: u32,
    /// The number of hashing threads; 0 means one per core.
    pub threads: usize,
    /// The most passwords that wait for a thread before callers are rejected; at least 1.
    pub queue_length: usize,
    /// The longest time that a refused check is made to take ([`Passwords::verify`]).
    pub refusal_time_max: Duration,
}

/// The result of a password check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The password is wrong, or the user has none or does not exist. The client must not learn which.
    Wrong,
    /// The password is correct.
    Correct {
        /// True if the hash has another scheme than new hashes, or a lower cost than the setting:
        /// [`Passwords::rehash`] should replace it.
        needs_rewrite: bool,
    },
}

/// Hashes and checks passwords on its own threads. Cheap to clone; the threads exit when the last clone is
/// dropped.
///
/// If a caller drops its future before a thread starts the job, the job is skipped: a call that exceeds its
/// deadline costs no hash. A job that has started is finished.
#[derive(Clone)]
pub struct Passwords {
    shared: Arc<Shared>,
}

struct Shared {
    pool: Pool,
    cost: u32,
    env: Env,
    envelope: Envelope,
    /// The hash that is checked if the user does not exist or the stored value cannot be parsed: random bits,
    /// at the current cost.
    dummy_hash: PasswordHash,
}

/// Why a new password was not admitted.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// The password breaks a rule of the policy.
    #[error(transparent)]
    Refused(#[from] PasswordRefusal),
    /// The password could not be judged.
    #[error(transparent)]
    Hashing(#[from] HashingError),
}

impl Passwords {
    /// Starts the threads `hash-0`, `hash-1` and so on, at a low priority, so that look-ups take
    /// precedence.
    ///
    /// # Errors
    /// If the cost is out of bounds or a thread cannot be started.
    pub fn start(options: PasswordOptions, env: Env) -> io::Result<Self> {
        if !(COST_MIN..=COST_MAX).contains(&options.cost) {
            let rule = format!("the cost of a password hash must be {COST_MIN} to {COST_MAX}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, rule));
        }

        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let queue_length = options.queue_length.max(1);
        let retry_after = time_to_drain(options.cost, threads, queue_length);
        let pool = Pool::start(threads, queue_length, retry_after, env.clock.clone())?;
        let dummy_hash = format::dummy_hash(options.cost, &env.entropy);
        let envelope = Envelope::new(options.refusal_time_max, Work::of_bcrypt(options.cost));

        Ok(Self { shared: Arc::new(Shared { pool, cost: options.cost, env, envelope, dummy_hash }) })
    }

    /// Adds the metrics of hashing to a registry.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.shared.pool.register_metrics(registry);
    }

    /// Hashes a new password as `bcrypt_sha256$$2b$<cost>$...` (74 characters), a format that Django can
    /// verify.
    ///
    /// Occupies one thread for the time that the cost requires (235 ms at cost 12).
    ///
    /// # Errors
    /// [`HashingError`]. If the queue is full, nothing is computed.
    pub async fn hash(&self, password: &NewPassword) -> Result<PasswordHash, HashingError> {
        self.hash_text(password.expose().to_owned()).await
    }

    /// Hashes a new password as [`Passwords::hash`] does, but only if `is_due` returns true when a thread is
    /// free.
    ///
    /// # Errors
    /// [`HashingError`]; [`HashingError::NotDue`] if nothing was computed.
    pub async fn hash_if(
        &self,
        password: &NewPassword,
        is_due: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<PasswordHash, HashingError> {
        let (text, cost, salt) =
            (password.expose().to_owned(), self.shared.cost, self.shared.env.entropy.bytes());
        let work = move || is_due().then(|| format::hash(&text, cost, salt));
        self.require_due(self.shared.pool.run(work).await?)
    }

    /// Hashes an existing password, without the policy for new passwords: one that was just verified and
    /// whose hash needs a rewrite, or one that was stored in plaintext elsewhere.
    ///
    /// # Errors
    /// [`HashingError`]. If the queue is full, nothing is computed.
    pub async fn rehash(&self, password: &Password) -> Result<PasswordHash, HashingError> {
        self.hash_text(password.expose().to_owned()).await
    }

    /// Reserves a slot in the queue before the caller reads the stored hash.
    ///
    /// # Errors
    /// [`HashingError::QueueFull`].
    pub fn reserve(&self) -> Result<QueueSlot, HashingError> {
        self.shared.pool.reserve()
    }

    /// Checks `password` against `stored`; `None` means that the user does not exist.
    ///
    /// The check takes the work of one hash at the current cost in each of these cases: an unknown user, a
    /// user without a usable password, a hash that cannot be parsed, and a wrong password for a bcrypt or MD5
    /// hash, also one of a lower cost. A bcrypt hash of a higher cost takes the work of that cost, and a hash
    /// of another scheme the work that its own parameters require. While hashes of these last two kinds are
    /// stored ([`Passwords::apply`]), each refused check takes the time of the slowest stored hash, up to
    /// `refusal_time_max`: the rest of the time is a wait, which occupies no thread and no slot.
    ///
    /// A stored value that is malformed, has an unknown scheme or exceeds a cap is logged in each call,
    /// without the value.
    ///
    /// # Errors
    /// [`HashingError`], except [`HashingError::QueueFull`], since the job uses `slot`.
    pub async fn verify(
        &self,
        slot: QueueSlot,
        password: &Password,
        stored: Option<PasswordHash>,
    ) -> Result<Verdict, HashingError> {
        self.verify_if(slot, password, stored, || true).await
    }

    /// Checks `password` as [`Passwords::verify`] does, but only if `is_due` returns true when a thread is
    /// free. Once the comparison has begun, it is finished, and this future must be polled to its end to
    /// learn the result.
    ///
    /// # Errors
    /// [`HashingError`], except [`HashingError::QueueFull`]; [`HashingError::NotDue`] if nothing was
    /// compared.
    pub async fn verify_if(
        &self,
        slot: QueueSlot,
        password: &Password,
        stored: Option<PasswordHash>,
        is_due: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<Verdict, HashingError> {
        let text = password.expose().to_owned();
        let cost = self.shared.cost;
        let user_exists = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.shared.dummy_hash.clone());
        let (hash, is_readable) = self.parse_or_dummy(&stored);
        let (work, clock) = (hash.work(cost), self.shared.env.clock.clone());

        let can_be_right = user_exists && is_readable;
        let compare = move || {
            let began = clock.instant();
            let verdict = check(&text, &hash, can_be_right, cost);
            (verdict, began, since(&clock, began))
        };
        let compared = self.shared.pool.run_in(slot, move || is_due().then(compare)).await?;
        let (verdict, began, time) = self.require_due(compared)?;
        if verdict == Verdict::Wrong {
            self.shared.envelope.observe(Measured { work, time });
            self.wait_until_slowest(began).await;
        }
        Ok(verdict)
    }

    /// Runs [`Policy::judge`] on the hashing threads, so that a password that is crafted to be slow to judge
    /// does not delay look-ups.
    ///
    /// # Errors
    /// [`AdmitError::Refused`] if the password breaks a rule; [`AdmitError::Hashing`] if it could not be
    /// judged.
    pub async fn judge(
        &self,
        policy: Policy,
        password: NewPassword,
        username: Username,
        email: Email,
    ) -> Result<(), AdmitError> {
        let work = move || policy.judge(&password, Some(&username), Some(&email));
        Ok(self.shared.pool.run(work).await??)
    }

    /// Returns the result of a job. `None` means that the job computed nothing, because `is_due` returned
    /// false.
    fn require_due<T>(&self, result: Option<T>) -> Result<T, HashingError> {
        result.ok_or_else(|| HashingError::NotDue { retry_after: self.shared.pool.retry_after() })
    }

    /// Hashes a text in the current scheme and cost, with a new salt.
    async fn hash_text(&self, text: String) -> Result<PasswordHash, HashingError> {
        let cost = self.shared.cost;
        let salt = self.shared.env.entropy.bytes();
        self.shared.pool.run(move || format::hash(&text, cost, salt)).await
    }

    /// Returns the hash to check against, and whether `stored` could be parsed. The dummy hash replaces a
    /// stored value that cannot be parsed.
    fn parse_or_dummy(&self, stored: &PasswordHash) -> (StoredHash, bool) {
        match StoredHash::parse(stored.expose()) {
            Ok(hash) => return (hash, true),
            Err(HashParseError::Unusable) => {}
            Err(reason) => {
                tracing::warn!(%reason, "Stored password cannot be verified; its user cannot log in");
            }
        }
        (self.dummy_hash(), false)
    }

    fn dummy_hash(&self) -> StoredHash {
        let dummy_hash = StoredHash::parse(self.shared.dummy_hash.expose());
        dummy_hash.expect("the dummy hash has the format of new hashes")
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").field("cost", &self.shared.cost).finish_non_exhaustive()
    }
}

/// Returns the time since `began`.
fn since(clock: &Clock, began: Instant) -> Duration {
    clock.instant().duration_since(began)
}

/// Checks a password. `can_be_right` is false for the dummy hash, whose match is never a success.
fn check(password: &str, hash: &StoredHash, can_be_right: bool, cost: u32) -> Verdict {
    tracing::debug!("Password check started");
    let matches = hash.matches(password);
    if !matches {
        hash.compute_and_discard_difference(password, cost);
    }

    // Evaluated after the work, so that the time does not reveal whether the user exists.
    if matches && can_be_right {
        Verdict::Correct { needs_rewrite: hash.needs_rewrite(cost) }
    } else {
        Verdict::Wrong
    }
}

/// Returns the time in which a full queue empties, from one second to `RETRY_AFTER_MAX`.
fn time_to_drain(cost: u32, threads: usize, queue_length: usize) -> Duration {
    let millis = (MILLIS_AT_COST_12 << cost) >> 12;
    let rounds = u64::try_from(queue_length.div_ceil(threads)).unwrap_or(u64::MAX);
    Duration::from_millis(millis.saturating_mul(rounds)).clamp(Duration::from_secs(1), RETRY_AFTER_MAX)
}

#[cfg(test)]
mod tests;
