//! What the commands print. Every line of every command passes through this module.
//!
//! A reader that closes the pipe, as `head` does, ends the output quietly. Any other failed write is an error
//! of the command. Text that others have written, such as an imported username, cannot forge a line or a
//! field, nor control the terminal: its control characters are escaped.

use std::{
    fmt::Display,
    io::{self, BufWriter, Stdout, Write},
    os::unix::fs::MetadataExt as _,
};

use super::{Failure, printable::escaped};

/// The only control character that lines contain: the tab between two fields.
const FIELD_SEPARATOR: &[char] = &['\t'];

/// Prints one line to standard output.
///
/// # Errors
/// The line cannot be written. A closed pipe is no error.
pub(super) fn print(line: impl Display) -> Result<(), Failure> {
    let mut output = Lines::new();
    output.line(line)?;
    output.finish()
}

/// Prints the result of a change that the command has made.
///
/// # Errors
/// The line cannot be written. The message tells that the change was made, since a command that fails usually
/// changes nothing. A closed pipe is no error.
pub(super) fn print_change(line: impl Display) -> Result<(), Failure> {
    after_change(print(line))
}

/// Adds to a failure of the output that the command has made its change.
pub(super) fn after_change(printed: Result<(), Failure>) -> Result<(), Failure> {
    printed.map_err(|failure| format!("{failure}. The change was made before and stays"))
}

/// Prints a secret that is shown only once to standard output.
///
/// # Errors
/// It cannot be written. A closed pipe and `/dev/null`, which the standard library opens in place of an
/// output that is closed at the start, are errors too: the secret would be lost.
pub(super) fn print_secret(line: &str) -> Result<(), Failure> {
    let device =
        |path: &str| std::fs::metadata(path).map(|file| file.rdev()).ok().filter(|device| *device != 0);
    if let (Some(output), Some(null)) = (device("/dev/stdout"), device("/dev/null"))
        && output == null
    {
        return Err("standard output is closed or /dev/null: the secret would be lost".to_owned());
    }
    let mut output = io::stdout().lock();
    let written = output.write_all(format!("{line}\n").as_bytes()).and_then(|()| output.flush());
    written.map_err(|error| format!("cannot write to standard output: {error}"))
}

/// Prints one line to standard error.
///
/// # Errors
/// The line cannot be written. A closed pipe is no error.
pub(super) fn print_error(line: impl Display) -> Result<(), Failure> {
    let line = format!("{}\n", escaped(&line.to_string(), FIELD_SEPARATOR));
    is_closed_by_reader("standard error", io::stderr().lock().write_all(line.as_bytes())).map(drop)
}

/// Asks a question on standard error, without a line break.
///
/// # Errors
/// The question cannot be written.
pub(super) fn ask(question: &str) -> Result<(), Failure> {
    is_closed_by_reader("standard error", io::stderr().lock().write_all(question.as_bytes())).map(drop)
}

/// Prints the help, the version or the error of clap, with colors on a terminal.
///
/// # Errors
/// It cannot be written. A closed pipe is no error.
pub(super) fn print_clap(error: &clap::Error) -> Result<(), Failure> {
    let output = if error.use_stderr() { "standard error" } else { "standard output" };
    is_closed_by_reader(output, error.print()).map(drop)
}

/// The lines of a command for standard output, buffered.
pub(super) struct Lines {
    output: BufWriter<Stdout>,
    is_closed: bool,
}

impl Lines {
    pub(super) fn new() -> Self {
        Self { output: BufWriter::new(io::stdout()), is_closed: false }
    }

    /// Prints one line. Returns true if the reader has closed the pipe, so that further lines are of no use.
    ///
    /// # Errors
    /// The line cannot be written.
    pub(super) fn line(&mut self, line: impl Display) -> Result<bool, Failure> {
        if !self.is_closed {
            let line = format!("{}\n", escaped(&line.to_string(), FIELD_SEPARATOR));
            self.is_closed = is_closed_by_reader("standard output", self.output.write_all(line.as_bytes()))?;
        }
        Ok(self.is_closed)
    }

    /// Prints the header of a table, in bold if `is_colored`.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn header(&mut self, header: &str, is_colored: bool) -> Result<bool, Failure> {
        if !is_colored {
            return self.line(header);
        }
        if !self.is_closed {
            let line = format!("\u{1b}[1m{}\u{1b}[0m\n", escaped(header, &[]));
            self.is_closed = is_closed_by_reader("standard output", self.output.write_all(line.as_bytes()))?;
        }
        Ok(self.is_closed)
    }

    /// Writes what is still buffered.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        let flushed = if self.is_closed { Ok(()) } else { self.output.flush() };
        let checked = is_closed_by_reader("standard output", flushed);
        // The buffer would be written again, and fail again, when it is dropped.
        let _ = self.output.into_parts();
        checked.map(drop)
    }
}

/// Returns true if the reader of the output has closed the pipe, and any other error as a [`Failure`].
fn is_closed_by_reader(output: &str, written: io::Result<()>) -> Result<bool, Failure> {
    match written {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        Err(error) => Err(format!("cannot write to {output}: {error}")),
    }
}
