//! The keys that the settings lead to: the one that seals, and those that sign; and the mails whose tokens are sealed.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::Notify;

use super::{Failure, reason};
use crate::{
    access_token::{AccessTokenOptions, AccessTokens},
    accounts::{KeyOptions, MailOptions, Mails, SigningKeys},
    clock::Clock,
    config::{DatabaseUrl, Settings},
    entropy::Entropy,
    sealing::SealingKey,
    store::Store,
};

/// On SQLite one is made beside the database, so that the first start needs nothing.
pub(super) fn sealing_key(settings: &Settings, entropy: &Entropy) -> Result<SealingKey, Failure> {
    let loaded = match (&settings.secret.key_file, &settings.database.url) {
        (Some(path), _) => SealingKey::load(path),
        (None, DatabaseUrl::Sqlite(database)) => SealingKey::load_or_create(&key_beside(database), entropy),
        (None, DatabaseUrl::Postgres(_)) => {
            return Err("secret.key-file must be set with PostgreSQL".to_owned());
        }
    };
    loaded.map_err(|error| format!("secret.key-file: {}", reason(error)))
}

/// Where the key of a file of SQLite is when no setting says otherwise.
pub(super) fn key_beside(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".key");
    path.into()
}

/// Who makes mails; `due` is rung for each.
pub(super) fn mails(
    settings: &Settings,
    sealing_key: Arc<SealingKey>,
    entropy: &Entropy,
    due: Arc<Notify>,
) -> Mails {
    let options = MailOptions {
        verification_lifetime: settings.verification.token_lifetime.get(),
        reset_lifetime: settings.password.reset_lifetime.get(),
        message_id_domain: settings.mail.from.address.domain().to_owned(),
    };
    Mails::new(options, sealing_key, entropy.clone(), due)
}

/// Who signs, still without keys.
pub(super) fn access_tokens(settings: &Settings) -> AccessTokens {
    AccessTokens::new(AccessTokenOptions {
        issuer: settings.session.issuer.as_str().to_owned(),
        audience: settings.session.audience.as_str().to_owned(),
        lifetime: settings.session.access_token_lifetime.get(),
    })
}

/// Who keeps the keys that sign, for a command that signs nothing itself; and the key that they lie under.
pub(super) fn signing_keys_alone(
    settings: &Settings,
    store: Store,
) -> Result<(SigningKeys, Arc<SealingKey>), Failure> {
    let entropy = Entropy::system();
    let sealing_key = Arc::new(sealing_key(settings, &entropy)?);
    let time_and_chance = (Clock::system(), entropy);
    let keys =
        signing_keys(settings, store, Arc::clone(&sealing_key), access_tokens(settings), time_and_chance);
    Ok((keys, sealing_key))
}

/// Who keeps the keys of `access_tokens`.
pub(super) fn signing_keys(
    settings: &Settings,
    store: Store,
    sealing_key: Arc<SealingKey>,
    access_tokens: AccessTokens,
    time_and_chance: (Clock, Entropy),
) -> SigningKeys {
    let session = &settings.session;
    let options = KeyOptions { rotation: session.key_rotation.get(), lead: session.key_lead.get() };
    SigningKeys::new(store, sealing_key, access_tokens, options, time_and_chance)
}
