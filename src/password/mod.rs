//! Password hashing, bounded.
//!
//! Hashing is the only slow thing this service does on purpose, so it has threads of its own and a queue that ends. This
//! module knows encoded hashes and what makes a password guessable; it does not know users, rows or requests. Start at
//! [`Passwords::verify`]; what a new password must be is [`Policy`].

mod django;
mod format;
mod policy;
mod pool;

use std::{fmt, io, sync::Arc, time::Duration};

pub use self::{
    django::StoredPassword,
    policy::Policy,
    pool::{HashingError, Place},
};
use self::{
    format::{COST_MAX, COST_MIN, StoredHash, Unreadable},
    pool::Pool,
};
use crate::{
    domain::{Email, NewPassword, Password, PasswordHash, PasswordRefusal, Username},
    entropy::Entropy,
};

/// What one hash of cost 12 takes on the machine that this was measured on; each step of cost doubles it.
const MILLIS_AT_COST_12: u64 = 235;
/// A caller who is told to come back later than this has gone.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);

/// How much hashing may happen at once, and how hard a hash is.
#[derive(Clone, Copy, Debug)]
pub struct PasswordOptions {
    /// The work factor of new hashes, 4 to 15: the logarithm of bcrypt's rounds. Below 10 is for tests.
    pub cost: u32,
    /// Threads that hash; 0 takes one for each core.
    pub threads: usize,
    /// Passwords that may wait for a thread before callers are turned away; at least 1.
    pub queue_length: usize,
}

/// What came of checking a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not the password, or nobody's: the caller must not be able to tell which.
    Wrong,
    /// The password of that hash.
    Right {
        /// The hash is of an older scheme or cheaper than the setting: replace it by [`Passwords::rehash`].
        needs_rewrite: bool,
    },
}

/// Hashes and checks passwords on threads of its own. Cheap to clone; the threads end with the last clone.
///
/// A caller who goes away before a thread takes up its password costs nothing: that is how deadlines are kept. Work that
/// has begun is finished.
#[derive(Clone)]
pub struct Passwords {
    shared: Arc<Shared>,
}

struct Shared {
    pool: Pool,
    cost: u32,
    entropy: Entropy,
    /// Stands for the hash of users who do not exist: of random bytes, at the current cost.
    nobodys: PasswordHash,
}

impl Passwords {
    /// Starts the threads, `hash-0` and up, at the lowest priority that the system has: look-ups come first.
    ///
    /// # Errors
    /// When the cost is out of bounds, or the system gives no more threads.
    pub fn start(options: PasswordOptions, entropy: Entropy) -> io::Result<Self> {
        if !(COST_MIN..=COST_MAX).contains(&options.cost) {
            let rule = format!("the cost of a password hash must be {COST_MIN} to {COST_MAX}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, rule));
        }

        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let queue_length = options.queue_length.max(1);
        let pool = Pool::start(threads, queue_length, time_to_drain(options.cost, threads, queue_length))?;
        let nobodys = format::nobodys_hash(options.cost, &entropy);

        Ok(Self { shared: Arc::new(Shared { pool, cost: options.cost, entropy, nobodys }) })
    }

    /// Hashes a new password as `bcrypt_sha256$$2b$<cost>$…`, which Django reads; 74 characters.
    ///
    /// Costs one thread for as long as the cost asks (235 ms at 12).
    ///
    /// # Errors
    /// [`HashingError`]; nothing was computed when the queue is full.
    pub async fn hash(&self, password: &NewPassword) -> Result<PasswordHash, HashingError> {
        self.hash_text(password.expose().to_owned()).await
    }

    /// Hashes a password that somebody has already: one just found right, whose hash [`Verdict::Right`] says needs to be replaced, or one
    /// that was kept in plaintext elsewhere.
    ///
    /// # Errors
    /// [`HashingError`]; nothing was computed when the queue is full.
    pub async fn rehash(&self, password: &Password) -> Result<PasswordHash, HashingError> {
        self.hash_text(password.expose().to_owned()).await
    }

    /// A place in the queue, for a caller who has yet to find out what to check against.
    ///
    /// # Errors
    /// [`HashingError::QueueFull`].
    pub fn reserve(&self) -> Result<Place, HashingError> {
        self.shared.pool.reserve()
    }

    /// Checks `password` against `stored`; `None` stands for a user who does not exist.
    ///
    /// No user, a user without a usable password and a hash that cannot be read take the work of a wrong password at the
    /// current cost. A wrong password takes that work too, for bcrypt hashes of a lower cost as well; hashes of other
    /// schemes take what their own parameters ask, until the first right login rewrites them.
    ///
    /// A stored value of unknown scheme, beyond the caps or malformed is logged once a call, without the value.
    ///
    /// # Errors
    /// [`HashingError`], but not that the queue is full: `place` is in it.
    pub async fn verify(
        &self,
        place: Place,
        password: &Password,
        stored: Option<PasswordHash>,
    ) -> Result<Verdict, HashingError> {
        let text = password.expose().to_owned();
        let cost = self.shared.cost;
        let is_somebodys = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.shared.nobodys.clone());
        let (hash, is_readable) = self.read(&stored);

        self.shared.pool.run_in(place, move || check(&text, &hash, is_somebodys && is_readable, cost)).await
    }

    /// [`Policy::admit`] on the hashing threads, so that passwords made to be slow to judge delay no look-up.
    ///
    /// # Errors
    /// [`HashingError`] when it could not be judged; the refusal is the value inside.
    pub async fn admit(
        &self,
        policy: Policy,
        text: String,
        username: Option<Username>,
        email: Option<Email>,
    ) -> Result<Result<NewPassword, PasswordRefusal>, HashingError> {
        self.shared.pool.run(move || policy.admit(text, username.as_ref(), email.as_ref())).await
    }

    async fn hash_text(&self, text: String) -> Result<PasswordHash, HashingError> {
        let cost = self.shared.cost;
        let salt = self.shared.entropy.bytes();
        self.shared.pool.run(move || format::hash(&text, cost, salt)).await
    }

    /// The hash to check against, and whether it is the stored one.
    fn read(&self, stored: &PasswordHash) -> (StoredHash, bool) {
        match StoredHash::parse(stored.expose()) {
            Ok(hash) => return (hash, true),
            Err(Unreadable::Unusable) => {}
            Err(reason) => {
                tracing::warn!(%reason, "A stored password cannot be checked; its user cannot log in");
            }
        }
        let nobodys = StoredHash::parse(self.shared.nobodys.expose());
        (nobodys.expect("the hash that the start made is in our own format"), false)
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").field("cost", &self.shared.cost).finish_non_exhaustive()
    }
}

fn check(password: &str, hash: &StoredHash, can_be_right: bool, cost: u32) -> Verdict {
    tracing::debug!("Checks a password");
    let matches = hash.matches(password);
    if !matches {
        hash.spend_difference(password, cost);
    }

    // Not short-circuited before the work: whether the user exists must not show in the time.
    if matches && can_be_right {
        Verdict::Right { needs_rewrite: hash.is_weaker_than(cost) }
    } else {
        Verdict::Wrong
    }
}

/// How long a full queue takes to empty.
fn time_to_drain(cost: u32, threads: usize, queue_length: usize) -> Duration {
    let millis = (MILLIS_AT_COST_12 << cost) >> 12;
    let rounds = u64::try_from(queue_length.div_ceil(threads)).unwrap_or(u64::MAX);
    Duration::from_millis(millis.saturating_mul(rounds)).clamp(Duration::from_secs(1), RETRY_AFTER_MAX)
}

#[cfg(test)]
mod tests;
