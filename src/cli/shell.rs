//! `kairos-identity completions` and `kairos-identity man`: the command line, for a shell and for `man`.

use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;

use super::{Failure, output::Lines};
use crate::input_file::ShownPath;

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
    /// Writes a page for the program and for each of its commands.
    pub(super) fn run(&self, command: Command) -> Result<(), Failure> {
        let failure = |folder: &Path, reason: &str| format!("--to: {}: {reason}", ShownPath(folder));
        if !self.to.is_dir() {
            return Err(failure(&self.to, "it is not a folder: create it first"));
        }
        clap_mangen::generate_to(command, &self.to).map_err(|error| failure(&self.to, &error.to_string()))
    }
}
