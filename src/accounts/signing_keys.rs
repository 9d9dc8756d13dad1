//! The keys that sign access tokens: made, told of before they sign, and forgotten when the last token that they signed has ended.
//!
//! All instances read them from the database, where their secret halves lie sealed. A new key is told of (`GetJwks`) for a while before it
//! signs, so that whoever keeps the public keys has it by then.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::audit;
use crate::{
    access_token::{AccessTokens, SKEW_MAX, SigningKey},
    clock::Clock,
    domain::{AuditEvent, AuditKind, Origin, SigningSeed, Timestamp},
    entropy::Entropy,
    sealing::{Purpose, SealBroken, SealingKey},
    store::{EarlierKeys, Store, StoreError, StoredSigningKey, chain},
};

/// How often the keys are read: so soon every instance knows of one that an operator made or revoked.
const INTERVAL: Duration = Duration::from_secs(5);

/// When keys change.
#[derive(Debug, Clone, Copy)]
pub struct KeyOptions {
    /// How old a key becomes before the next one is made.
    pub rotation: Duration,
    /// How long a key is told of before it signs.
    pub lead: Duration,
}

/// How an operator makes a new key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// It signs when everybody has had the time to read it; the earlier ones verify until their last token has ended.
    Orderly,
    /// It signs at once, and what the earlier ones signed is good for nothing: for keys that somebody may have stolen.
    RevokingEarlier,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    /// They cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The latest is sealed under a key that we do not have.
    #[error(
        "the key {id} that signs access tokens cannot be opened (if secret.key-file is lost: `kairos-identity keys rotate --revoke-earlier`)"
    )]
    Sealed {
        /// The key's name.
        id: String,
        /// Why not.
        source: SealBroken,
    },
}

/// Keeps the keys. Cheap to clone.
#[derive(Clone)]
pub struct SigningKeys {
    store: Store,
    sealing_key: Arc<SealingKey>,
    access_tokens: AccessTokens,
    options: KeyOptions,
    clock: Clock,
    entropy: Entropy,
}

impl SigningKeys {
    /// Keeps the keys of `access_tokens`, which knows none before [`SigningKeys::prepare`].
    #[must_use]
    pub fn new(
        store: Store,
        sealing_key: Arc<SealingKey>,
        access_tokens: AccessTokens,
        options: KeyOptions,
        (clock, entropy): (Clock, Entropy),
    ) -> Self {
        Self { store, sealing_key, access_tokens, options, clock, entropy }
    }

    /// Reads the keys; makes the first one, or the next one when it is time. That is nobody's decision, and only in the log.
    ///
    /// # Errors
    /// [`SigningKeyError`]; when the keys cannot be read, those known so far stay.
    pub async fn prepare(&self) -> Result<(), SigningKeyError> {
        let now = self.clock.now();
        let mut stored = self.store.list_signing_keys(now).await?;
        let is_due = |latest: &StoredSigningKey| latest.created_at.plus(self.options.rotation) <= now;
        if stored.first().is_none_or(is_due) {
            self.add(stored.first(), Rotation::Orderly, now, None).await?;
            stored = self.store.list_signing_keys(now).await?;
        }
        // One that cannot be opened verifies nothing. What is no longer there was revoked, and is forgotten in any case.
        let opened: Vec<_> = stored.iter().filter_map(|key| self.open(key).ok()).collect();
        self.access_tokens.replace_keys(&opened);
        self.require_latest(&stored)
    }

    /// Sees whether this is the key that secrets lie under in this database; a database without secrets takes any.
    ///
    /// # Errors
    /// [`SigningKeyError`]
    pub async fn check(&self) -> Result<(), SigningKeyError> {
        self.require_latest(&self.list().await?)
    }

    fn require_latest(&self, stored: &[StoredSigningKey]) -> Result<(), SigningKeyError> {
        match stored.first().map(|latest| (latest, self.open(latest))) {
            Some((latest, Err(source))) => Err(SigningKeyError::Sealed { id: latest.id.clone(), source }),
            _ => Ok(()),
        }
    }

    /// Follows the keys until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut told = None;
        while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            let trouble = self.prepare().await.err().map(|error| chain(&error));
            // Once, not every few seconds.
            if trouble != told
                && let Some(trouble) = &trouble
            {
                tracing::error!(error = trouble, "The keys that sign access tokens are not all there");
            }
            told = trouble;
        }
    }

    /// Makes a new key; gives it, and nothing when another instance made one at the same moment.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn rotate(
        &self,
        rotation: Rotation,
        origin: &Origin,
    ) -> Result<Option<StoredSigningKey>, StoreError> {
        let now = self.clock.now();
        let stored = self.store.list_signing_keys(now).await?;
        self.add(stored.first(), rotation, now, Some(origin)).await
    }

    /// All keys that verify now or will, the latest first.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn list(&self) -> Result<Vec<StoredSigningKey>, StoreError> {
        self.store.list_signing_keys(self.clock.now()).await
    }

    async fn add(
        &self,
        latest: Option<&StoredSigningKey>,
        rotation: Rotation,
        now: Timestamp,
        origin: Option<&Origin>,
    ) -> Result<Option<StoredSigningKey>, StoreError> {
        let (signs_from, earlier) = match (latest, rotation) {
            (Some(_), Rotation::Orderly) => {
                let signs_from = now.plus(self.options.lead);
                (signs_from, EarlierKeys::VerifyUntil(signs_from.plus(self.access_tokens.lifetime())))
            }
            // By every clock, also one that is behind: there is no other.
            (None, _) | (_, Rotation::RevokingEarlier) => (now.minus(SKEW_MAX), EarlierKeys::Revoked),
        };
        let seed = SigningSeed::from_bytes(self.entropy.bytes());
        let id = SigningKey::new(seed.clone(), signs_from, None).public().id.as_str().to_owned();
        let key = StoredSigningKey {
            generation: latest.map_or(1, |latest| latest.generation.saturating_add(1)),
            sealed_seed: self.sealing_key.seal(Purpose::SigningSeed, seed.as_bytes(), &self.entropy),
            created_at: now,
            signs_from,
            verifies_until: None,
            id,
        };
        let event = origin.map(|origin| AuditEvent {
            resource: Some(format!("signing key {}", key.id)),
            ..AuditEvent::new(now, AuditKind::AuthzAdmin, origin.clone())
        });
        if !self.store.add_signing_key(key.clone(), earlier, event.clone()).await? {
            return Ok(None);
        }
        tracing::info!("Made the key {} that signs access tokens from {signs_from} on", key.id);
        event.iter().for_each(audit::log);
        Ok(Some(key))
    }

    fn open(&self, key: &StoredSigningKey) -> Result<SigningKey, SealBroken> {
        let seed = self.sealing_key.open(Purpose::SigningSeed, &key.sealed_seed)?;
        Ok(SigningKey::new(SigningSeed::from_bytes(seed), key.signs_from, key.verifies_until))
    }
}
