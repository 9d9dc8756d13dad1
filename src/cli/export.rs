//! `kairos-identity export`

#![expect(clippy::doc_markdown, reason = "clap shows these comments on a terminal, where marks are noise")]

use std::io;

use clap::{Args, Subcommand};

use super::{
    Failure,
    output::print_change,
    progress::TerminalProgress,
    reason,
    store::{self, IfMissing},
};
use crate::{
    clock::Clock,
    config::Settings,
    database::{DatabaseOptions, SqliteOptions},
    domain::io_reason,
    entropy::Entropy,
    import,
    publish::{self, Draft, Existing, NewFolders},
};

#[derive(Debug, Args)]
pub(super) struct Export {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write all users into the user table of a Django backend, to move back to it
    ///
    /// The table must be missing or empty. It gets the documented schema, as Django creates it. Disabled
    /// users get an unusable password, since Django has no such state.
    Django {
        /// The database of the Django backend: sqlite:///folder/file (a missing file is created, with its
        /// folder) or postgres://user:password@host/database
        #[arg(long, value_name = "URL")]
        to: String,
    },
}

impl Export {
    /// Checks the form of the URL of the target.
    pub(super) fn check_target_url(&self) -> Result<(), Failure> {
        let Action::Django { to } = &self.action;
        store::parse_url("--to", to).map(drop)
    }

    pub(super) async fn run(self, settings: &Settings) -> Result<(), Failure> {
        let Action::Django { to } = self.action;
        let to = store::parse_url("--to", &to)?;
        let target = store::options(settings, "--to", &to, IfMissing::Create)?;
        // Only checked here: the export opens the database itself.
        store::open_usable(settings).await?;
        let from = store::options(settings, "database.url", &settings.database.url, IfMissing::Fail)?;
        let failure = |error: &io::Error| format!("--to {to}: {}", io_reason(error));
        let (target, new_file) = new_file(target).map_err(|error| failure(&error))?;
        let mut progress = TerminalProgress::new(Clock::system());
        let entropy = Entropy::system();
        let exported = import::export(&from, &target, &entropy, &mut progress);
        let exported = exported.await.map_err(|error| format!("--to {to}: {}", reason(error)))?;
        if let Some(file) = new_file {
            file.draft.publish(Existing::Keep).map_err(|error| failure(&error))?;
        }
        print_change(format_args!("exported {} users to {to}", exported.users))?;
        if exported.disabled == 0 {
            return Ok(());
        }
        print_change(format_args!(
            "{} of them are disabled, and have an unusable password there",
            exported.disabled
        ))
    }
}

/// A SQLite file that the export creates. If it fails, neither the file nor a folder for it is left.
struct NewFile {
    draft: Draft,
    // After the draft, so that the draft is deleted first.
    _folders: NewFolders,
}

/// Replaces the path of a SQLite file that does not exist yet with that of a draft. The draft gets the name
/// of the file when the export is complete.
fn new_file(target: DatabaseOptions) -> io::Result<(DatabaseOptions, Option<NewFile>)> {
    let DatabaseOptions::Sqlite(options) = target else { return Ok((target, None)) };
    if options.path.exists() {
        return Ok((DatabaseOptions::Sqlite(options), None));
    }
    let folder = publish::folder_of(&options.path);
    publish::check_folder(folder)?;
    let folders = NewFolders::create(folder)?;
    publish::remove_leftovers(folder);
    let draft = Draft::create(&options.path)?;
    let path = draft.path().to_owned();
    let file = NewFile { draft, _folders: folders };
    Ok((DatabaseOptions::Sqlite(SqliteOptions { path, ..options }), Some(file)))
}
