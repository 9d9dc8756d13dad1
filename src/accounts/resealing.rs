//! Encrypts stored secrets again under the current secret key, while instances run.
//!
//! A value is replaced only if it is still the one that was read, so a crash or another process loses
//! nothing: what was replaced is under the current key, and the rest is under the key that it names.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    database::DatabaseError,
    domain::{Sealed, Timestamp},
    entropy::Entropy,
    sealing::{KeyId, Purpose, SealingKeys, UnsealError},
    store::{SealedToken, Store},
};

/// Number of tokens that one transaction replaces. Other writers wait meanwhile on SQLite.
const BATCH: i64 = 200;

/// The key of stored values; `None` for values of an earlier release, which name no key.
pub type SealedBy = Option<KeyId>;

/// What was encrypted again.
#[derive(Debug, Default)]
pub struct Resealed {
    /// Number of values that were encrypted again. A value that another process changed at the same moment is
    /// counted, although it was not replaced.
    pub replaced: u64,
    /// Number of values that could not be decrypted, and stay as they are.
    pub unreadable: u64,
    /// Why the first of them could not be decrypted.
    pub cause: Option<UnsealError>,
}

impl Resealed {
    fn add_unreadable(&mut self, cause: UnsealError) {
        self.unreadable += 1;
        self.cause.get_or_insert(cause);
    }
}

/// Encrypts stored secrets again.
pub struct Resealing {
    store: Store,
    keys: Arc<SealingKeys>,
    entropy: Entropy,
}

impl Resealing {
    /// Works on the secrets in `store`.
    #[must_use]
    pub const fn new(store: Store, keys: Arc<SealingKeys>, entropy: Entropy) -> Self {
        Self { store, keys, entropy }
    }

    /// Returns the number of stored values under each key.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn count(&self) -> Result<BTreeMap<SealedBy, u64>, DatabaseError> {
        let mut counts = BTreeMap::new();
        for counted in self.store.count_sealed_values().await? {
            let number = counts.entry(SealingKeys::key_of(&counted.header)).or_insert(0_u64);
            *number = number.saturating_add(counted.number.unsigned_abs());
        }
        Ok(counts)
    }

    /// Encrypts everything again that is not encrypted under the current key. After the seeds, and after each
    /// batch of tokens, calls `progress` with the number of values that were just replaced.
    ///
    /// # Errors
    /// [`DatabaseError`]. What was replaced until then stays replaced.
    pub async fn run(&self, mut progress: impl FnMut(u64)) -> Result<Resealed, DatabaseError> {
        let mut done = Resealed::default();
        self.reseal_seeds(&mut done).await?;
        progress(done.replaced);
        let mut after = Some(i64::MIN);
        while let Some(id) = after {
            let before = done.replaced;
            after = self.reseal_tokens(id, &mut done).await?;
            progress(done.replaced - before);
        }
        Ok(done)
    }

    /// Encrypts the seeds of all signing keys again.
    async fn reseal_seeds(&self, done: &mut Resealed) -> Result<(), DatabaseError> {
        // At the earliest time no key has expired yet, so the list also has those that no longer verify.
        for key in self.store.list_signing_keys(Timestamp::from_unix_micros(i64::MIN)).await? {
            let purpose = Purpose::SigningSeed { key_id: &key.id };
            match self.resealed(purpose, &key.sealed_seed) {
                Ok(Some(sealed)) => {
                    self.store.replace_sealed_seed(key.id.clone(), key.sealed_seed, sealed).await?;
                    done.replaced += 1;
                }
                Ok(None) => {}
                Err(cause) => done.add_unreadable(cause),
            }
        }
        Ok(())
    }

    /// Reads the next batch of tokens, those with a greater row id than `after`, and encrypts them again in
    /// one transaction. Returns the id of the last row of the batch; `None` if there are no more.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn reseal_tokens(&self, after: i64, done: &mut Resealed) -> Result<Option<i64>, DatabaseError> {
        let tokens = self.store.list_sealed_tokens(after, BATCH).await?;
        let Some(last) = tokens.last().map(|token| token.id) else { return Ok(None) };
        let mut replaced: Vec<(SealedToken, Sealed)> = Vec::new();
        for token in tokens {
            let purpose = Purpose::MailToken { message_id: &token.message_id, recipient: &token.recipient };
            match self.resealed(purpose, &token.sealed) {
                Ok(Some(sealed)) => replaced.push((token, sealed)),
                Ok(None) => {}
                Err(cause) => done.add_unreadable(cause),
            }
        }
        if !replaced.is_empty() {
            done.replaced += replaced.len() as u64;
            self.store.replace_sealed_tokens(replaced).await?;
        }
        Ok(Some(last))
    }

    /// Returns the value under the current key; `None` if it is under that key already.
    fn resealed(&self, purpose: Purpose<'_>, sealed: &Sealed) -> Result<Option<Sealed>, UnsealError> {
        if SealingKeys::key_of(sealed.as_bytes()) == Some(self.keys.ring().current()) {
            return Ok(None);
        }
        let secret = self.keys.open(purpose, sealed)?;
        Ok(Some(self.keys.seal(purpose, &secret, &self.entropy)))
    }
}
