//! The keys that sign access tokens: creation, publication before use, and removal after the last token they
//! signed has expired.
//!
//! All instances read the keys from the database, where the secret halves are stored encrypted. A new key is
//! published (`GetJwks`) for some time before it signs, so that a service that caches the public keys has it
//! by then.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    access_token::{AccessTokens, ISSUED_AHEAD_MAX, SigningKey},
    database::DatabaseError,
    domain::{AuditEvent, AuditKind, Origin, SigningSeed, Timestamp, chain},
    env::Env,
    sealing::{Purpose, SealingKeys, UnsealError},
    store::{EarlierKeys, Store, StoredSigningKey},
};

/// Interval at which the keys are read. An instance notices within this time that an operator created or
/// revoked a key.
const INTERVAL: Duration = Duration::from_secs(1);

/// Time after a revocation until every running instance with a working database has noticed it: the interval,
/// and the time of a query.
pub const REVOCATION_DELAY: Duration = Duration::from_secs(2);

/// The shortest time between two readings of the keys because of tokens that name an unknown key. Clients can
/// invent such tokens.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_millis(200);

/// The times of key rotation.
#[derive(Debug, Clone, Copy)]
pub struct KeyOptions {
    /// Age of the latest key at which the next one is created.
    pub rotation_age: Duration,
    /// Time for which a new key is published before it signs.
    pub lead: Duration,
}

/// How an operator replaces the signing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// The new key signs after it has been published for [`KeyOptions::lead`]. The earlier keys verify until
    /// their last token has expired.
    Orderly,
    /// The new key signs at once, and the earlier keys are deleted, so that every token they signed is
    /// invalid. For keys that may have been stolen.
    RevokingEarlier,
}

/// Why the signing keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    /// The keys cannot be read or written.
    #[error(transparent)]
    Store(#[from] DatabaseError),
    /// The latest key cannot be decrypted, for example because this instance does not have the key that it is
    /// encrypted under.
    #[error(
        "signing key {id} cannot be decrypted \
         (if secret.key-file is lost, run `kairos-identity keys rotate --revoke-earlier`)"
    )]
    Sealed {
        /// The id of the signing key.
        id: String,
        /// Why decryption failed.
        source: UnsealError,
    },
}

/// Creates, reads and rotates the signing keys. Cheap to clone.
#[derive(Clone)]
pub struct SigningKeys {
    store: Store,
    sealing_keys: Arc<SealingKeys>,
    access_tokens: AccessTokens,
    options: KeyOptions,
    env: Env,
    /// The last time at which the keys were read because of an unknown key.
    reloaded_at: Arc<Mutex<Option<Instant>>>,
}

impl SigningKeys {
    /// Manages the keys of `access_tokens`, which has none before [`SigningKeys::load_or_rotate`].
    #[must_use]
    pub fn new(
        store: Store,
        sealing_keys: Arc<SealingKeys>,
        access_tokens: AccessTokens,
        options: KeyOptions,
        env: Env,
    ) -> Self {
        Self { store, sealing_keys, access_tokens, options, env, reloaded_at: Arc::default() }
    }

    /// Returns the access tokens whose keys this manages.
    #[must_use]
    pub const fn access_tokens(&self) -> &AccessTokens {
        &self.access_tokens
    }

    /// Reads the keys, after creating the first one, or the next one if it is due. Such a scheduled rotation
    /// is logged but is no audit event, since no operator decided it.
    ///
    /// # Errors
    /// [`SigningKeyError`]. If the keys cannot be read, the keys that were read before stay in use.
    pub async fn load_or_rotate(&self) -> Result<(), SigningKeyError> {
        let now = self.env.clock.now();
        let mut stored = self.store.list_signing_keys(now).await?;
        let is_due = |latest: &StoredSigningKey| {
            latest.is_ahead(now) || latest.created_at.plus(self.options.rotation_age) <= now
        };
        if stored.first().is_none_or(is_due) {
            self.add(stored.first(), Rotation::Orderly, now, None).await?;
            stored = self.store.list_signing_keys(now).await?;
        }
        self.use_keys(&stored, now);
        self.require_latest(&stored, now)
    }

    /// Makes these the keys that sign and verify. A key that cannot be decrypted verifies nothing. A key that
    /// is no longer stored was revoked or has expired, so it is dropped even if the latest key cannot be
    /// decrypted.
    fn use_keys(&self, stored: &[StoredSigningKey], now: Timestamp) {
        let opened: Vec<_> = stored.iter().filter_map(|key| self.open(key, now).ok()).collect();
        self.access_tokens.replace_keys(&opened);
    }

    /// Reads the keys again because a token names a key that this instance does not know: another instance
    /// may just have created it. Calls at the same time share one reading.
    pub(super) async fn reload_for_unknown_key(&self) {
        let mut reloaded_at = self.reloaded_at.lock().await;
        let now = self.env.clock.instant();
        if reloaded_at.is_some_and(|at| now.saturating_duration_since(at) < UNKNOWN_KEY_PAUSE) {
            return;
        }
        *reloaded_at = Some(now);
        match self.list().await {
            Ok(stored) if !stored.is_empty() => self.use_keys(&stored, self.env.clock.now()),
            // No key verifies now. The keys in use stay until `load_or_rotate` creates the next one.
            Ok(_) => {}
            Err(error) => tracing::warn!(error = %error.chain(), "Signing keys not read again"),
        }
    }

    /// Checks that the configured key decrypts the latest signing key in this database. Succeeds if there is
    /// none.
    ///
    /// # Errors
    /// [`SigningKeyError`].
    pub async fn check(&self) -> Result<(), SigningKeyError> {
        self.require_latest(&self.list().await?, self.env.clock.now())
    }

    /// Checks that the configured key decrypts the latest of these signing keys.
    fn require_latest(&self, stored: &[StoredSigningKey], now: Timestamp) -> Result<(), SigningKeyError> {
        match stored.first().map(|latest| (latest, self.open(latest, now))) {
            Some((latest, Err(source))) => Err(SigningKeyError::Sealed { id: latest.id.clone(), source }),
            _ => Ok(()),
        }
    }

    /// Every second, reads the keys again and creates the next one if it is due, until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let mut last_logged = None;
        while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            let failure = self.load_or_rotate().await.err().map(|error| chain(&error));
            // Logged once for each different error, not at every retry.
            if failure != last_logged
                && let Some(failure) = &failure
            {
                tracing::error!(error = failure, "Signing keys not fully loaded; retrying");
            }
            last_logged = failure;
        }
    }

    /// Creates a new key and returns it; `None` when another instance created one at the same moment.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn rotate(
        &self,
        rotation: Rotation,
        origin: &Origin,
    ) -> Result<Option<StoredSigningKey>, DatabaseError> {
        let now = self.env.clock.now();
        let stored = self.store.list_signing_keys(now).await?;
        self.add(stored.first(), rotation, now, Some(origin)).await
    }

    /// Returns all keys that verify now or later, latest first.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn list(&self) -> Result<Vec<StoredSigningKey>, DatabaseError> {
        self.store.list_signing_keys(self.env.clock.now()).await
    }

    /// Stores the key that follows `latest`, and the event if an operator (`origin`) requested it. Returns
    /// `None` if another instance stored one at the same moment.
    async fn add(
        &self,
        latest: Option<&StoredSigningKey>,
        rotation: Rotation,
        now: Timestamp,
        origin: Option<&Origin>,
    ) -> Result<Option<StoredSigningKey>, DatabaseError> {
        let (signs_from, earlier) = match (latest, rotation) {
            (Some(_), Rotation::Orderly) => {
                let signs_from = now.plus(self.options.lead);
                (signs_from, EarlierKeys::VerifyUntil(signs_from.plus(self.access_tokens.lifetime())))
            }
            // Signs at once by the clock of every instance, also by a clock that is behind: there is no other
            // key.
            (None, _) | (_, Rotation::RevokingEarlier) => (now.minus(ISSUED_AHEAD_MAX), EarlierKeys::Revoked),
        };
        let seed = SigningSeed::from_bytes(self.env.entropy.bytes());
        let id = SigningKey::new(seed.clone(), signs_from, None).public().id.as_str().to_owned();
        let key = StoredSigningKey {
            generation: latest.map_or(1, |latest| latest.generation.saturating_add(1)),
            sealed_seed: self.sealing_keys.seal(
                Purpose::SigningSeed { key_id: &id },
                seed.as_bytes(),
                &self.env.entropy,
            ),
            created_at: now,
            signs_from,
            verifies_until: None,
            id,
        };
        let event = origin.map(|origin| AuditEvent {
            resource: Some(format!("signing key {}", key.id)),
            ..AuditEvent::new(now, AuditKind::AuthzAdmin, origin.clone())
        });
        if !self.store.add_signing_key(key.clone(), earlier, event).await? {
            return Ok(None);
        }
        if let Some(latest) = latest.filter(|latest| latest.is_ahead(now)) {
            tracing::warn!(
                "Signing key {} was created in the future ({}); replaced",
                latest.id,
                latest.created_at
            );
        }
        if signs_from > now {
            tracing::info!("Signing key {} created; it signs from {signs_from}", key.id);
        } else {
            tracing::info!("Signing key {} created; it signs at once", key.id);
        }
        Ok(Some(key))
    }

    /// Decrypts a signing key. If its times are wrong, because a clock was ahead when it was created, it
    /// signs at once, and until the next key does.
    fn open(&self, key: &StoredSigningKey, now: Timestamp) -> Result<SigningKey, UnsealError> {
        let seed = self.sealing_keys.open(Purpose::SigningSeed { key_id: &key.id }, &key.sealed_seed)?;
        let always = Timestamp::from_unix_micros(i64::MIN);
        let signs_from = if key.is_ahead(now) { always } else { key.signs_from };
        Ok(SigningKey::new(SigningSeed::from_bytes(seed), signs_from, key.verifies_until))
    }
}
