//! `kairos-identity keys secret`

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use clap::Subcommand;

use crate::{
    accounts::{Administration, Resealing, SealedBy, SigningKeys},
    cli::{
        Failure,
        command_events::{origin, record},
        list::{Field, FormatFlag, List},
        output::{print, print_change, print_error},
        progress::TerminalProgress,
        reason, signing, store,
    },
    clock::Clock,
    config::{Settings, Span, Value},
    domain::{AuditEvent, AuditKind},
    env::Env,
    import::Progress,
    sealing::{KeyFile, KeyFileError, KeyId, SealingKeys},
};

/// The longest `--wait`, in milliseconds: an hour.
const WAIT_MILLIS_MAX: u64 = 3_600_000;

/// The audit reason of a change that names a key that the file does not have.
const KEY_UNKNOWN: &str = "KEY_UNKNOWN";

/// The audit reason of the removal of a key under which something is or will be encrypted.
const KEY_IN_USE: &str = "KEY_IN_USE";

/// The maximum number of passes of `reseal`. During a pass, an instance may still write values under an
/// earlier key: the next pass encrypts these again.
const PASSES_MAX: u32 = 3;

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// List the keys of the file, and how many stored values are encrypted under each
    ///
    /// The keys are in the order of the file. The fields of a key: id; `current` (it encrypts and decrypts),
    /// `earlier` (it only decrypts) or `missing` (the file does not have it); number of stored values. The id
    /// `-` means values of an earlier release, which name no key.
    List {
        #[command(flatten)]
        format: FormatFlag,
    },
    /// Add a new key to the file, which only decrypts until `rotate --to` makes it the current one
    ///
    /// For instances that do not share the file: copy the changed file to all of them before `rotate --to`.
    Add,
    /// Replace the current key while instances run: add a key, make it the current one, and encrypt all
    /// stored secrets again under it
    ///
    /// Running instances read the changed file within 2 seconds, or at once when they meet a value under a
    /// key that they do not have. Nothing is lost if the command is interrupted: run `rotate --to ID` with
    /// the id of the added key (`list`), or `reseal` if that key is the current one already.
    Rotate {
        /// Use this key, which `add` has added, instead of a new one
        #[arg(long, value_name = "ID")]
        to: Option<KeyId>,
        /// The pause before and after the new key becomes the current one, in which running instances read
        /// the file
        #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_wait)]
        wait: Duration,
    },
    /// Encrypt all stored secrets again that are not encrypted under the current key
    ///
    /// Can be interrupted and run again at any time, while instances run.
    Reseal,
    /// Remove a key from the file when nothing is stored under it any more
    ///
    /// Keep it with the backups that were made while it was in use: they cannot be decrypted without it.
    Remove {
        /// The id of the key, as `list` prints it
        id: KeyId,
    },
}

/// Returns a number of stored values in words.
fn values(number: u64) -> String {
    format!("{number} value{}", if number == 1 { "" } else { "s" })
}

/// Returns the time of a wait in words.
fn seconds(wait: Duration) -> String {
    format!("{} s", wait.as_secs_f64())
}

fn parse_wait(text: &str) -> Result<Duration, String> {
    let wait = Span::<0, WAIT_MILLIS_MAX>::parse(text).map(Span::get);
    wait.ok_or_else(|| format!("expected {}", Span::<0, WAIT_MILLIS_MAX>::expects()))
}

/// The keys, their file, and the store that holds secrets under them.
struct SecretKeys {
    file: KeyFile,
    keys: Arc<SealingKeys>,
    resealing: Resealing,
    signing_keys: SigningKeys,
    administration: Administration,
    clock: Clock,
    env: Env,
}

impl Action {
    pub(super) async fn run(self, settings: &Settings) -> Result<(), Failure> {
        let secret = SecretKeys::open(settings).await?;
        if matches!(self, Self::Add | Self::Rotate { .. }) {
            // In the file of another service, a new key would be of no use to this one.
            secret.signing_keys.check().await.map_err(reason)?;
        }
        match self {
            Self::List { format } => secret.list(format).await,
            Self::Add => {
                let added = secret.add().await?;
                print_change(format_args!("added the key {added} to {}", secret.file.path().display()))?;
                print_error(format_args!(
                    "next: let every instance have this file, and then run `kairos-identity keys secret rotate --to {added}`"
                ))
            }
            Self::Rotate { to, wait } => secret.rotate(to, wait).await,
            Self::Reseal => secret.reseal().await,
            Self::Remove { id } => secret.remove(id).await,
        }
    }
}

impl SecretKeys {
    async fn open(settings: &Settings) -> Result<Self, Failure> {
        let (clock, env) = (Clock::system(), Env::system());
        let store = store::open_usable(settings).await?;
        let keys = Arc::new(signing::sealing_keys(settings, &store, &env.entropy).await?);
        let path = keys.path().ok_or("secret.key-file: the key has no file")?;
        let (ring, tokens) = (Arc::clone(&keys), signing::access_tokens(settings));
        Ok(Self {
            file: KeyFile::at(path),
            signing_keys: signing::signing_keys(settings, store.clone(), ring, tokens, env.clone()),
            resealing: Resealing::new(store.clone(), Arc::clone(&keys), env.entropy.clone()),
            keys,
            administration: Administration::new(store, clock.clone()),
            clock,
            env,
        })
    }

    async fn record(&self, id: KeyId, what: &str) {
        let event = AuditEvent::new(self.clock.now(), AuditKind::AuthzAdmin, origin());
        record(&self.administration, event.with_resource(&format!("secret key {id}: {what}"))).await;
    }

    /// Records that a change was refused, and returns the failure.
    async fn refused(&self, id: KeyId, reason: &'static str, failure: Failure) -> Failure {
        let event = AuditEvent::new(self.clock.now(), AuditKind::AuthzAdminFail, origin());
        record(&self.administration, event.with_resource(&format!("secret key {id}")).with_reason(reason))
            .await;
        failure
    }

    /// Does what [`SecretKeys::refused`] does, if the file refuses the change: an error of a file that cannot
    /// be read or written is no decision.
    async fn not_changed(&self, id: KeyId, error: KeyFileError, by_hand_change: &str) -> Failure {
        let reason = match &error {
            KeyFileError::Unknown { .. } => Some(KEY_UNKNOWN),
            KeyFileError::Current { .. } => Some(KEY_IN_USE),
            _ => None,
        };
        let failure = by_hand(error, by_hand_change);
        match reason {
            Some(reason) => self.refused(id, reason, failure).await,
            None => failure,
        }
    }

    async fn count(&self) -> Result<BTreeMap<SealedBy, u64>, Failure> {
        self.resealing.count().await.map_err(reason)
    }

    /// Reads the changed file.
    fn reload(&self) -> Result<(), Failure> {
        self.keys.reload().map_err(failure)
    }

    async fn list(&self, format: FormatFlag) -> Result<(), Failure> {
        let mut counts = self.count().await?;
        let ring = self.keys.ring();
        let mut list = List::new(format, ["id", "state", "values"]);
        for id in ring.ids() {
            let state = if id == ring.current() { "current" } else { "earlier" };
            let number = Field::Number(counts.remove(&Some(id)).unwrap_or_default());
            list.add([Field::text(id), Field::text(state), number])?;
        }
        for (id, number) in counts {
            let state = if id.is_some() { "missing" } else { "earlier" };
            list.add([Field::optional(id.as_ref()), Field::text(state), Field::Number(number)])?;
        }
        list.finish()
    }

    async fn add(&self) -> Result<KeyId, Failure> {
        let added = self.file.add(&self.env.entropy).map_err(|error| {
            by_hand(error, "append a line with the output of `openssl rand -base64 32` to the file")
        })?;
        self.reload()?;
        self.record(added, "added").await;
        Ok(added)
    }

    async fn rotate(&self, to: Option<KeyId>, wait: Duration) -> Result<(), Failure> {
        let earlier = self.keys.ring().current();
        let key = match to {
            Some(key) if self.keys.ring().ids().contains(&key) => key,
            Some(key) => {
                let path = self.file.path().display();
                let failure =
                    format!("{path} has no key {key}: `kairos-identity keys secret list` prints its keys");
                return Err(self.refused(key, KEY_UNKNOWN, failure).await);
            }
            None => self.add().await?,
        };
        if key == earlier {
            print_error(format_args!("the key {key} is the current one already"))?;
        } else {
            print_error(format_args!(
                "1 of 3: the key {key} is in {}; waiting {}, until every running instance has it",
                self.file.path().display(),
                seconds(wait)
            ))?;
            tokio::time::sleep(wait).await;
            if let Err(error) = self.file.make_first(key) {
                let change = format!("move the line of the key {key} before the others (`keys secret list`)");
                return Err(self.not_changed(key, error, &change).await);
            }
            self.reload()?;
            self.record(key, "current").await;
            print_error(format_args!(
                "2 of 3: new secrets are encrypted under {key}; waiting {}, until every running instance does so",
                seconds(wait)
            ))?;
            tokio::time::sleep(wait).await;
        }
        print_error("3 of 3: encrypting the stored secrets again")?;
        self.reseal().await
    }

    async fn reseal(&self) -> Result<(), Failure> {
        let current = self.keys.ring().current();
        let mut replaced = 0;
        for _ in 0..PASSES_MAX {
            let open = self.count_under_others(current).await?;
            if open == 0 {
                break;
            }
            let mut progress = TerminalProgress::new(self.clock.clone());
            progress.begin("encrypting again", open);
            let done = self.resealing.run(|values| progress.advance(values)).await;
            progress.end();
            let done = done.map_err(reason)?;
            replaced += done.replaced;
            if let Some(cause) = done.cause {
                self.record_replaced(current, replaced).await;
                return Err(format!(
                    "encrypted {} again under the key {current}, but {} cannot be decrypted, and stay as \
                     they are: {cause}",
                    values(replaced),
                    done.unreadable
                ));
            }
        }
        self.record_replaced(current, replaced).await;
        if replaced == 0 {
            print(format_args!(
                "nothing was changed: no value is encrypted under another key than {current}"
            ))?;
        } else {
            print_change(format_args!("encrypted {} again under the key {current}", values(replaced)))?;
        }
        self.print_uses_of_earlier_keys().await
    }

    /// Returns the number of values that are encrypted under another key than this one.
    async fn count_under_others(&self, key: KeyId) -> Result<u64, Failure> {
        let counts = self.count().await?;
        Ok(counts.iter().filter(|(id, _)| **id != Some(key)).map(|(_, number)| number).sum())
    }

    /// Records how many values were encrypted again, if there were any.
    async fn record_replaced(&self, current: KeyId, replaced: u64) {
        if replaced > 0 {
            self.record(current, &format!("{} encrypted again under it", values(replaced))).await;
        }
    }

    /// Prints for each earlier key of the file whether a stored value is still encrypted under it.
    async fn print_uses_of_earlier_keys(&self) -> Result<(), Failure> {
        let (counts, ring) = (self.count().await?, self.keys.ring());
        let uses = |id: KeyId| counts.get(&Some(id)).copied().unwrap_or_default();
        for id in ring.ids().into_iter().filter(|id| *id != ring.current()) {
            match uses(id) {
                0 => print(format_args!(
                    "the key {id} is not used by this database: if it was, keep it with the backups of its time, and then run \
                     `kairos-identity keys secret remove {id}`"
                ))?,
                number => print(format_args!(
                    "{number} values are encrypted under the earlier key {id}: an instance still encrypts with it; when it \
                     has the changed file, run `kairos-identity keys secret reseal`"
                ))?,
            }
        }
        Ok(())
    }

    async fn remove(&self, id: KeyId) -> Result<(), Failure> {
        let counts = self.count().await?;
        // A value that names no key may be under any of them. `KeyFile::remove` refuses the current key.
        let used: u64 = [Some(id), None].iter().filter_map(|key| counts.get(key)).sum();
        if used > 0 && id != self.keys.ring().current() {
            let failure = format!(
                "{used} stored values may be encrypted under the key {id}: run `kairos-identity keys secret reseal` first"
            );
            return Err(self.refused(id, KEY_IN_USE, failure).await);
        }
        if let Err(error) = self.file.remove(id) {
            return Err(self.not_changed(id, error, &format!("delete the line of the key {id}")).await);
        }
        self.record(id, "removed").await;
        print_change(format_args!("removed the key {id} from {}", self.file.path().display()))
    }
}

fn failure(error: KeyFileError) -> Failure {
    format!("secret.key-file: {}", reason(error))
}

/// Formats an error of a change of the file. If the file cannot be written, for example because a container
/// mounts it, adds what the operator must do where the file comes from.
fn by_hand(error: KeyFileError, change: &str) -> Failure {
    match error {
        KeyFileError::Io { .. } => format!(
            "{}: this command cannot change the file: {change} where the file comes from (docs/backup.md)",
            failure(error)
        ),
        error => failure(error),
    }
}
