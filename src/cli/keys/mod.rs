//! `kairos-identity keys`

mod secret;

use clap::{Args, Subcommand};

use super::{
    Failure,
    command_events::{origin, record},
    list::{Field, FormatFlag, List},
    output::{after_change, print, print_error},
    reason,
    signing::{self, IfKeyLost},
    store,
};
use crate::{
    accounts::{Administration, REVOCATION_DELAY, Rotation},
    clock::Clock,
    config::Settings,
    domain::{AuditEvent, AuditKind},
    store::StoredSigningKey,
};

/// The audit reason of a rotation during which another process created a key.
const OTHER_KEY_CREATED: &str = "OTHER_KEY_CREATED";

#[derive(Debug, Args)]
pub(super) struct Keys {
    #[command(subcommand)]
    action: Action,
    /// The file with the keys that encrypt the secrets in the database, as for `serve`
    #[arg(long, value_name = "FILE", global = true)]
    secret_key_file: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the keys, newest first
    ///
    /// The fields of a key: id; time of creation; time from which it signs; time until which it verifies,
    /// which the latest key does not have.
    List {
        #[command(flatten)]
        format: FormatFlag,
    },
    /// Create the next key now instead of after session.key-rotation
    ///
    /// The key signs after session.key-lead, so that services that cache the public keys have it by then.
    /// Earlier keys verify until the last token that they signed has expired.
    Rotate {
        /// Revoke all earlier keys, if they may have been stolen or can no longer be decrypted: the new key
        /// signs at once, and every access token signed so far becomes invalid. Sessions continue: clients
        /// refresh them. The command returns when every running instance refuses what earlier keys signed
        #[arg(long)]
        revoke_earlier: bool,
    },
    /// Manage the keys that encrypt secrets in the database (secret.key-file)
    #[command(subcommand)]
    Secret(secret::Action),
}

impl Keys {
    /// Returns the file with the secret keys, which replaces the setting `secret.key-file`.
    pub(super) const fn secret_key_file(&self) -> Option<&String> {
        self.secret_key_file.as_ref()
    }

    pub(super) async fn run(self, settings: &Settings) -> Result<(), Failure> {
        if let Action::Secret(action) = self.action {
            return action.run(settings).await;
        }
        let store = store::open_usable(settings).await?;
        // `rotate --revoke-earlier` is also the way out if the sealing key is lost.
        let revokes = matches!(self.action, Action::Rotate { revoke_earlier: true });
        let if_key_lost = if revokes { IfKeyLost::Replace } else { IfKeyLost::Fail };
        let clock = Clock::system();
        let administration = Administration::new(store.clone(), clock.clone());
        let (keys, _) = signing::standalone_signing_keys(settings, store, if_key_lost).await?;
        match self.action {
            Action::Secret(_) => Ok(()),
            Action::List { format } => list(&keys.list().await.map_err(reason)?, format),
            Action::Rotate { revoke_earlier } => {
                let checked = keys.check().await;
                let was_lost = checked.is_err();
                if !revoke_earlier {
                    // With another secret key, the new signing key would be of no use to the service.
                    checked.map_err(reason)?;
                }
                let rotation = if revoke_earlier { Rotation::RevokingEarlier } else { Rotation::Orderly };
                let origin = origin();
                let created = keys.rotate(rotation, &origin).await.map_err(reason)?;
                let Some(created) = created else {
                    let event = AuditEvent::new(clock.now(), AuditKind::AuthzAdminFail, origin);
                    record(
                        &administration,
                        event.with_resource("keys rotate").with_reason(OTHER_KEY_CREATED),
                    )
                    .await;
                    return Err(
                        "another process created a key at the same moment: check `kairos-identity keys list`"
                            .to_owned(),
                    );
                };
                // The wait follows even if an output fails: the operator relies on it.
                let mut printed = after_change(print_key(&created));
                if revoke_earlier {
                    let seconds = REVOCATION_DELAY.as_secs();
                    let told = print_error(format_args!(
                        "waiting {seconds} s, until every running instance refuses what earlier keys signed"
                    ));
                    printed = printed.and(after_change(told));
                    tokio::time::sleep(REVOCATION_DELAY).await;
                }
                if was_lost {
                    let told = print_error(
                        "restart every running instance: it still uses the secret key that is lost, and cannot sign with \
                         the new signing key until then",
                    );
                    printed = printed.and(after_change(told));
                }
                printed
            }
        }
    }
}

/// Prints the keys.
fn list(keys: &[StoredSigningKey], format: FormatFlag) -> Result<(), Failure> {
    let mut list = List::new(format, ["id", "created_at", "signs_from", "verifies_until"]);
    for key in keys {
        let (id, created_at) = (Field::text(&key.id), Field::text(key.created_at));
        let until = Field::optional(key.verifies_until.as_ref());
        if list.add([id, created_at, Field::text(key.signs_from), until])? {
            break;
        }
    }
    list.finish()
}

/// Prints the id and the times of a key, separated by tabs.
fn print_key(key: &StoredSigningKey) -> Result<(), Failure> {
    let until = key.verifies_until.map_or_else(|| "-".to_owned(), |until| until.to_string());
    print(format_args!("{}\t{}\t{}\t{until}", key.id, key.created_at, key.signs_from))
}
