//! `kairos-identity completions` and `kairos-identity man`: the command line, for a shell and for `man`.

use std::{
    fs::Permissions,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use clap::{Args, Command};
use clap_complete::Shell;

use super::{Failure, output::Lines};
use crate::{
    domain::io_reason,
    input_file::ShownPath,
    publish::{self, Draft, Existing},
};

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Prints the script that completes this command line in a shell.
    pub(super) fn run(&self, mut command: Command) -> Result<(), Failure> {
        let (name, mut script) = (command.get_name().to_owned(), Vec::new());
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        // In the script for bash, the library writes the hyphen of a name in two ways, so that no command has
        // completions (https://github.com/clap-rs/clap/issues/6421).
        let script = String::from_utf8_lossy(&script).replace("kairos__subcmd__identity", "kairos__identity");
        let mut output = Lines::new();
        for line in script.lines() {
            let reader_has_gone = output.line(line)?;
            if reader_has_gone {
                break;
            }
        }
        output.finish()
    }
}

#[derive(Debug, Args)]
pub(super) struct Man {
    /// An existing folder for the pages, such as /usr/local/share/man/man1
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
}

impl Man {
    /// Writes a page for the program and for each of its commands. All pages are on the disk before the first
    /// gets its name, so a full disk leaves none.
    pub(super) fn run(&self, command: Command) -> Result<(), Failure> {
        let failure = |folder: &Path, reason: &str| format!("--to: {}: {reason}", ShownPath(folder));
        if !self.to.is_dir() {
            return Err(failure(&self.to, "it is not a folder: create it first"));
        }
        publish::remove_leftovers(&self.to);
        let mut command = command.disable_help_subcommand(true);
        command.build();
        let mut drafts = Vec::new();
        self.write_drafts(&command, &mut drafts).map_err(|error| failure(&self.to, &io_reason(&error)))?;
        for (page, draft) in drafts {
            draft.publish(Existing::Replace).map_err(|error| failure(&page, &io_reason(&error)))?;
        }
        Ok(())
    }

    /// Writes the drafts of the pages of a command and of its subcommands.
    fn write_drafts(&self, command: &Command, drafts: &mut Vec<(PathBuf, Draft)>) -> io::Result<()> {
        let page = clap_mangen::Man::new(command.clone());
        let path = self.to.join(page.get_filename());
        let mut draft = Draft::create(&path)?;
        let mut text = Vec::new();
        page.render(&mut text)?;
        draft.file().write_all(&text)?;
        // A page is for all users.
        draft.file().set_permissions(Permissions::from_mode(0o644))?;
        draft.file().sync_all()?;
        drafts.push((path, draft));
        for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
            self.write_drafts(command, drafts)?;
        }
        Ok(())
    }
}
