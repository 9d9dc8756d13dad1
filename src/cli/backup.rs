//! `kairos-identity backup`

use std::path::PathBuf;

use clap::Args;

use super::{
    Failure,
    output::print_change,
    reason,
    store::{self, IfMissing},
};
use crate::config::Settings;

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The backup file to create; it must not exist
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

impl Backup {
    pub(super) fn run(self, settings: &Settings) -> Result<(), Failure> {
        let store = store::open(settings, IfMissing::Fail)?;
        store.back_up(&self.to).map_err(reason)?;
        print_change(format_args!("backed up {} to {}", settings.database.url, self.to.display()))?;
        print_change(
            "keep the secret.key-file too, apart from the backup: only that key decrypts the secrets in it",
        )
    }
}
