//! `kairos-identity keys`

use clap::{Args, Subcommand};

use super::{Failure, reason, signing, store};
use crate::{
    accounts::Rotation, callers::COMMAND_LINE, config::Settings, domain::Origin, store::StoredSigningKey,
};

#[derive(Debug, Args)]
pub(super) struct Keys {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the keys, the latest first: name, when it was made, from when on it signs, until when it verifies; with tabs between
    List,
    /// Make the next key now, and not when it is time (session.key-rotation)
    ///
    /// It signs after session.key-lead, so that whoever keeps the public keys has it by then; the earlier keys verify until the
    /// last token that they signed has ended.
    Rotate {
        /// For keys that may have been stolen, or that cannot be opened any more: the new key signs at once, and every access token
        /// signed until now is good for nothing. Sessions go on: they are refreshed.
        #[arg(long)]
        revoke_earlier: bool,
    },
}

impl Keys {
    pub(super) async fn run(self, settings: &Settings) -> Result<(), Failure> {
        let store = store::open_current(settings).await?;
        let (keys, _) = signing::signing_keys_alone(settings, store)?;
        match self.verb {
            Verb::List => keys.list().await.map_err(reason)?.iter().for_each(show),
            Verb::Rotate { revoke_earlier } => {
                let rotation = if revoke_earlier { Rotation::RevokingEarlier } else { Rotation::Orderly };
                let made = keys.rotate(rotation, &Origin::local(COMMAND_LINE)).await.map_err(reason)?;
                show(&made.ok_or(
                    "somebody else made a key at the same moment: look at `kairos-identity keys list`",
                )?);
            }
        }
        Ok(())
    }
}

fn show(key: &StoredSigningKey) {
    let until = key.verifies_until.map_or_else(|| "-".to_owned(), |until| until.to_string());
    println!("{}\t{}\t{}\t{until}", key.id, key.created_at, key.signs_from);
}
