//! `kairos-identity backup`

use std::path::PathBuf;

use clap::Args;

use super::{Failure, reason, store};
use crate::config::Settings;

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// A new file
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

impl Backup {
    pub(super) fn run(self, settings: &Settings) -> Result<(), Failure> {
        let store = store::open(settings, false)?;
        store.back_up(&self.to).map_err(reason)?;
        println!("{} is a backup of {}", self.to.display(), settings.database.url);
        println!("keep the key beside it: what the service sealed opens under its secret.key-file alone");
        Ok(())
    }
}
