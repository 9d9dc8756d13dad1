//! Constructs, from the settings, the sealing key and the signing keys.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Failure, reason};
use crate::{
    access_token::{AccessTokenOptions, AccessTokens},
    accounts::{KeyOptions, Resealing, SigningKeys},
    clock::Clock,
    config::{DatabaseUrl, Settings},
    database::{DatabaseError, sqlite_file::with_suffix},
    entropy::Entropy,
    env::Env,
    input_file::ShownPath,
    sealing::SealingKeys,
    store::Store,
};

/// The suffix that the name of a SQLite database gets for the key file beside it.
pub(super) const KEY_SUFFIX: &str = ".key";

/// Loads the key of `secret.key-file`. If the setting is unset on SQLite, loads the key file beside the
/// database, and creates it if it is missing, so that the first start needs no preparation. Creates none if
/// `store` holds secrets under another key.
pub(super) async fn sealing_keys(
    settings: &Settings,
    store: &Store,
    entropy: &Entropy,
) -> Result<SealingKeys, Failure> {
    match check_key(settings, Some(store)).await? {
        Some(key) => Ok(key),
        None => create_key(settings, entropy),
    }
}

/// Loads the key beside a SQLite database, and creates it if it is missing.
fn create_key(settings: &Settings, entropy: &Entropy) -> Result<SealingKeys, Failure> {
    match &settings.database.url {
        DatabaseUrl::Sqlite(database) => {
            let created = SealingKeys::load_or_create(&default_key_path(database), entropy);
            created.map_err(|error| format!("secret.key-file: {}", reason(error)))
        }
        DatabaseUrl::Postgres(_) => Err("secret.key-file must be set with PostgreSQL".to_owned()),
    }
}

/// Loads the key that the settings name, and creates none. Returns `None` if there is no key yet: on SQLite
/// it may then be created, on PostgreSQL the setting `secret.key-file` must be set. Without `store`, a
/// missing key beside a SQLite database is never an error.
///
/// # Errors
/// The key cannot be loaded. Or the key beside a SQLite database is missing although the store holds secrets
/// that were encrypted under it: a new key would hide the loss.
pub(super) async fn check_key(
    settings: &Settings,
    store: Option<&Store>,
) -> Result<Option<SealingKeys>, Failure> {
    let path = match (&settings.secret.key_file, &settings.database.url) {
        (Some(path), _) => path.clone(),
        (None, DatabaseUrl::Sqlite(database)) => default_key_path(database),
        (None, DatabaseUrl::Postgres(_)) => return Ok(None),
    };
    let is_named = settings.secret.key_file.is_some();
    if is_named || path.symlink_metadata().is_ok() {
        let loaded = SealingKeys::load(&path).map(Some);
        return loaded.map_err(|error| format!("secret.key-file: {}", reason(error)));
    }
    let has_secrets = match store {
        Some(store) => match store.list_signing_keys(Clock::system().now()).await {
            Ok(keys) => !keys.is_empty(),
            // A schema without this table is older than every secret.
            Err(DatabaseError::Internal(_)) => false,
            Err(error) => return Err(format!("the database {}: {}", settings.database.url, reason(error))),
        },
        None => false,
    };
    if !has_secrets {
        return Ok(None);
    }
    Err(format!(
        "secret.key-file: the key {} is missing, but the database {} holds secrets that were encrypted under it: restore \
         the file from its backup, or name it with --secret-key-file. If the key is lost, `kairos-identity keys rotate \
         --revoke-earlier` creates a new one: access tokens and mails that are not yet sent become invalid",
        ShownPath(&path),
        settings.database.url,
    ))
}

/// Warns of stored secrets that cannot be decrypted because their key is not in the file.
pub(super) async fn warn_of_missing_keys(store: &Store, keys: &Arc<SealingKeys>) -> Result<(), Failure> {
    let resealing = Resealing::new(store.clone(), Arc::clone(keys), Entropy::system());
    let (counts, ring) = (resealing.count().await.map_err(reason)?, keys.ring());
    for (id, number) in counts {
        let Some(id) = id.filter(|id| !ring.ids().contains(id)) else { continue };
        let file = keys.path().map(|path| ShownPath(path).to_string()).unwrap_or_default();
        tracing::warn!(
            "{number} stored secrets (tokens of unsent mails, signing keys) are encrypted under the key {id}, which is not in \
             {file}, and cannot be decrypted: add the key to the file again, as the second line"
        );
    }
    Ok(())
}

/// Returns the path of the key file of a SQLite database if `secret.key-file` is unset: the database's path
/// with `.key` appended.
pub(super) fn default_key_path(database: &Path) -> PathBuf {
    with_suffix(database, KEY_SUFFIX)
}

/// Constructs [`AccessTokens`], still without keys.
pub(super) fn access_tokens(settings: &Settings) -> AccessTokens {
    AccessTokens::new(AccessTokenOptions {
        issuer: settings.session.issuer.as_str().to_owned(),
        audience: settings.session.audience.as_str().to_owned(),
        lifetime: settings.session.access_token_lifetime.get(),
    })
}

/// What happens if the sealing key is missing although the store holds secrets that were encrypted under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IfKeyLost {
    /// The command fails.
    Fail,
    /// A new key is created. The secrets can no longer be decrypted.
    Replace,
}

/// Constructs [`SigningKeys`] for a command that signs nothing itself. Also returns the sealing key that
/// encrypts them.
pub(super) async fn standalone_signing_keys(
    settings: &Settings,
    store: Store,
    if_key_lost: IfKeyLost,
) -> Result<(SigningKeys, Arc<SealingKeys>), Failure> {
    let env = Env::system();
    let sealing_keys = match check_key(settings, None).await? {
        Some(key) => key,
        None if if_key_lost == IfKeyLost::Replace => create_key(settings, &env.entropy)?,
        None => sealing_keys(settings, &store, &env.entropy).await?,
    };
    let sealing_keys = Arc::new(sealing_keys);
    let keys = signing_keys(settings, store, Arc::clone(&sealing_keys), access_tokens(settings), env);
    Ok((keys, sealing_keys))
}

/// Constructs [`SigningKeys`], which manages the keys of `access_tokens`.
pub(super) fn signing_keys(
    settings: &Settings,
    store: Store,
    sealing_keys: Arc<SealingKeys>,
    access_tokens: AccessTokens,
    env: Env,
) -> SigningKeys {
    let session = &settings.session;
    let options = KeyOptions { rotation_age: session.key_rotation.get(), lead: session.key_lead.get() };
    SigningKeys::new(store, sealing_keys, access_tokens, options, env)
}
