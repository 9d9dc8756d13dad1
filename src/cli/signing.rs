//! Constructs, from the settings, the sealing key and the signing keys.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Failure, reason};
use crate::{
    access_token::{AccessTokenOptions, AccessTokens},
    accounts::{KeyOptions, SigningKeys},
    config::{DatabaseUrl, Settings},
    entropy::Entropy,
    env::Env,
    sealing::SealingKey,
    store::Store,
};

/// What the name of the key file beside a SQLite database has after that of the database.
pub(super) const KEY_SUFFIX: &str = ".key";

/// Loads the key of `secret.key-file`. If the setting is unset on SQLite, loads the key file beside the
/// database, and creates it if it is missing, so that the first start needs no preparation.
pub(super) fn sealing_key(settings: &Settings, entropy: &Entropy) -> Result<SealingKey, Failure> {
    let loaded = match (&settings.secret.key_file, &settings.database.url) {
        (Some(path), _) => SealingKey::load(path),
        (None, DatabaseUrl::Sqlite(database)) => {
            SealingKey::load_or_create(&default_key_path(database), entropy)
        }
        (None, DatabaseUrl::Postgres(_)) => {
            return Err("secret.key-file must be set with PostgreSQL".to_owned());
        }
    };
    loaded.map_err(|error| format!("secret.key-file: {}", reason(error)))
}

/// Returns the path of the key file of a SQLite database if `secret.key-file` is unset: the database's path
/// with `.key` appended.
pub(super) fn default_key_path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(KEY_SUFFIX);
    path.into()
}

/// Constructs [`AccessTokens`], still without keys.
pub(super) fn access_tokens(settings: &Settings) -> AccessTokens {
    AccessTokens::new(AccessTokenOptions {
        issuer: settings.session.issuer.as_str().to_owned(),
        audience: settings.session.audience.as_str().to_owned(),
        lifetime: settings.session.access_token_lifetime.get(),
    })
}

/// Constructs [`SigningKeys`] for a command that signs nothing itself. Also returns the sealing key that
/// encrypts them.
pub(super) fn standalone_signing_keys(
    settings: &Settings,
    store: Store,
) -> Result<(SigningKeys, Arc<SealingKey>), Failure> {
    let env = Env::system();
    let sealing_key = Arc::new(sealing_key(settings, &env.entropy)?);
    let keys = signing_keys(settings, store, Arc::clone(&sealing_key), access_tokens(settings), env);
    Ok((keys, sealing_key))
}

/// Constructs [`SigningKeys`], which manages the keys of `access_tokens`.
pub(super) fn signing_keys(
    settings: &Settings,
    store: Store,
    sealing_key: Arc<SealingKey>,
    access_tokens: AccessTokens,
    env: Env,
) -> SigningKeys {
    let session = &settings.session;
    let options = KeyOptions { rotation_age: session.key_rotation.get(), lead: session.key_lead.get() };
    SigningKeys::new(store, sealing_key, access_tokens, options, env)
}
