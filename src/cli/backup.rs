//! `kairos-identity backup`

use std::path::{self, PathBuf};

use clap::Args;

use super::{
    Failure,
    output::print_change,
    reason,
    store::{self, IfMissing},
};
use crate::{config::Settings, domain::io_reason};

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The backup file to create; it must not exist
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

impl Backup {
    pub(super) fn run(self, settings: &Settings) -> Result<(), Failure> {
        let store = store::open(settings, IfMissing::Fail)?;
        // All messages name the absolute path.
        let to = path::absolute(&self.to).map_err(|error| format!("--to: {}", io_reason(&error)))?;
        store.back_up(&to).map_err(reason)?;
        print_change(format_args!("backed up {} to {}", settings.database.url, to.display()))?;
        print_change(
            "keep the secret.key-file too, apart from the backup: only that key decrypts the secrets in it",
        )
    }
}
