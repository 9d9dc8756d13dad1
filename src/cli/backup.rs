//! `kairos-identity backup`

use std::path::{self, PathBuf};

use clap::Args;

use super::{
    Failure,
    output::print_change,
    reason, signing,
    store::{self, IfMissing},
};
use crate::{
    config::{DatabaseUrl, Settings},
    domain::io_reason,
    input_file::ShownPath,
};

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
        let key = match (&settings.secret.key_file, &settings.database.url) {
            (Some(path), _) => path.clone(),
            (None, DatabaseUrl::Sqlite(path)) => signing::default_key_path(path),
            (None, DatabaseUrl::Postgres(_)) => return Ok(()),
        };
        print_change(format_args!(
            "keep the key {} too, apart from the backup: only it decrypts the secrets in the backup",
            ShownPath(&key)
        ))
    }
}
